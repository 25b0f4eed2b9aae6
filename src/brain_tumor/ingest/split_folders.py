"""The folders of an export's splits."""

import os
from pathlib import Path

from brain_tumor.config import SPLITS, Split
from brain_tumor.runtime.errors import InputError

# The possible names of a split's folder.
SPLIT_FOLDERS: dict[Split, tuple[str, ...]] = {
    "train": ("train",),
    "valid": ("valid", "val", "validation"),
    "test": ("test",),
}


def find_exports(folder: Path, depth: int) -> list[Path]:
    """Finds the topmost folders with splits: this one, or ones up to `depth` levels below it."""
    level = [folder]
    for _ in range(depth + 1):
        found = [each for each in level if _holds_splits(each) or _holds_splits(each / "images")]
        if found:
            return found
        entries = (path for each in level if os.access(each, os.R_OK | os.X_OK) for path in each.iterdir())
        level = sorted(path for path in entries if path.is_dir() and not path.is_symlink())
    return []


def _holds_splits(folder: Path) -> bool:
    return any((folder / name).is_dir() for names in SPLIT_FOLDERS.values() for name in names)


def split_folders(folder: Path) -> dict[Split, Path]:
    """The folders of the splits in a folder, in the order of `SPLITS`; only those that exist.

    Raises:
        InputError: A split has two folders.
    """
    found: dict[Split, Path] = {}
    for split in SPLITS:
        own = [folder / name for name in SPLIT_FOLDERS[split] if (folder / name).is_dir()]
        if len(own) > 1:
            names = " and ".join(f"{path.name}/" for path in own)
            raise InputError(f"{folder} holds {names}, which are the same split; keep one of them.")
        if own:
            found[split] = own[0]
    return found
