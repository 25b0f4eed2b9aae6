"""Reading and damaging exports in every format, for the tests of the formats."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from brain_tumor.artifacts.tables import COORDINATES
from brain_tumor.ingest.export import Export, ExportSplit
from brain_tumor.ingest.formats.registry import read_export
from tests.unit.format_writers import WRITERS, Picture, Splits, write_records

FIVE_LABELS = ["glioma, grade IV", 'the "core"', "опухоль", "腫瘍 部位", "it's <b> & no: 1.0"]
NAME = "volume 1 срез_2, the 'first'.jpg"


def splits_of(labels: list[str]) -> Splits:
    """A few images: with a box of every label, with boxes at the edges, without a box."""
    every = [(label, 2.0 * index, 1.0, 20.0, 9.5 + index) for index, label in enumerate(labels)]
    last = labels[-1]
    return {
        "train": [
            Picture("volume_1_slice_1.jpg", every),
            Picture(NAME, [(last, 0, 0, 139, 132)], 139, 132),
            Picture("volume_1_slice_3.JPEG"),
        ],
        "valid": [Picture("volume_2_slice_1_jpg.rf.0a1b.jpg", [(last, 31, 7, 139, 13)], 139, 132)],
        "test": [Picture("volume_3_slice_1.jpg", [(labels[0], 0, 3, 1, 4)])],
    }


def write(folder: Path, name: str, splits: Splits | None = None, labels: list[str] = FIVE_LABELS) -> Path:
    """Writes an export in a format."""
    folder = folder / "export"
    WRITERS[name](folder, splits or splits_of(labels), labels)
    return folder


def read(folder: Path) -> Export:
    """Reads an export; images embedded in its files are extracted to `scratch` beside it."""
    scratch = folder.parent / "scratch"
    scratch.mkdir()
    return read_export(folder, scratch)


def train_of(folder: Path) -> ExportSplit:
    """Reads an export's train split."""
    return read(folder).splits[0]


def corners(split: ExportSplit) -> list[list[float]]:
    """The coordinates of each box."""
    return split.boxes[list(COORDINATES)].to_numpy().tolist()


def edit_json(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes the train split's COCO file."""
    path = folder / "train" / "_annotations.coco.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def replace_text(path: str, old: str, new: str) -> Callable[[Path], object]:
    """Replaces a text once in a file of the export."""

    def change(folder: Path) -> None:
        content = (folder / path).read_text(encoding="utf-8")
        assert old in content
        (folder / path).write_text(content.replace(old, new, 1), encoding="utf-8")

    return change


def put_bytes(path: str, content: bytes) -> Callable[[Path], object]:
    """Writes a file of the export."""
    return lambda folder: (folder / path).write_bytes(content)


def edit_annotation(**values: object) -> Callable[[Path], object]:
    """Changes an annotation of a COCO file."""
    return lambda folder: edit_json(folder, lambda content: content["annotations"][2].update(values))


def edit_image(**values: object) -> Callable[[Path], object]:
    """Changes an image's entry in a COCO file."""
    return lambda folder: edit_json(folder, lambda content: content["images"][0].update(values))


def edit_record(**values: object) -> Callable[[Path], object]:
    """Replaces features of the first record; without values the record becomes invalid."""

    def change(folder: Path) -> None:
        import tensorflow as tf

        path = folder / "train/project.tfrecord"
        records = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
        parsed = tf.train.Example.FromString(records[0])
        for key, value in values.items():
            feature = parsed.features.feature[f"image/{key.replace('__', '/')}"]
            feature.Clear()
            if isinstance(value, bytes):
                feature.bytes_list.value.append(value)
            else:
                feature.float_list.value.extend(value)
        records[0] = parsed.SerializeToString() if values else b"\xff\xff"
        write_records(path, records)

    return change


def append_text(path: Path, text: str) -> None:
    """Appends a text to a file."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(text)
