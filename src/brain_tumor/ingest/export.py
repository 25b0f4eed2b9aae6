"""An export of any format after reading: file names, and one table of boxes per split."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from brain_tumor.artifacts.tables import COORDINATES
from brain_tumor.config import Split
from brain_tumor.ingest.findings import Finding

DECODED = ("JPEG", "PNG")  # Pillow's names of the supported formats
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
# Unsupported image formats: such files in an export are findings that count as bad images.
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
        folder: The folder of its images.
        images: File names of its JPEGs and PNGs, sorted.
        boxes: One row per box, in the annotation file's order, with `BOX_COLUMNS`: filename, label; xmin,
            ymin, xmax, ymax in pixels, xmax and ymax exclusive, finite but not validated: a box may be
            outside its image, or name a missing image; width, height of the image according to the
            annotation, NaN if the format has none; source, the annotation file relative to the export's
            folder; row, the line or the 1-based position in that file.
        findings: The annotations and images that could not be read.
        unread: The number of annotations that could not be read and are not in `boxes`.
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
        splits: Its splits, in the order of `SPLITS`; at least one.
    """

    format: str
    splits: list[ExportSplit]
