"""Roboflow's "tensorflow" format: `<split>/_annotations.csv` beside the split's images.

One row per box, in pixels; xmax and ymax are exclusive. An image without a row has no box.
"""

import csv
from pathlib import Path
from typing import TextIO

from brain_tumor.artifacts.tables import COORDINATES
from brain_tumor.config import Split
from brain_tumor.ingest.export import ExportSplit
from brain_tumor.ingest.numbers import parse_number
from brain_tumor.ingest.split_folders import split_folders
from brain_tumor.ingest.split_reader import SplitReader
from brain_tumor.runtime.errors import InputError
from brain_tumor.runtime.text import quote

LAYOUT = "<split>/_annotations.csv beside the images"
ANNOTATIONS = "_annotations.csv"
COLUMNS = ("filename", "width", "height", "class", *COORDINATES)
NUMBERS = ("width", "height", *COORDINATES)


def find(folder: Path) -> dict[Split, Path]:
    """The annotation file of each split that has one."""
    files = {split: path / ANNOTATIONS for split, path in split_folders(folder).items()}
    return {split: path for split, path in files.items() if path.is_file()}


def read(folder: Path, _scratch: Path) -> list[ExportSplit]:
    """Reads the splits of an export in which `find` found something.

    A row that cannot be read is a finding. A quoted value over several lines is an error: probably the quote
    is not closed, and its rows would be lost.

    Raises:
        InputError: A split has no annotation file or no image, or a file is not CSV with these columns.
    """
    return [_read_split(folder, split, path) for split, path in split_folders(folder).items()]


def _read_split(folder: Path, split: Split, images: Path) -> ExportSplit:
    path = images / ANNOTATIONS
    if not path.is_file():
        raise InputError(
            f"{images} has no {ANNOTATIONS}; add it (with only the header if no image has a box)."
        )
    reader = SplitReader(split, images)
    reader.list_images([ANNOTATIONS])
    with open(path, newline="", encoding="utf-8-sig") as file:
        try:
            _read_rows(file, reader, path, path.relative_to(folder).as_posix())
        except UnicodeDecodeError as error:
            line = _first_undecodable_line(path)
            raise InputError(
                f"{path} row {line} is not UTF-8 text; save the file as CSV in UTF-8."
            ) from error
    return reader.finish()


def _read_rows(file: TextIO, reader: SplitReader, path: Path, source: str) -> None:
    rows = csv.reader(file, strict=True)
    number = 1
    try:
        header = next(rows, None)
        if header is None:
            raise InputError(f"{path} is empty; give it at least the header {','.join(COLUMNS)}.")
        places = _find_columns(header, path)
        number = rows.line_num + 1
        for values in rows:
            if rows.line_num > number:
                raise InputError(
                    f"{path} row {number} has a quoted value that continues in the next row; fix its quotes."
                )
            if values:  # blank lines are skipped
                _read_row(values, len(header), places, reader, source, number)
            number = rows.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path} row {number} is not CSV ({error}); fix its quotes.") from error


def _find_columns(header: list[str], path: Path) -> dict[str, int]:
    missing = [column for column in COLUMNS if column not in header]
    if missing:
        raise InputError(
            f"{path} row 1 lacks the column {', '.join(missing)}; the header must be {','.join(COLUMNS)}."
        )
    for column in COLUMNS:
        if header.count(column) > 1:
            raise InputError(f"{path} row 1 has the column {column} twice; delete one of them.")
    return {column: header.index(column) for column in COLUMNS}


def _read_row(
    values: list[str], columns: int, places: dict[str, int], reader: SplitReader, source: str, number: int
) -> None:
    place = places["filename"]
    filename = values[place] if place < len(values) else ""
    if len(values) != columns:
        problem = f"has {len(values)} values where the header has {columns}"
        reader.report(filename, source, number, problem)
        return
    numbers = [parse_number(values[places[name]]) for name in NUMBERS]
    wrong = [
        f"{name} {quote(values[places[name]])}"
        for name, value in zip(NUMBERS, numbers, strict=True)
        if value is None
    ]
    if wrong:
        problem = f"has {', '.join(wrong)}, which is not a number"
        reader.report(filename, source, number, problem, "not_a_number")
        return
    width, height, xmin, ymin, xmax, ymax = (value for value in numbers if value is not None)
    reader.add_box(
        filename, values[places["class"]], (xmin, ymin, xmax, ymax), (width, height), source, number
    )


def _first_undecodable_line(path: Path) -> int:
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    return 1
