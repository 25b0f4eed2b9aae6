"""Roboflow's "tfrecord" format: `<split>/<name>.tfrecord` with the images, and `<name>_label_map.pbtxt`.

A record is a `tf.train.Example` with the TF Object Detection API's keys; boxes are normalized, and
`image/object/class/text` names their labels, so the label map is not needed for them. See
https://github.com/tensorflow/models/blob/master/research/object_detection/g3doc/using_your_own_dataset.md.
"""

from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from brain_tumor.artifacts.tables import COORDINATES
from brain_tumor.config import Split
from brain_tumor.ingest.export import IMAGE_SUFFIXES, ExportSplit
from brain_tumor.ingest.formats.label_map import read_label_map
from brain_tumor.ingest.numbers import to_pixels
from brain_tumor.ingest.split_folders import split_folders
from brain_tumor.ingest.split_reader import SplitReader, is_companion, list_folder
from brain_tumor.runtime.errors import InputError
from brain_tumor.runtime.text import quote
from brain_tumor.stores.files import is_special
from brain_tumor.stores.tfrecord_file import Example, RecordError, read_records

LAYOUT = "<split>/<name>.tfrecord"
LABEL_MAP = "_label_map.pbtxt"
LONGEST_NAME = 255  # bytes, the limit of common file systems


def find(folder: Path) -> dict[Split, Path]:
    """A record file of each split that has one."""
    splits = split_folders(folder)
    return {split: path / names[0] for split, path in splits.items() if (names := _files(path))}


def _files(folder: Path) -> list[str]:
    return [name for name in list_folder(folder) if ".tfrecord" in name.lower() and not is_companion(name)]


def read(folder: Path, scratch: Path) -> list[ExportSplit]:
    """Reads the splits of an export in which `find` found something.

    The images are written to `<scratch>/<split>/`, bytes unchanged. A record that cannot be read is a
    finding; its row is the position in the file.

    Raises:
        InputError: A split has no record file or no image, or a file is damaged.
    """
    return [
        _read_split(folder, split, path, scratch / split) for split, path in split_folders(folder).items()
    ]


def read_labels(folder: Path) -> list[tuple[int, str]]:
    """The number and the name of each label of each split's label maps, if there are any.

    Raises:
        InputError: A label map cannot be read.
    """
    paths = [path for split in split_folders(folder).values() for path in sorted(split.glob(f"*{LABEL_MAP}"))]
    return [label for path in paths for label in read_label_map(path)]


def _read_split(folder: Path, split: Split, records: Path, images: Path) -> ExportSplit:
    files = _files(records)
    if not files:
        raise InputError(f"{records} has no .tfrecord file; add it or delete the folder.")
    images.mkdir()
    reader = SplitReader(split, images)
    for name in list_folder(records):
        if name not in files and not name.endswith(".pbtxt"):
            reader.ignore_file(name)
    for name in files:
        path = records / name
        source = path.relative_to(folder).as_posix()
        row = 0
        if is_special(path):
            raise InputError(f"{path} is a pipe or a device, not a file; export it again.")
        try:
            with open(path, "rb") as file:
                for row, record in enumerate(read_records(file), 1):
                    _read_record(record, reader, source, row)
        except RecordError as error:
            raise InputError(
                f"{path}: record {row + 1} is damaged ({error}); export or copy the file again."
            ) from error
    if not reader.images:
        raise InputError(f"{records} has no image in its .tfrecord files; export it again.")
    return reader.finish()


def _read_record(record: bytes, reader: SplitReader, source: str, row: int) -> None:
    try:
        features = Example.FromString(record).features.feature
    except DecodeError:
        reader.report("", source, row, "is not a tf.train.Example")
        return
    filename, problem = _read_name(features)
    if problem:
        reader.report("", source, row, problem)
        return
    if filename in reader.images:
        reader.report(filename, source, row, "is in the file twice", "duplicate_name")
        return
    (reader.folder / filename).write_bytes(b"".join(features["image/encoded"].bytes_list.value[:1]))
    reader.add_image(filename)

    sides = [features[f"image/{side}"].int64_list.value for side in ("width", "height")]
    if any(len(values) != 1 for values in sides):
        reader.report(filename, source, row, "has no image/width or no image/height")
        return
    width, height = (float(values[0]) for values in sides)
    columns = [features[f"image/object/bbox/{name}"].float_list.value for name in COORDINATES]
    labels = features["image/object/class/text"].bytes_list.value
    if any(len(column) != len(labels) for column in columns):
        problem = f"has {len(labels)} image/object/class/text but {max(map(len, columns))} boxes"
        reader.report(filename, source, row, problem)
        return
    for label, *corners in zip(labels, *columns, strict=True):
        xmin, ymin, xmax, ymax = (
            to_pixels(corner, side) for corner, side in zip(corners, (width, height) * 2, strict=True)
        )
        try:
            text = label.decode()
        except UnicodeDecodeError:
            reader.report(filename, source, row, f"has the label {label!r:.80}, which is not UTF-8 text")
            return
        reader.add_box(filename, text, (xmin, ymin, xmax, ymax), (width, height), source, row)


def _read_name(features: Any) -> tuple[str, str]:
    """The image's file name, and its problem, if any: it must be a file name, not a path."""
    name = b"".join(features["image/filename"].bytes_list.value[:1])
    try:
        filename = str(name.decode())
    except UnicodeDecodeError:
        return "", f"has the image/filename {name!r:.80}, which is not UTF-8 text"
    if any(character in filename for character in "/\\\0") or filename in ("", ".", ".."):
        return "", f"has the image/filename {quote(filename)}, which is not the name of a file"
    if len(name) > LONGEST_NAME:
        return "", f"has the image/filename {quote(filename)}, which is longer than {LONGEST_NAME} bytes"
    if not filename.lower().endswith(IMAGE_SUFFIXES):
        return "", f"has the image/filename {quote(filename)}, which is not a JPEG's or PNG's (*.jpg, *.png)"
    return filename, ""
