"""A good export in every format, whose files tests damage, and checks of the outcome."""

import csv
import io
import os
from pathlib import Path
from typing import Any

from brain_tumor.runtime.errors import InputError
from tests.unit.format_writers import WRITERS, Picture, example

LABELS = ["label0", "опухоль, 2"]
GOOD = Picture("volume_1_slice_1, «good».jpg", [(LABELS[0], 1, 2, 30, 29.5), (LABELS[1], 0, 0, 40, 30)])
VICTIM = Picture("volume_1_slice_2.jpg", [(LABELS[0], 3, 4, 5, 6)])
SPLITS = {
    "train": [GOOD, VICTIM],
    "valid": [Picture("volume_2_slice_1.jpg")],
    "test": [Picture("volume_3_slice_1.jpg")],
}
CSV = "train/_annotations.csv"
JSON = "train/_annotations.coco.json"
TXT = f"train/labels/{Path(VICTIM.name).stem}.txt"
XML = f"train/{Path(VICTIM.name).stem}.xml"
RECORDS = "train/project.tfrecord"


def write_good_exports(parent: Path) -> dict[str, dict[str, bytes]]:
    """Writes a good export per format to a folder; returns the files' bytes by path, by format."""
    contents = {}
    for name, write in WRITERS.items():
        folder = parent / name
        write(folder, SPLITS, LABELS)
        files = (path for path in folder.rglob("*") if path.is_file())
        contents[name] = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
    return contents


def listing(folder: Path) -> dict[str, bytes]:
    """The content of a folder."""
    paths = (Path(root) / name for root, _, names in os.walk(folder) for name in names)
    # A broken link counts by its target.
    return {
        str(path.relative_to(folder)): path.read_bytes()
        if os.path.exists(path)
        else os.readlink(path).encode()
        for path in paths
    }


def write_files(folder: Path, files: dict[str, bytes]) -> None:
    """Writes files below a folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def check_sentence(error: InputError) -> None:
    """Bad input gives one line that is not too long."""
    message = str(error)
    assert message.isprintable(), message
    assert message.endswith(".")
    assert len(message) < 1000


def csv_of(rows: list[list[str]]) -> str:
    """Rows as CSV."""
    buffer = io.StringIO()
    csv.writer(buffer).writerows(rows)
    return buffer.getvalue()


def bad_example(features: dict[str, list[Any]]) -> bytes:
    """The second image's record, with other values of some features."""
    import tensorflow as tf

    message = tf.train.Example.FromString(example(VICTIM, LABELS))
    for name, content in features.items():
        feature = message.features.feature[f"image/{name}"]
        feature.Clear()
        kinds = {bytes: feature.bytes_list, float: feature.float_list, int: feature.int64_list}
        if content:
            kinds[type(content[0])].value.extend(content)
    return bytes(message.SerializeToString())
