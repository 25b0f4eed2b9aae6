"""What all kinds of cases work with: good exports, and how one that was made bad is judged."""

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
"""How a case ended, and what was wrong."""

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
    """What cases need.

    Attributes:
        server: Runs steps.
        folder: For the workplaces.
        exports: By format, the bytes of a good export's files by path.
    """

    server: Server
    folder: Path
    exports: dict[str, dict[str, bytes]]


def image_folders(place: Workplace, export_format: str) -> dict[str, Path] | None:
    """Where the images of each split are; None for a format that has them in other files."""
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
    """Ingests an export that was made bad, and judges how that ends.

    One in forty goes by the command line and with a report, and one in forty of those that end well is made
    into records: both take seconds.

    Args:
        bench: What cases need.
        draw: Draws the config.
        export_format: The export's format.
        files: Its files.
        expected: What it holds.
        change: What is done to the export besides.
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
    """How a step ended, in a word."""
    return {0: "well", 1: "with a traceback", 2: "with a sentence"}.get(ended.code, "by a signal")
