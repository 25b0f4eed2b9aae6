"""The dataset artifact: unchanged images, tables of images and annotations, findings, and a manifest.

images/<split as provided>/<file>       the good images, bytes unchanged
quarantine/<split as provided>/<file>   the bad ones
images.parquet  annotations.parquet     see `Dataset`
findings.csv                            all findings, see `brain_tumor.ingest.findings`
"""

import re
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import pandas as pd
import pyarrow as pa
from pydantic import model_validator

from brain_tumor.artifacts.folder import Draft, Manifest, publish, read_manifest
from brain_tumor.artifacts.tables import COORDINATES, Rows, read_rows, read_table, write_table
from brain_tumor.config import SPLITS, Schema, Split

IMAGES = "images"
QUARANTINE = "quarantine"
IMAGES_TABLE = "images.parquet"
ANNOTATIONS_TABLE = "annotations.parquet"
FINDINGS = "findings.csv"

IMAGES_SCHEMA = pa.schema(
    [
        ("split", pa.string()),
        ("filename", pa.string()),
        ("source_id", pa.string()),
        ("width", pa.int64()),
        ("height", pa.int64()),
        ("patient_id", pa.string()),
        ("slice", pa.int64()),
        ("grey", pa.bool_()),
        ("format", pa.string()),
        ("sha256", pa.string()),
        ("perceptual_hash", pa.string()),
    ]
)
ANNOTATIONS_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("source_id", "split", "filename", "label")),
        *((name, pa.float64()) for name in COORDINATES),
    ]
)


class SplitCounts(Schema):
    """The counts of a split."""

    images: int
    images_with_boxes: int
    boxes: int
    patients: int | None
    """None if the patient of any image is unknown."""
    quarantined: int
    """Quarantined images, by the split as provided; the other counts exclude them."""
    boxes_by_label: dict[str, int]


class SharedBySplits(Schema):
    """What two splits have in common."""

    shared_patients: int | None
    """The number of patients with images in both; None if the patient of any of their images is unknown."""
    patients: list[str]
    """The first of these patients; known ones even if `shared_patients` is None."""
    identical_images: int
    """The number of images of the second split that are byte-identical to one of the first."""
    near_duplicates: int
    """The number of images of the second split with a near-duplicate in the first; byte-identical images and
    copies of the same picture (see `picture_name`) count too."""


class Leakage(Schema):
    """What splits share, by pair (`train/valid`, ...)."""

    used: dict[str, SharedBySplits]
    """For the splits in use."""
    provided: dict[str, SharedBySplits]
    """For the splits as provided."""


class DatasetManifest(Manifest):
    """The manifest of the dataset artifact."""

    indexed: ClassVar[tuple[str, ...]] = (IMAGES,)

    kind: Literal["dataset"] = "dataset"
    source: str
    """Where the images came from."""
    format: str
    """The export's format."""
    notice: str
    """A notice about the data that every report must show, or an empty string."""
    labels: list[str]
    """In slot order."""
    grey: bool
    """Whether all images are grey."""
    config: dict[str, Any]
    """The ingest step's config, defaults included."""
    counts: dict[Split, SplitCounts]
    findings: dict[str, int]
    """The number of findings of each kind."""
    unmatched_names: int
    """The number of images that `filename_pattern` does not match: their patients are unknown."""
    shortcuts: dict[str, float]
    """Differences between images with and without a box, see `brain_tumor.ingest.shortcuts`."""
    split: str
    """How the splits were made."""
    leakage: Leakage

    @model_validator(mode="after")
    def _check_counts(self) -> "DatasetManifest":
        if set(self.counts) != set(SPLITS):
            raise ValueError("does not count every split")
        if any(set(counts.boxes_by_label) != set(self.labels) for counts in self.counts.values()):
            raise ValueError("does not count every label")
        return self

    def metrics(self) -> dict[str, float]:
        """The counts and what splits share, by metric name, sorted."""
        flat: dict[str, float] = {
            "findings": sum(self.findings.values()),
            "unmatched_names": self.unmatched_names,
        }
        for split, counts in self.counts.items():
            own = counts.model_dump()
            by_label = own.pop("boxes_by_label")
            flat |= {f"{split}_{name}": value for name, value in own.items() if value is not None}
            flat |= {f"{split}_boxes_{label}": count for label, count in by_label.items()}
        return dict(sorted({**flat, **shared_metrics(self.leakage)}.items()))


def shared_metrics(leakage: Leakage) -> dict[str, float]:
    """What splits share, by metric name."""
    flat = {}
    for prefix, pairs in (("", leakage.used), ("provided_", leakage.provided)):
        for pair, shared in pairs.items():
            for name in ("shared_patients", "identical_images", "near_duplicates"):
                if (value := getattr(shared, name)) is not None:
                    flat[f"{prefix}{pair.replace('/', '_')}_{name}"] = value
    return flat


def count_patients(patient_ids: pd.Series) -> int | None:
    """The number of patients; None if any is unknown."""
    return None if patient_ids.isna().any() else int(patient_ids.nunique())


def picture_name(filename: str) -> str:
    """The part of a file name that copies of the same picture share.

    Roboflow writes each picture several times, augmented, as `<name>_jpg.rf.<hash>.jpg`.

    Example:
        >>> picture_name("scan_7_jpg.rf.0a1b2c.jpg")
        'scan_7_jpg'
    """
    return re.sub(r"\.rf\.[^.]+\.\w+$", "", filename)


