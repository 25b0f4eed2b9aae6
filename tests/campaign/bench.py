"""Shared by all kinds of cases: good exports, and the checks after ingesting a bad one."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from tests.campaign.invariants import Expected, Violation, Watch, account
from tests.campaign.workplace import Ended, Server, Workplace, workplace
from tests.unit.bad_exports import LABELS

Draw = Callable[[st.SearchStrategy[Any]], Any]
Outcome = tuple[str, list[Violation]]
"""How a case ended, and its violations."""

CONFIGS = st.fixed_dictionaries(
    {
        "labels": st.sampled_from([["auto"], LABELS, LABELS, [*LABELS, "other"]]),
        "max_bad_fraction": st.sampled_from([1.0, 1.0, 1.0, 0.5, 0.0]),
        "duplicate_boxes": st.sampled_from(["largest", "union", "error"]),
        "split": st.sampled_from(["provided", "provided", "provided", "patient"]),
    }
)


@dataclass(frozen=True)
class Bench:
    """Resources for cases.

    Attributes:
        server: Runs steps.
        folder: The parent folder of the workplaces.
        exports: By format, the bytes of a good export's files by path.
    """

    server: Server
    folder: Path
    exports: dict[str, dict[str, bytes]]


def image_folders(place: Workplace, export_format: str) -> dict[str, Path] | None:
    """The folders of each split's images; None for a format that stores them in other files."""
    if export_format == "tfrecord":
        return None
    below = "images" if export_format == "yolo" else "."
    folders = {split: place.export / split / below for split in ("train", "valid", "test")}
    return {split: folder for split, folder in folders.items() if folder.is_dir()}


def ingest_bad(
    bench: Bench,
    draw: Draw,
    export_format: str,
    files: dict[str, bytes],
    expected: Callable[[Workplace], Expected],
    change: Callable[[Workplace], object] = lambda place: None,
) -> Outcome:
    """Ingests a bad export, and checks the result.

    One in forty runs on the command line with a report, and one in forty of the successful ones is built into
    records: both take seconds.

    Args:
        bench: Resources for cases.
        draw: Draws the config.
        export_format: The export's format.
        files: Its files.
        expected: Its expected content.
        change: A further change of the export.
    """
    config = draw(CONFIGS)
    way = draw(st.integers(0, 39))
    with workplace(bench.folder, bench.server, files) as place:
        change(place)
        watch = Watch(place)
        if way == 0:
            ended = place.step(*command_line(place, config))
        else:
            ended = place.ingest({"source": "directory", "path": str(place.export), **config})
        found = watch.check(ended)
        if ended.code == 0 and not found:
            found += account(place.output, expected(place))
        if ended.code == 0 and way == 1:
            found += _make_records(place)
    return ending(ended), found


def command_line(place: Workplace, config: dict[str, Any]) -> list[str]:
    """The command that ingests a workplace's export."""
    quoted = ",".join(f"'{label}'" for label in config.get("labels", LABELS))
    values = {**config, "labels": f"[{quoted}]"}
    overrides = [f"dataset.{name}={value}" for name, value in values.items()]
    paths = ["--output", str(place.output), "--report", str(place.report)]
    return ["ingest", *paths, "dataset=directory", f"dataset.path={place.export}", *overrides]


def _make_records(place: Workplace) -> list[Violation]:
    records = place.root / "out" / "records"
    watch = Watch(place, [records])
    ended = place.step("records", "--dataset", str(place.output), "--output", str(records), tensorflow=True)
    return watch.check(ended)


def ending(ended: Ended) -> str:
    """How a step ended, in one word."""
    return {0: "well", 1: "with a traceback", 2: "with a sentence"}.get(ended.code, "by a signal")
