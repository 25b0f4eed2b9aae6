"""Reading an export: its format is detected from its files, and all formats give the same table."""

import os
from pathlib import Path
from typing import Protocol

from brain_tumor.data.export import (
    BOX_COLUMNS,
    JPEG_SUFFIXES,
    SPLIT_FOLDERS,
    Export,
    ExportSplit,
    show,
    split_folders,
)
from brain_tumor.data.formats import coco, tensorflow, tfrecord, voc, yolo
from brain_tumor.errors import InputError

__all__ = ["BOX_COLUMNS", "FORMATS", "Export", "ExportSplit", "read_export"]

QUOTED_FILES = 3


class Format(Protocol):
    """What a module of `brain_tumor.data.formats` has.

    Attributes:
        LAYOUT: Where its files are, in a few words.
    """

    LAYOUT: str

    def find(self, folder: Path) -> dict[str, Path]:
        """By split, a file or folder that shows that an export is of this format."""

    def read(self, folder: Path, _scratch: Path) -> list[ExportSplit]:
        """Reads an export of this format. Images inside of other files are put into the scratch folder."""


FORMATS: dict[str, Format] = {
    "tensorflow": tensorflow,
    "coco": coco,
    "yolo": yolo,
    "voc": voc,
    "tfrecord": tfrecord,
}


def read_export(folder: str | Path, scratch: str | Path) -> Export:
    """Reads an export's file names and boxes. Its images are not decoded, and its boxes not judged.

    Args:
        folder: The export, in one of `FORMATS`. Nothing is written to it.
        scratch: An empty folder for images that a format holds inside its own files.

    Raises:
        InputError: The folder is no export of one of the formats.
    """
    folder = Path(folder)
    names = ", ".join(f"{names[0]}/" for names in SPLIT_FOLDERS.values())
    if not folder.exists():
        raise InputError(f"The dataset folder {folder} does not exist; give the folder that holds {names}.")
    if not folder.is_dir():
        raise InputError(f"The dataset folder {folder} is a file; give the folder that holds {names}.")
    splits = split_folders(folder) or split_folders(folder / "images")
    if not splits:
        raise InputError(f"The dataset folder {folder} holds none of {names}; give the folder of an export.")
    name = _detect(folder, list(splits.values()))
    return Export(name, FORMATS[name].read(folder, Path(scratch)))


def _detect(folder: Path, splits: list[Path]) -> str:
    found = {name: list(module.find(folder).values()) for name, module in FORMATS.items()}
    matching = [name for name, paths in found.items() if paths]
    if len(matching) == 1:
        return matching[0]
    if matching:
        places = " and ".join(
            f"{name} ({show(str(found[name][0].relative_to(folder)))})" for name in matching
        )
        raise InputError(f"{folder} holds annotations of several formats: {places}; keep one of them.")
    # What is no image tells more of the format.
    names = sorted(os.listdir(splits[0]), key=lambda name: (name.lower().endswith(JPEG_SUFFIXES), name))
    shown = ", ".join(map(show, names[:QUOTED_FILES])) + (", ..." if len(names) > QUOTED_FILES else "")
    layouts = "; ".join(f"{name} ({module.LAYOUT})" for name, module in FORMATS.items())
    raise InputError(
        f"{folder} has no annotations of a known format: {splits[0].relative_to(folder)}/ holds "
        f"{shown or 'nothing'}; supported are {layouts}."
    )