@dataclass(frozen=True)
class Dataset:
    """A dataset artifact, opened.

    Attributes:
        path: Its folder.
        manifest: Its manifest; its counts exclude the images in `left_out`.
        left_out: The source_id of images that the tables omit.
    """

    path: Path
    manifest: DatasetManifest
    left_out: frozenset[str] = frozenset()

    @cached_property
    def images(self) -> pd.DataFrame:
        """One row per image, sorted by split and file name.

        Columns: split, filename, source_id (`<split as provided>/<filename>`, unique), width, height
        (pixels), patient_id (missing where it is unknown), slice (nullable integer), grey (whether all its
        pixels have equal red, green and blue), format (`jpeg` or `png`), sha256 (hexadecimal),
        perceptual_hash (64 bits, hexadecimal).
        """
        return self._read(IMAGES_TABLE)

    @cached_property
    def annotations(self) -> pd.DataFrame:
        """One row per box, at most one per label and image, in the order of images and labels.

        Columns: source_id, split, filename, label, and the `COORDINATES` in pixels of the original image.
        """
        return self._read(ANNOTATIONS_TABLE)

    def _read(self, table: str) -> pd.DataFrame:
        frame = read_table(self.path / table)
        kept = frame[~frame["source_id"].isin(self.left_out)] if self.left_out else frame
        return kept.reset_index(drop=True)

    def image_rows(self, columns: list[str]) -> Rows:
        """Iterates over the rows of `images` without loading all of them; `source_id` is a column."""
        return self._rows(IMAGES_TABLE, columns)

    def annotation_rows(self, columns: list[str]) -> Rows:
        """Iterates over the rows of `annotations` in the same way."""
        return self._rows(ANNOTATIONS_TABLE, columns)

    def _rows(self, table: str, columns: list[str]) -> Rows:
        rows = read_rows(self.path / table, columns)
        return (row for row in rows if row["source_id"] not in self.left_out)

    def copy_tables(self, folder: Path) -> None:
        """Writes both tables to another folder."""
        for table, schema in ((IMAGES_TABLE, IMAGES_SCHEMA), (ANNOTATIONS_TABLE, ANNOTATIONS_SCHEMA)):
            if self.left_out:
                write_table(self._read(table), lambda part: part, folder / table, schema)
            else:
                shutil.copyfile(self.path / table, folder / table)

    def without(self, source_ids: Collection[str]) -> "Dataset":
        """The dataset without some images, which are counted as quarantined."""
        rest = Dataset(self.path, self.manifest, self.left_out | set(source_ids))
        counts = {}
        for split, before in self.manifest.counts.items():
            images = rest.images[rest.images["split"] == split]
            boxes = rest.annotations[rest.annotations["split"] == split]
            shown = boxes["label"].value_counts()
            changes = {
                "images": len(images),
                "images_with_boxes": boxes["source_id"].nunique(),
                "boxes": len(boxes),
                "patients": count_patients(images["patient_id"]),
                "quarantined": before.quarantined + before.images - len(images),
                "boxes_by_label": {label: int(shown.get(label, 0)) for label in self.manifest.labels},
            }
            counts[split] = before.model_copy(update=changes)
        return Dataset(self.path, self.manifest.model_copy(update={"counts": counts}), rest.left_out)

    @property
    def image_folder(self) -> Path:
        """The folder of the images; each image's path in it is its `source_id`."""
        return self.path / IMAGES

    @property
    def findings_path(self) -> Path:
        """The CSV file of all findings."""
        return self.path / FINDINGS

    @property
    def image_count(self) -> int:
        """The number of images."""
        return sum(counts.images for counts in self.manifest.counts.values())


def open_dataset(path: str | Path) -> Dataset:
    """Opens a dataset artifact.

    Raises:
        InputError: There is no dataset artifact at `path`.
    """
    return Dataset(Path(path), read_manifest(path, DatasetManifest))


class DatasetDraft:
    """A dataset artifact being written.

    Attributes:
        images: The folder for the good images, with one subfolder per split as provided.
        quarantine: The folder for the bad images, in the same layout.
        findings: The path for the CSV file of all findings.
    """

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self.images = draft.path / IMAGES
        self.quarantine = draft.path / QUARANTINE
        self.findings = draft.path / FINDINGS
        for folder in (self.images, self.quarantine):
            for split in SPLITS:
                (folder / split).mkdir(parents=True)

    def write_images(self, frame: pd.DataFrame, complete: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
        """Writes the table of images; `complete` adds the columns that a group of rows lacks."""
        write_table(frame, complete, self._draft.path / IMAGES_TABLE, IMAGES_SCHEMA)

    def write_annotations(
        self, frame: pd.DataFrame, complete: Callable[[pd.DataFrame], pd.DataFrame]
    ) -> None:
        """Writes the table of boxes; `complete` adds the columns that a group of rows lacks."""
        write_table(frame, complete, self._draft.path / ANNOTATIONS_TABLE, ANNOTATIONS_SCHEMA)

    def finish(self, manifest: DatasetManifest) -> None:
        """Sets the artifact's manifest."""
        self._draft.manifest = manifest


@contextmanager
def create_dataset(path: str | Path) -> Iterator[DatasetDraft]:
    """Writes a dataset artifact, see `publish`. The images' sha256 are in the table of images."""
    with publish(path, DatasetManifest) as draft:
        yield DatasetDraft(draft)
