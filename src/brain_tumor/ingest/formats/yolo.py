"""Roboflow's "yolov5" and "yolov8" formats: `data.yaml`, `<split>/images/*.jpg` and `<split>/labels/*.txt`.

Ultralytics' own layout, `images/<split>/` and `labels/<split>/`, is read too. A line of a label file is a
class's index and center x, center y, width and height as fractions of the image, or the corners of a polygon
(three or more), which is read as its bounding box. With a `kpt_shape` in the `data.yaml`, keypoints follow
the box; without it, lines that may be boxes with keypoints are an error. An image without a label file has no
box. See https://docs.ultralytics.com/datasets/detect/, segment/ and pose/ there.
"""

from pathlib import Path
from typing import NamedTuple

import yaml
from PIL import Image

from brain_tumor.config import Split
from brain_tumor.ingest.export import DECODED, ExportSplit
from brain_tumor.ingest.formats.keypoints import PoseAmbiguity, looks_like_pose
from brain_tumor.ingest.numbers import parse_number, to_pixels
from brain_tumor.ingest.split_folders import split_folders
from brain_tumor.ingest.split_reader import Box, Size, SplitReader, is_companion, list_folder
from brain_tumor.ingest.stems import match_stems
from brain_tumor.runtime.errors import InputError
from brain_tumor.runtime.text import is_text, quote
from brain_tumor.stores.files import is_special

LAYOUT = "data.yaml, <split>/images/*.jpg and <split>/labels/*.txt"
NAMES = ("data.yaml", "data.yml")
SUFFIX = ".txt"


def find(folder: Path) -> dict[Split, Path]:
    """The label folder of each split that has one."""
    return {split: labels for split, (_, labels) in _places(folder).items() if labels.is_dir()}


def _places(folder: Path) -> dict[Split, tuple[Path, Path]]:
    """By split, the expected folders of its images and its labels."""
    splits = split_folders(folder)
    if splits:
        return {split: (path / "images", path / "labels") for split, path in splits.items()}
    splits = split_folders(folder / "images")
    return {split: (path, folder / "labels" / path.name) for split, path in splits.items()}


def read(folder: Path, _scratch: Path) -> list[ExportSplit]:
    """Reads the splits of an export in which `find` found something.

    A label file or line that cannot be read is a finding about its image.

    Raises:
        InputError: There are no usable class names, or a split lacks its images or labels.
    """
    line_format = _read_line_format(folder)
    splits = [_read_split(folder, split, *place, line_format) for split, place in _places(folder).items()]
    line_format.ambiguity.check()
    return splits


def read_labels(folder: Path) -> list[tuple[int, str]]:
    """Reads the index and name of each class of the `data.yaml`.

    Raises:
        InputError: It is missing or cannot be read.
    """
    return list(_read_line_format(folder).names.items())


class _LineFormat(NamedTuple):
    """The format of a line according to the `data.yaml`.

    Attributes:
        names: Label names by class index.
        keypoints: The number of values after a box.
        declared: Whether the `data.yaml` has a `kpt_shape`.
        ambiguity: Otherwise, collects lines to detect keypoints.
    """

    names: dict[int, str]
    keypoints: int
    declared: bool
    ambiguity: PoseAmbiguity


def _read_line_format(folder: Path) -> _LineFormat:
    path = next((folder / name for name in NAMES if (folder / name).is_file()), None)
    if path is None:
        raise InputError(f"{folder} has no {NAMES[0]}; add it with the classes' names.")
    try:
        # The base loader keeps every scalar a string: a label can be named "no", "1.0" or "2024-01-01".
        content = yaml.load(path.read_bytes(), Loader=yaml.BaseLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" row {mark.line + 1}" if mark else ""
        raise InputError(f"{path}{where} is not readable YAML; fix it or export it again.") from error
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, list):
        names = {str(index): name for index, name in enumerate(names)}
    if not isinstance(names, dict) or not names:
        raise InputError(f"{path} has no names; give it the classes' names in the order of their index.")
    for key, name in names.items():
        if not (isinstance(key, str) and key.isdecimal() and len(key) < 10 and is_text(name) and name):
            raise InputError(
                f"{path} has the class {quote(key)} named {quote(name)}; give each index a name."
            )
    shape = content.get("kpt_shape", ["0", "0"])
    digits = isinstance(shape, list) and all(isinstance(each, str) and each.isdecimal() for each in shape)
    if not digits or len(shape) != 2 or max(map(len, shape)) > 3:
        raise InputError(f"{path} has a kpt_shape that is not two numbers; fix it or delete it.")
    by_index = {int(key): name for key, name in names.items()}
    return _LineFormat(by_index, int(shape[0]) * int(shape[1]), "kpt_shape" in content, PoseAmbiguity())


