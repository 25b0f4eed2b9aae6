"""Small exports on disk, valid and broken, for the tests of ingest."""

import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from brain_tumor.config import SPLITS, DirectoryDataset

HEADER = "filename,width,height,class,xmin,ymin,xmax,ymax"
WIDTH, HEIGHT = 40, 30
PATIENTS = {"train": (1, 2), "valid": (3,), "test": (4,)}
SLICES = 3


def write_image(path: Path, width: int = WIDTH, height: int = HEIGHT) -> None:
    """A grey JPEG with pixels derived from the last two parts of its path, so that no two are the same."""
    rng = np.random.default_rng(zlib.crc32("/".join(path.parts[-2:]).encode()))
    Image.fromarray(rng.integers(0, 256, (height, width), dtype=np.uint8)).save(path, "JPEG")


def write_rows(folder: Path, split: str, rows: list[str]) -> None:
    """Replaces a split's `_annotations.csv`; the first of the rows is row 2."""
    (folder / split / "_annotations.csv").write_text("\n".join([HEADER, *rows]) + "\n")


def write_export(folder: Path, **rows: list[str]) -> Path:
    """Writes an export of `volume_<patient>_slice_<1..3>.jpg`, 40 x 30 pixels; rows by split."""
    for split in SPLITS:
        (folder / split).mkdir(parents=True)
        for patient in PATIENTS[split]:
            for index in range(1, SLICES + 1):
                write_image(folder / split / f"volume_{patient}_slice_{index}.jpg")
        write_rows(folder, split, rows.get(split, []))
    return folder


def directory_config(folder: Path, **changes: Any) -> DirectoryDataset:
    """The config for such an export; it accepts any number of bad images."""
    values: dict[str, Any] = {"source": "directory", "path": str(folder), "max_bad_fraction": 1.0}
    values["labels"] = ["label0", "label1", "label2"]
    return DirectoryDataset.model_validate(values | changes)


def _file_in_place_of_folder(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("no folder")


def _empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def _no_images(folder: Path) -> None:
    for path in (folder / "valid").glob("*.jpg"):
        path.unlink()


def _csv(content: bytes) -> Callable[[Path], object]:
    def replace(folder: Path) -> None:
        (folder / "train" / "_annotations.csv").write_bytes(content)

    return replace


# Structural defects of an export, by name: how to make one, and words that its message must contain.
FAULTS: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "folder missing": (shutil.rmtree, ["export", "does not exist"]),
    "folder is a file": (_file_in_place_of_folder, ["export", "is a file"]),
    "folder empty": (_empty, ["export", "holds none of train/, valid/, test/"]),
    "split missing": (lambda folder: shutil.rmtree(folder / "valid"), ["export", "no folder valid/"]),
    "split without CSV": (
        lambda folder: (folder / "test" / "_annotations.csv").unlink(),
        ["export/test", "has no _annotations.csv"],
    ),
    "split without image": (_no_images, ["export/valid", "has no image"]),
    "CSV empty": (_csv(b""), ["export/train/_annotations.csv", "is empty"]),
    "CSV without a column": (
        _csv(HEADER.replace("class,", "").encode()),
        ["export/train/_annotations.csv row 1", "lacks the column class"],
    ),
    "CSV with semicolons": (
        _csv(HEADER.replace(",", ";").encode()),
        ["export/train/_annotations.csv row 1", "lacks the column filename, width"],
    ),
    "CSV not UTF-8": (
        _csv(HEADER.encode() + b"\nM\xfcller.jpg,40,30,label0,1,1,2,2\n"),
        ["export/train/_annotations.csv", "is not UTF-8"],
    ),
    "CSV with an open quote": (
        _csv(HEADER.encode() + b'\na.jpg,40,30,label0,1,1,2,2\n"a.jpg,40,30,label0,1,1,2,2\n'),
        ["export/train/_annotations.csv row 3", "is not CSV"],
    ),
}
