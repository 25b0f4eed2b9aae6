"""Where an export's splits are."""

from pathlib import Path

from brain_tumor.config import SPLITS, Split
from brain_tumor.runtime.errors import InputError

# What the folder of a split may be called.
SPLIT_FOLDERS: dict[Split, tuple[str, ...]] = {
    "train": ("train",),
    "valid": ("valid", "val", "validation"),
    "test": ("test",),
}


def split_folders(folder: Path) -> dict[Split, Path]:
    """The folders of the splits in a folder, in the order of `SPLITS`; only those that exist.

    Raises:
        InputError: A split has two of them.
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
