"""What a reader of an export makes, whatever the format: names, and one table of boxes a split."""

import math
import os
from array import array
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

import numpy as np
import pandas as pd
import pyarrow as pa

from brain_tumor.config import SPLITS
from brain_tumor.data.findings import QUARANTINED, ROW_IGNORED, Finding
from brain_tumor.errors import InputError

JPEG_SUFFIXES = (".jpg", ".jpeg")
COORDINATES = ("xmin", "ymin", "xmax", "ymax")
BOX_COLUMNS = ("filename", "label", *COORDINATES, "width", "height", "source", "row")
# What the folder of a split may be called.
SPLIT_FOLDERS = {"train": ("train",), "valid": ("valid", "val", "validation"), "test": ("test",)}
QUOTED_CHARACTERS = 60

Box = tuple[float, float, float, float]
Size = tuple[float, float]
UNKNOWN_SIZE = (math.nan, math.nan)


@dataclass(frozen=True)
class ExportSplit:
    """One split of an export.

    Attributes:
        name: `train`, `valid` or `test`.
        folder: Where its images are.
        images: File names of its JPEGs, sorted.
        boxes: One row a box, in the annotation file's order, with `BOX_COLUMNS`: filename, label; xmin, ymin,
            xmax, ymax in pixels, xmax and ymax exclusive, finite but not judged: a box may lie outside its
            image, or name one that is not there; width, height of the image as the annotation says, NaN where
            the format says none; source, the annotation file relative to the export's folder; row, the line
            or the 1-based position in that file.
        findings: What could not be read.
    """

    name: str
    folder: Path
    images: list[str]
    boxes: pd.DataFrame
    findings: list[Finding]


@dataclass(frozen=True)
class Export:
    """An export as it was read.

    Attributes:
        format: Its format, a key of `brain_tumor.data.annotations.FORMATS`.
        splits: The splits that it has, in the order of `SPLITS`; at least one.
    """

    format: str
    splits: list[ExportSplit]


class TextColumn:
    """A growing column of texts as Arrow keeps it: their bytes in a row, and where each ends."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._ends = array("q", [0])

    def append(self, text: str) -> None:
        """Adds a text; what cannot be written as UTF-8 is escaped."""
        self._bytes += text.encode(errors="backslashreplace")
        self._ends.append(len(self._bytes))

    def finish(self) -> pd.Series:
        """The column, without a copy."""
        buffers = [None, pa.py_buffer(self._ends), pa.py_buffer(self._bytes)]
        texts = pa.Array.from_buffers(pa.large_string(), len(self._ends) - 1, buffers)
        return pd.Series(texts, dtype="str")


class SplitReader:
    """Collects a split's images, boxes and findings while a format's reader goes through its files.

    No object a row stays.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self._findings: list[Finding] = []
        self._images: set[str] = set()
        self._texts = {column: TextColumn() for column in ("filename", "label", "source")}
        self._numbers = {column: array("d") for column in (*COORDINATES, "width", "height")}
        self._rows = array("q")

    @property
    def images(self) -> Collection[str]:
        """The images' file names."""
        return self._images

    def list_images(self, annotations: Collection[str] = ()) -> None:
        """Adds the folder's JPEGs. What is neither a JPEG nor one of these annotation files is a finding.

        Raises:
            InputError: There is no JPEG.
        """
        with os.scandir(self.folder) as entries:
            others = []
            for entry in entries:
                name = entry.name
                if name.lower().endswith(JPEG_SUFFIXES) and is_text(name) and entry.is_file():
                    self.add_image(name)
                elif name not in annotations:
                    others.append(name)
        for name in sorted(others):
            self.ignore_file(name)
        if not self._images:
            raise InputError(f"{self.folder} has no image; put the split's JPEGs (*.jpg) there.")

    def add_image(self, filename: str) -> None:
        """Adds an image."""
        self._images.add(filename)

    def ignore_file(self, name: str) -> None:
        """Adds a finding about a file that is nothing of the format."""
        why = "is no JPEG and no annotation file" if is_text(name) else "has a name that is no UTF-8 text"
        message = f"{self.name}/{show(name)} {why}."
        self._findings.append(
            Finding(self.name, printable(name), None, "other_file", message, "file ignored")
        )

    def add_box(self, filename: str, label: str, box: Box, size: Size, source: str, row: int) -> None:
        """Adds a box; see `ExportSplit.boxes` for the columns. One that is not finite is a finding."""
        if not all(map(math.isfinite, box)):
            self.report(
                filename, source, row, "has a box whose corners are no finite numbers", "not_a_number"
            )
            return
        for texts, text in zip(self._texts.values(), (filename, label, source), strict=True):
            texts.append(text)
        for numbers, value in zip(self._numbers.values(), (*box, *size), strict=True):
            numbers.append(value)
        self._rows.append(row)

    def report(
        self, filename: str, source: str, row: int | None, problem: str, kind: str = "malformed_row"
    ) -> None:
        """Adds a finding about an annotation that cannot be read, and so about the image that it names."""
        known = filename in self._images
        named = show(filename) if known else quote(filename) if filename else "it"
        where = show(source) if row is None else f"{show(source)} row {row}"
        message = f"{where}: {named} {problem}."
        action = QUARANTINED if known else ROW_IGNORED
        self._findings.append(Finding(self.name, printable(filename), row, kind, message, action))

    def report_unlisted(self, filename: str, source: str) -> None:
        """Adds a remark about an image of which the annotations, complete in this format, say nothing."""
        message = f"{show(source)} says nothing about {show(filename)}, which may have lost its boxes."
        action = "kept without boxes"
        self._findings.append(Finding(self.name, filename, None, "not_annotated", message, action))

    def finish(self) -> ExportSplit:
        """The split."""
        columns = {
            **{column: texts.finish() for column, texts in self._texts.items()},
            **{column: np.frombuffer(numbers) for column, numbers in self._numbers.items()},
            "row": pd.array(np.frombuffer(self._rows, np.int64), dtype="Int64"),
        }
        boxes = pd.DataFrame({column: columns[column] for column in BOX_COLUMNS})
        return ExportSplit(self.name, self.folder, sorted(self._images), boxes, self._findings)


