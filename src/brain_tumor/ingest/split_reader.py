"""Collects the content of a split for a format's reader."""

import math
import os
from array import array
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd

from brain_tumor.artifacts.tables import COORDINATES
from brain_tumor.config import Split
from brain_tumor.ingest.export import BOX_COLUMNS, IMAGE_SUFFIXES, OTHER_IMAGE_SUFFIXES, ExportSplit
from brain_tumor.ingest.findings import LEFT_OUT, QUARANTINED, ROW_IGNORED, Finding
from brain_tumor.ingest.text_column import TextColumn
from brain_tumor.runtime.errors import InputError
from brain_tumor.runtime.text import display_name, is_text, normalize, printable, quote
from brain_tumor.stores.paths import explain_errors

Box = tuple[float, float, float, float]
Size = tuple[float, float]
UNKNOWN_SIZE = (math.nan, math.nan)
# Files of LabelImg and file managers; names that begin with a dot (macOS's `._*`) count as such too.
COMPANIONS = {"classes.txt", "thumbs.db", "desktop.ini"}


def list_folder(folder: Path) -> list[str]:
    """The names in a folder, sorted.

    Raises:
        InputError: It cannot be read.
    """
    with explain_errors(folder):
        return sorted(os.listdir(folder))


def is_companion(name: str) -> bool:
    """Whether a file is a by-product of some program and ignored without a finding."""
    return name.startswith(".") or name.lower() in COMPANIONS


class SplitReader:
    """Collects a split's images, boxes and findings while a format's reader reads its files.

    Rows are stored in columns, without one Python object per row.
    """

    def __init__(self, name: Split, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self._findings: list[Finding] = []
        self._unread = 0
        self._images: set[str] = set()
        # By name in Unicode's composed form (NFC), since macOS decomposes file names.
        self._composed: dict[str, str] = {}
        self._texts = {column: TextColumn() for column in ("filename", "label", "source")}
        self._numbers = {column: array("d") for column in (*COORDINATES, "width", "height")}
        self._rows = array("q")

    @property
    def images(self) -> Collection[str]:
        """The images' file names."""
        return self._images

    def list_images(self, annotations: Collection[str] = ()) -> None:
        """Adds the folder's images. Other files, except the annotation files, are findings.

        Raises:
            InputError: There are no images.
        """
        others = []
        for name in list_folder(self.folder):
            image = name.lower().endswith(IMAGE_SUFFIXES) and not is_companion(name)
            if image and is_text(name) and os.path.isfile(self.folder / name):
                self.add_image(name)
            elif name not in annotations:
                others.append(name)
        for name in others:
            self.ignore_file(name)
        if not self._images:
            raise InputError(
                f"{self.folder} has no image that can be read; put the split's images (*.jpg, *.png) there."
            )

    def add_image(self, filename: str) -> None:
        """Adds an image."""
        self._images.add(filename)
        self._composed[normalize(filename)] = filename

    def find_image(self, filename: str) -> str:
        """The file name of an image that annotations name; the given name if there is no such file."""
        return filename if filename in self._images else self._composed.get(normalize(filename), filename)

    def ignore_file(self, name: str) -> None:
        """Adds a finding about a file that is not part of the format; an image counts as bad."""
        if is_companion(name):
            return
        lost = name.lower().endswith((*IMAGE_SUFFIXES, *OTHER_IMAGE_SUFFIXES))
        if not is_text(name):
            why = "has a name that is not UTF-8 text; rename it"
        elif name.lower().endswith(IMAGE_SUFFIXES):
            why = "is a broken link or not a file; put the image there or delete it"
        elif lost:
            why = "is not a JPEG or PNG; export it as one of these"
        else:
            why = "is neither an image nor an annotation file"
        kind, action = ("unusable_image", LEFT_OUT) if lost else ("other_file", "file ignored")
        message = f"{self.name}/{display_name(name)} {why}."
        self._findings.append(Finding(self.name, printable(name), None, kind, message, action))

    def add_box(self, filename: str, label: str, box: Box, size: Size, source: str, row: int) -> None:
        """Adds a box; see `ExportSplit.boxes` for the columns. A box that is not finite is a finding."""
        if not all(map(math.isfinite, box)):
            self.report(
                filename, source, row, "has a box whose corners are not finite numbers", "not_a_number"
            )
            return
        values = (self.find_image(filename), normalize(label), source)
        for texts, text in zip(self._texts.values(), values, strict=True):
            texts.append(text)
        for numbers, value in zip(self._numbers.values(), (*box, *size), strict=True):
            numbers.append(value)
        self._rows.append(row)

    def report(
        self,
        filename: str,
        source: str,
        row: int | None,
        problem: str,
        kind: str = "malformed_row",
        lost: int = 1,
    ) -> None:
        """Adds a finding about an annotation that cannot be read, and so about the image that it names.

        Args:
            filename: The image's name; an empty string if it has none.
            source: The annotation file.
            row: The position in that file.
            problem: The rest of the sentence that begins with the image's name.
            kind: The kind of finding, one word.
            lost: The number of annotations that this loses: 0 if an image's entry is wrong.
        """
        self._unread += lost
        filename = self.find_image(filename)
        known = filename in self._images
        named = display_name(filename) if known else quote(filename) if filename else "it"
        where = display_name(source) if row is None else f"{display_name(source)} row {row}"
        message = f"{where}: {named} {problem}."
        action = QUARANTINED if known else ROW_IGNORED
        self._findings.append(Finding(self.name, printable(filename), row, kind, message, action))

    def report_unlisted(self, filename: str, source: str) -> None:
        """Adds a remark about an image that is not in the annotations, which should list all images."""
        image = display_name(filename)
        message = f"{display_name(source)} has no entry for {image}, whose boxes may be missing."
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
        return ExportSplit(self.name, self.folder, sorted(self._images), boxes, self._findings, self._unread)
