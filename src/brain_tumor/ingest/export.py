"""An export as it was read, whatever its format: file names, and one table of boxes a split."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from brain_tumor.artifacts.tables import COORDINATES
from brain_tumor.config import Split
from brain_tumor.ingest.findings import Finding

DECODED = ("JPEG", "PNG")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
# What is an image too, and lost if it is in an export: nothing here decodes it.
OTHER_IMAGE_SUFFIXES = (
    *(".bmp", ".gif", ".tif", ".tiff", ".webp", ".jfif", ".jpe", ".jp2", ".heic", ".avif", ".ppm", ".pgm"),
    *(".dcm", ".nii", ".nii.gz", ".mha", ".nrrd", ".npy"),
)
BOX_COLUMNS = ("filename", "label", *COORDINATES, "width", "height", "source", "row")


@dataclass(frozen=True)
class ExportSplit:
    """One split of an export.

    Attributes:
        name: `train`, `valid` or `test`.
        folder: Where its images are.
        images: File names of its JPEGs and PNGs, sorted.
        boxes: One row a box, in the annotation file's order, with `BOX_COLUMNS`: filename, label; xmin, ymin,
            xmax, ymax in pixels, xmax and ymax exclusive, finite but not judged: a box may lie outside its
            image, or name one that is not there; width, height of the image as the annotation says, NaN where
            the format says none; source, the annotation file relative to the export's folder; row, the line
            or the 1-based position in that file.
        findings: What could not be read.
        unread: How many annotations could not be read, and are in no row of `boxes`.
    """

    name: Split
    folder: Path
    images: list[str]
    boxes: pd.DataFrame
    findings: list[Finding]
    unread: int = 0


@dataclass(frozen=True)
class Export:
    """An export as it was read.

    Attributes:
        format: Its format, a key of `brain_tumor.ingest.formats.registry.FORMATS`.
        splits: The splits that it has, in the order of `SPLITS`; at least one.
    """

    format: str
    splits: list[ExportSplit]
