"""Reading an export in the layout of Roboflow's "tensorflow" format.

The export is a folder with train/, valid/ and test/. Each holds JPEGs and `_annotations.csv`, one row a box,
in pixels; xmax and ymax are exclusive. A JPEG without a row is a slice without a tumor.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

from brain_tumor.config import SPLITS
from brain_tumor.errors import InputError

ANNOTATIONS = "_annotations.csv"
COLUMNS = ("filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax")
JPEG_SUFFIXES = (".jpg", ".jpeg")


@dataclass(frozen=True)
class Row:
    """A row of `_annotations.csv`, as text: nothing in it is checked yet.

    Attributes:
        number: Its line in the file as a text editor counts them; the header is line 1.
        cells: Its values by column name. Those of a row that is too short are missing.
        length: How many values it has.
        columns: How many the header has.
    """

    number: int
    cells: dict[str, str]
    length: int
    columns: int


@dataclass(frozen=True)
class ExportSplit:
    """One split of an export.

    Attributes:
        name: `train`, `valid` or `test`.
        folder: Where its files are.
        images: File names of its JPEGs, sorted.
        rows: The rows of its `_annotations.csv`, in their order.
        others: Names of what else is in the folder, sorted.
    """

    name: str
    folder: Path
    images: list[str]
    rows: list[Row]
    others: list[str]


def read_export(folder: str | Path) -> list[ExportSplit]:
    """Reads an export's file names and rows. Images are not opened, and rows not judged.

    Returns:
        The splits, in the order of `SPLITS`.

    Raises:
        InputError: The layout is not that of an export.
    """
    folder = Path(folder)
    if not folder.exists():
        raise InputError(
            f"The dataset folder {folder} does not exist; give the folder that holds {_names()}."
        )
    if not folder.is_dir():
        raise InputError(f"The dataset folder {folder} is a file; give the folder that holds {_names()}.")
    if not any((folder / split).is_dir() for split in SPLITS):
        raise InputError(
            f"The dataset folder {folder} holds none of {_names()}; give the folder of an export."
        )
    return [_read_split(split, folder / split) for split in SPLITS]


def _names() -> str:
    return ", ".join(f"{split}/" for split in SPLITS)


def _read_split(split: str, folder: Path) -> ExportSplit:
    if not folder.is_dir():
        raise InputError(
            f"The dataset folder {folder.parent} has no folder {split}/; an export has {_names()}."
        )
    if not (folder / ANNOTATIONS).is_file():
        raise InputError(
            f"{folder} has no {ANNOTATIONS}; add it (a header alone says that no image has a box)."
        )
    names = sorted(path.name for path in folder.iterdir() if path.name != ANNOTATIONS)
    images = [name for name in names if name.lower().endswith(JPEG_SUFFIXES) and (folder / name).is_file()]
    if not images:
        raise InputError(f"{folder} has no image; put the split's JPEGs (*.jpg) beside its {ANNOTATIONS}.")
    others = sorted(set(names) - set(images))
    return ExportSplit(split, folder, images, _read_rows(folder / ANNOTATIONS), others)


def _read_rows(path: Path) -> list[Row]:
    rows: list[Row] = []
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, strict=True)
        try:
            header = next(reader, None)
            if header is None:
                raise InputError(f"{path} is empty; give it at least the header {','.join(COLUMNS)}.")
            missing = [column for column in COLUMNS if column not in header]
            if missing:
                raise InputError(
                    f"{path} row 1 lacks the column {', '.join(missing)}; "
                    f"the header must be {','.join(COLUMNS)}."
                )
            number = reader.line_num + 1
            for values in reader:
                if values:  # a blank line is none
                    cells = dict(zip(header, values, strict=False))
                    rows.append(Row(number, cells, len(values), len(header)))
                number = reader.line_num + 1
        except UnicodeDecodeError as error:
            raise InputError(f"{path} is no UTF-8 text; save it as CSV in UTF-8.") from error
        except csv.Error as error:
            raise InputError(f"{path} row {reader.line_num} is no CSV ({error}); mend its quotes.") from error
    return rows