def split_folders(folder: Path) -> dict[str, Path]:
    """The folders of the splits in a folder, in the order of `SPLITS`; only those that exist.

    Raises:
        InputError: A split has two of them.
    """
    found = {}
    for split in SPLITS:
        own = [folder / name for name in SPLIT_FOLDERS[split] if (folder / name).is_dir()]
        if len(own) > 1:
            names = " and ".join(f"{path.name}/" for path in own)
            raise InputError(f"{folder} holds {names}, which are the same split; keep one of them.")
        if own:
            found[split] = own[0]
    return found


def match_stems(reader: SplitReader, files: Iterable[str], source: str) -> Iterator[tuple[str, str]]:
    """Pairs annotation files with the images of the same name, the suffix apart.

    A file without an image, and two images that share a file, are findings.

    Args:
        reader: The split, its images listed.
        files: The annotation files' names.
        source: Their folder relative to the export's folder.

    Yields:
        Image and annotation file, in the files' order.
    """
    images: dict[str, str] = {}
    for image in sorted(reader.images):
        other = images.setdefault(Path(image).stem, image)
        if other != image:
            problem = (
                "have the same name but for the suffix, so that one annotation file is of both; rename one"
            )
            reader.report(other, source, None, f"and {image} {problem}", "ambiguous_name")
            reader.report(image, source, None, f"and {other} {problem}", "ambiguous_name")
    for file in files:
        found = images.get(Path(file).stem)
        if found is None:
            problem = "has no JPEG of the same name; add it or delete this file"
            reader.report(file, source, None, problem, "missing_image")
        else:
            yield found, file


def is_text(value: object) -> TypeGuard[str]:
    """Whether a value is a string that can be written as UTF-8: half a surrogate pair cannot."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(text: str) -> str:
    """The text with what cannot be written as UTF-8 escaped."""
    return text.encode(errors="backslashreplace").decode()


def show(name: str) -> str:
    """A file's name as a message shows it: quoted where it would break the line or cannot be written."""
    return name if name.isprintable() else repr(name)


def quote(value: object) -> str:
    """A value as a message shows it: a text quoted, cut where it is long; of anything else its type."""
    if isinstance(value, str):
        return repr(value if len(value) <= QUOTED_CHARACTERS else value[: QUOTED_CHARACTERS - 1] + "…")
    if value is None or isinstance(value, bool | int | float):
        return "a huge number" if isinstance(value, int) and abs(value) > 10**18 else str(value)
    return f"a {type(value).__name__}"


def to_pixels(fraction: float, side: float) -> float:
    """A normalised coordinate in pixels, to a hundredth: what six decimals, or a 32-bit float, can tell.

    Unrounded, a box at the edge would lie outside its image by the last digit.
    """
    return round(fraction * side, 2)


def parse_number(value: object) -> float | None:
    """A finite number, given as one or as text; None where it is none."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
