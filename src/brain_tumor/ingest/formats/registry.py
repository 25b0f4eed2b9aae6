"""The supported export formats: detection, and reading into a common table."""

from pathlib import Path
from typing import Protocol, runtime_checkable

from brain_tumor.config import Split
from brain_tumor.ingest.export import IMAGE_SUFFIXES, Export, ExportSplit
from brain_tumor.ingest.formats import coco, tensorflow_csv, tfrecord_export, voc, yolo
from brain_tumor.ingest.split_folders import SPLIT_FOLDERS, find_exports, split_folders
from brain_tumor.ingest.split_reader import list_folder
from brain_tumor.runtime.errors import InputError
from brain_tumor.runtime.text import display_name
from brain_tumor.stores.paths import explain_errors

QUOTED_FILES = 3


class Format(Protocol):
    """The interface of a format's module.

    Attributes:
        LAYOUT: A short description of its files and folders.
    """

    LAYOUT: str

    def find(self, folder: Path) -> dict[Split, Path]:
        """By split, a file or folder that identifies the format."""

    def read(self, folder: Path, _scratch: Path) -> list[ExportSplit]:
        """Reads an export; images embedded in other files are extracted to the scratch folder."""


@runtime_checkable
class DeclaresLabels(Protocol):
    """The additional interface of formats whose exports declare their labels."""

    def read_labels(self, folder: Path) -> list[tuple[int, str]]:
        """Reads the number and name of each label, in any order; repeated for each file that declares it."""


# By Roboflow's names, without YOLO's version numbers.
FORMATS: dict[str, Format] = {
    "tensorflow": tensorflow_csv,
    "coco": coco,
    "yolo": yolo,
    "voc": voc,
    "tfrecord": tfrecord_export,
}


def read_export(folder: Path, scratch: Path) -> Export:
    """Reads an export's file names and boxes. Images are not decoded, and boxes not validated.

    Args:
        folder: The export, in one of `FORMATS`. Nothing is written to it.
        scratch: An empty folder for images extracted from a format's own files.

    Raises:
        InputError: The folder is not an export in a known format, or a file of it cannot be read.
    """
    with explain_errors(folder):
        name = find_format(folder)
        return Export(name, FORMATS[name].read(folder, scratch))


def find_format(folder: Path) -> str:
    """Detects the format of an export, a key of `FORMATS`.

    Raises:
        InputError: The folder is not an export in a known format, or matches several.
    """
    splits = _find_splits(folder)
    found = {name: list(module.find(folder).values()) for name, module in FORMATS.items()}
    matching = [name for name, paths in found.items() if paths]
    if len(matching) == 1:
        return matching[0]
    if matching:
        places = " and ".join(
            f"{name} ({display_name(str(found[name][0].relative_to(folder)))})" for name in matching
        )
        raise InputError(f"{folder} holds annotations of several formats: {places}; keep one of them.")
    # Files other than images first: they say more about the format.
    names = sorted(list_folder(splits[0]), key=lambda name: (name.lower().endswith(IMAGE_SUFFIXES), name))
    more = ", ..." if len(names) > QUOTED_FILES else ""
    some = ", ".join(map(display_name, names[:QUOTED_FILES])) + more
    layouts = "; ".join(f"{name} ({module.LAYOUT})" for name, module in FORMATS.items())
    raise InputError(
        f"{folder} has no annotations of a known format: {splits[0].relative_to(folder)}/ holds "
        f"{some or 'nothing'}; supported are {layouts}."
    )


def _find_splits(folder: Path) -> list[Path]:
    """The folders of the export's splits, at least one."""
    names = ", ".join(f"{names[0]}/" for names in SPLIT_FOLDERS.values())
    if not folder.exists():
        raise InputError(f"The dataset folder {folder} does not exist; give the folder that holds {names}.")
    if not folder.is_dir():
        raise InputError(f"The dataset folder {folder} is a file; give the folder that holds {names}.")
    splits = split_folders(folder) or split_folders(folder / "images")
    if not splits:
        below = find_exports(folder, depth=2)[:1]
        raise InputError(
            f"The dataset folder {folder} holds none of {names}; "
            + (f"give {below[0]}, which does." if below else "give the folder of an export.")
        )
    return list(splits.values())
