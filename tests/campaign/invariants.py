"""Invariants of a step for any input: nothing lost, nothing silent, no traceback."""

import csv
import os
import signal
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from brain_tumor.ingest.export import IMAGE_SUFFIXES, OTHER_IMAGE_SUFFIXES
from brain_tumor.runtime.text import printable
from tests.campaign.workplace import Ended, Workplace, snapshot
from tests.unit.bad_exports import GOOD, VICTIM
from tests.unit.roboflow_service import KEY, SIGNATURE

LONGEST_SENTENCE = 1000
TERMINATED, INTERRUPTED = (128 + signal.SIGTERM, -signal.SIGTERM), (128 + signal.SIGINT,)
CODES = {signal.SIGTERM: TERMINATED, signal.SIGINT: INTERRUPTED, signal.SIGKILL: (-signal.SIGKILL,)}
INVARIANTS = ("traceback", "sentence", "hang", "outside", "export", "key", "draft", "silent")
COORDINATES = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class Violation:
    """A violated invariant.

    Attributes:
        kind: The invariant, one of `INVARIANTS`.
        what: What was observed.
    """

    kind: str
    what: str


class Watch:
    """Compares a workplace before and after a step.

    Args:
        place: The workplace.
        own: Files and folders that the step may write if it succeeds.
    """

    def __init__(self, place: Workplace, own: Collection[Path] = ()) -> None:
        self._place = place
        self._own = [os.path.relpath(path, place.root) for path in (own or (place.output, place.report))]
        self._before = snapshot(place.root)

    def check(self, ended: Ended, number: int | None = None) -> list[Violation]:
        """The violations after a step, possibly one that was sent a signal."""
        found = list(_check_end(ended, number))
        after = snapshot(self._place.root)
        for name in sorted(self._before.keys() | after.keys()):
            if self._before.get(name) == after.get(name):
                continue
            if name.startswith("data/export/"):
                found.append(Violation("export", f"{name!r} was changed"))
            elif self._is_draft(name):
                if number != signal.SIGKILL:
                    found.append(Violation("draft", f"{name!r} is left"))
            elif not any(name == own or name.startswith(f"{own}/") for own in self._own):
                found.append(Violation("outside", f"{name!r} was changed"))
        return found + self._check_secrets(ended)

    def _is_draft(self, name: str) -> bool:
        """Whether it is a temporary file, or an unfinished output."""
        hidden = [f"{Path(own).parent}/.{Path(own).name}" for own in self._own]
        # An output may have a name like a draft's.
        name = next((os.path.relpath(name, own) for own in self._own if Path(name).is_relative_to(own)), name)
        return name.startswith(("tmp/", *hidden)) or any(part.endswith(".tmp") for part in Path(name).parts)

    def _check_secrets(self, ended: Ended) -> list[Violation]:
        found = [Violation("key", f"the step says {each}") for each in (KEY, SIGNATURE) if each in ended.said]
        for folder, _, names in os.walk(self._place.root):
            for path in (Path(folder, name) for name in names):
                if path.is_file() and not path.is_symlink():
                    content = path.read_bytes()
                    if KEY.encode() in content or SIGNATURE.encode() in content:
                        found.append(Violation("key", f"{path.relative_to(self._place.root)} holds it"))
        return found


def _check_end(ended: Ended, number: int | None) -> list[Violation]:
    last = ended.said.rstrip("\n").rsplit("\n", 1)[-1]
    if ended.hangs:
        return [Violation("hang", "killed after a minute")]
    signaled = CODES[signal.Signals(number)] if number else ()
    if "Traceback (most recent call last)" in ended.said or ended.code not in (0, 2, *signaled):
        return [Violation("traceback", f"exit code {ended.code}: {last[:300]}")]
    if ended.code == 2 and not (10 < len(last) < LONGEST_SENTENCE and last.isprintable()):
        return [Violation("sentence", f"{len(last)} characters: {last[:300]}")]
    return []


@dataclass(frozen=True)
class Expected:
    """The known content of a bad export.

    Attributes:
        good: Whether the good image's boxes are unchanged.
        entries: The number of annotations of the other image; None if unknown.
        victim: The other image's name.
        folders: The image folders by split; None if images are in other files, with the names `images`.
        images: Names of train images that must not be lost, if they are in other files.
    """

    good: bool = True
    entries: int | None = None
    victim: str = VICTIM.name
    folders: dict[str, Path] | None = None
    images: tuple[str, ...] = ()


def account(dataset: Path, expected: Expected) -> list[Violation]:
    """Content of an export that is neither in the dataset made from it nor named by a finding."""
    with open(dataset / "findings.csv", newline="", encoding="utf-8") as file:
        told = {(finding["split"], finding["file"]) for finding in csv.DictReader(file)}
    found = _lost_images(dataset, expected, told) + _changed_images(dataset, expected)
    return [Violation("silent", what) for what in found + _lost_boxes(dataset, expected, told)]


def _lost_images(dataset: Path, expected: Expected, told: set[tuple[str, str]]) -> list[str]:
    return [
        f"the image {split}/{name!r} is missing without a finding"
        for split, name in sorted(_images(expected))
        if (split, printable(name)) not in told
        and not any(os.path.lexists(dataset / kind / split / name) for kind in ("images", "quarantine"))
    ]


def _changed_images(dataset: Path, expected: Expected) -> list[str]:
    return [
        f"the image {split}/{path.name!r} has other bytes"
        for kind in ("images", "quarantine")
        for split, folder in (expected.folders or {}).items()
        for path in (dataset / kind / split).glob("*")
        if path.read_bytes() != (folder / path.name).read_bytes()
    ]


def _lost_boxes(dataset: Path, expected: Expected, told: set[tuple[str, str]]) -> list[str]:
    found = []
    kept = set(pq.read_table(dataset / "images.parquet")["source_id"].to_pylist())
    rows = pq.read_table(dataset / "annotations.parquet").to_pylist()
    for picture, count in ((GOOD.name, len(GOOD.boxes)), (expected.victim, expected.entries)):
        if count is None or (picture == GOOD.name and not expected.good):
            continue
        name = next((each for each in kept if _same(each, f"train/{picture}")), None)
        if name is None or ("train", name.removeprefix("train/")) in told:
            continue
        own = [row for row in rows if row["source_id"] == name]
        if len(own) != count:
            found.append(f"{name!r} has {len(own)} boxes of {count}, without a finding")
        elif picture == GOOD.name and not _match(own):
            found.append(f"{name!r} has other boxes: {own}")
    return found


def _match(rows: list[dict[str, Any]]) -> bool:
    seen = sorted((row["label"], *(row[name] for name in COORDINATES)) for row in rows)
    return all(
        label == other[0] and all(abs(a - b) < 0.02 for a, b in zip(box, other[1:], strict=True))
        for (label, *box), other in zip(seen, sorted(GOOD.boxes), strict=True)
    )


def _images(expected: Expected) -> set[tuple[str, str]]:
    """Split and name of each image of an export."""
    found = {("train", name) for name in expected.images}
    for split, folder in (expected.folders or {}).items():
        for name in os.listdir(folder):
            if not name.startswith(".") and name.lower().endswith((*IMAGE_SUFFIXES, *OTHER_IMAGE_SUFFIXES)):
                found.add((split, name))
    return found


def _same(name: str, other: str) -> bool:
    """Whether two names are equal in Unicode's composed form."""
    return unicodedata.normalize("NFC", name) == unicodedata.normalize("NFC", other)