def _read_split(
    folder: Path, split: Split, images: Path, labels: Path, line_format: _LineFormat
) -> ExportSplit:
    for needed in (images, labels):
        if not needed.is_dir():
            raise InputError(
                f"{folder} has no folder {needed.relative_to(folder)}/; add it or delete {split}."
            )
    reader = SplitReader(split, images)
    reader.list_images()
    source = labels.relative_to(folder).as_posix()
    files = []
    for name in list_folder(labels):
        if name.lower().endswith(SUFFIX) and not is_companion(name):
            files.append(name)
        else:
            reader.ignore_file(name)
    for filename, file in match_stems(reader, files, source):
        _read_file(labels / file, filename, reader, f"{source}/{file}", line_format)
    return reader.finish()


def _read_file(path: Path, filename: str, reader: SplitReader, source: str, line_format: _LineFormat) -> None:
    try:
        if is_special(path):
            raise OSError("it is a pipe or a device")
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except (UnicodeDecodeError, OSError) as error:
        problem = f"has a label file that cannot be read ({error}); export it again"
        reader.report(filename, source, None, problem, "malformed_file")
        return
    if not any(map(str.strip, lines)):
        return
    size = _measure(reader.folder / filename)
    if size is None:
        return  # validation decodes every image and quarantines this one
    for row, line in enumerate(lines, 1):
        if values := line.split():
            _read_line(values, filename, size, reader, source, row, line_format)


def _read_line(
    values: list[str],
    filename: str,
    size: Size,
    reader: SplitReader,
    source: str,
    row: int,
    line_format: _LineFormat,
) -> None:
    keypoints = line_format.keypoints
    index, *texts = values
    label = line_format.names.get(int(index)) if index.isdecimal() and len(index) < 10 else None
    numbers = [number for number in map(parse_number, texts) if number is not None]
    if len(numbers) != len(texts):
        wrong = next(text for text in texts if parse_number(text) is None)
        reader.report(filename, source, row, f"has {quote(wrong)}, which is not a number", "not_a_number")
    elif len(numbers) not in (4, 4 + keypoints) and (keypoints or len(numbers) < 6 or len(numbers) % 2):
        needed = f"and {keypoints} of keypoints" if keypoints else "or the corners of a polygon,"
        problem = f"has {len(values)} values; a class and four numbers, {needed} are needed"
        reader.report(filename, source, row, problem)
    elif not line_format.declared and looks_like_pose(numbers):
        problem = "seems to be a box and keypoints; give the data.yaml its kpt_shape, or export boxes"
        reader.report(filename, source, row, problem)
    elif label is None:
        problem = f"has the class {quote(index)}, which the data.yaml does not name"
        reader.report(filename, source, row, problem)
    else:
        if not line_format.declared:
            line_format.ambiguity.add(numbers, f"{source} row {row}")
        box = _to_box(numbers[:4] if keypoints else numbers, size)
        reader.add_box(filename, label, box, size, source, row)


def _to_box(numbers: list[float], size: Size) -> Box:
    if len(numbers) == 4:
        x, y, width, height = numbers
        corners = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    else:
        xs, ys = numbers[::2], numbers[1::2]
        corners = (min(xs), min(ys), max(xs), max(ys))
    xmin, ymin, xmax, ymax = (to_pixels(corner, side) for corner, side in zip(corners, size * 2, strict=True))
    return xmin, ymin, xmax, ymax


def _measure(path: Path) -> Size | None:
    """An image's width and height from its header; None if it cannot be read."""
    try:
        with Image.open(path, formats=DECODED) as image:
            return image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
