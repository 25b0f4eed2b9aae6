"""The dataset artifact: images as they came, tables in place of their annotations, and what is known of them.

images/<split as provided>/<file>       the good images, bytes untouched
quarantine/<split as provided>/<file>   the bad ones
images.parquet  annotations.parquet     see `Dataset`
findings.csv                            what is wrong or worth a remark
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
    """What a split holds."""

    images: int
    images_with_boxes: int
    boxes: int
    patients: int | None
    """None where an image's patient is unknown."""
    quarantined: int
    """Images set aside; they count in no other number, and in the split that they came in."""
    boxes_by_label: dict[str, int]


class SharedBySplits(Schema):
    """What two splits have in common."""

    shared_patients: int | None
    """How many patients have images in both; None where the patient of an image of these is unknown."""
    patients: list[str]
    """The first of those that are known."""
    identical_images: int
    """How many images of the second split have one of the same bytes in the first."""
    near_duplicates: int
    """How many have a near-duplicate there; one of the same bytes is one too, and so is another copy of the
    same picture, see `picture_name`."""


class Leakage(Schema):
    """What splits share, by pair (`train/valid`, ...)."""

    used: dict[str, SharedBySplits]
    """Of the splits that the images are in."""
    provided: dict[str, SharedBySplits]
    """Of those that they came in."""


class DatasetManifest(Manifest):
    """What the dataset artifact says of itself."""

    indexed: ClassVar[tuple[str, ...]] = (IMAGES,)

    kind: Literal["dataset"] = "dataset"
    source: str
    """Where the images came from."""
    format: str
    """The export's format."""
    notice: str
    """What every report must say about the data, or an empty text."""
    labels: list[str]
    """In slot order."""
    grey: bool
    """Whether all images are grey."""
    config: dict[str, Any]
    """The ingest step's config, defaults included."""
    counts: dict[Split, SplitCounts]
    findings: dict[str, int]
    """How many of each kind."""
    unmatched_names: int
    """How many images `filename_pattern` does not match: their patients are unknown."""
    shortcuts: dict[str, float]
    """In what images with and without a box differ, by name, and how far, see
    `brain_tumor.ingest.shortcuts`."""
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
        """The counts and what splits share by name, sorted; the same names for the same labels."""
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
    """What splits share, by name."""
    flat = {}
    for prefix, pairs in (("", leakage.used), ("provided_", leakage.provided)):
        for pair, shared in pairs.items():
            for name in ("shared_patients", "identical_images", "near_duplicates"):
                if (value := getattr(shared, name)) is not None:
                    flat[f"{prefix}{pair.replace('/', '_')}_{name}"] = value
    return flat


def count_patients(patient_ids: pd.Series) -> int | None:
    """How many patients images have; None where one is unknown."""
    return None if patient_ids.isna().any() else int(patient_ids.nunique())


def picture_name(filename: str) -> str:
    """What is alike in the names of an image's copies.

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
        manifest: Its manifest, whose counts are without what is left out.
        left_out: The source_id of images that are in no table.
    """

    path: Path
    manifest: DatasetManifest
    left_out: frozenset[str] = frozenset()

    @cached_property
    def images(self) -> pd.DataFrame:
        """One row an image, sorted by split and file name.

        Columns: split, filename, source_id (`<split as provided>/<filename>`, unique), width, height
        (pixels), patient_id (missing where it is unknown), slice (nullable integer), grey (whether all its
        pixels have equal red, green and blue), format (`jpeg` or `png`), sha256 (hexadecimal),
        perceptual_hash (64 bits, hexadecimal).
        """
        return self._read(IMAGES_TABLE)

    @cached_property
    def annotations(self) -> pd.DataFrame:
        """One row a box, at most one a label and image, in the order of the images and labels.

        Columns: source_id, split, filename, label, and the `COORDINATES` in pixels of the original image.
        """
        return self._read(ANNOTATIONS_TABLE)

    def _read(self, table: str) -> pd.DataFrame:
        frame = read_table(self.path / table)
        kept = frame[~frame["source_id"].isin(self.left_out)] if self.left_out else frame
        return kept.reset_index(drop=True)

    def image_rows(self, columns: list[str]) -> Rows:
        """The rows of `images`, of which only a few are in memory at a time; `source_id` is a column."""
        return self._rows(IMAGES_TABLE, columns)

    def annotation_rows(self, columns: list[str]) -> Rows:
        """The rows of `annotations`, likewise."""
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
        """The dataset with some images left out, which count as quarantined ones of their splits."""
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
        """Where the images are, each at its `source_id`."""
        return self.path / IMAGES

    @property
    def findings_path(self) -> Path:
        """The table of all findings."""
        return self.path / FINDINGS

    @property
    def image_count(self) -> int:
        """How many images there are."""
        return sum(counts.images for counts in self.manifest.counts.values())


def open_dataset(path: str | Path) -> Dataset:
    """Opens what `ingest` made.

    Raises:
        InputError: There is no dataset artifact at `path`.
    """
    return Dataset(Path(path), read_manifest(path, DatasetManifest))


class DatasetDraft:
    """A dataset artifact being written.

    Attributes:
        images: Takes the good images, in a folder for each split as provided.
        quarantine: Takes the bad ones, likewise.
        findings: The table of all findings is to be written here.
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
        """Writes the table of images; `complete` gives a group of rows all columns of `IMAGES_SCHEMA`."""
        write_table(frame, complete, self._draft.path / IMAGES_TABLE, IMAGES_SCHEMA)

    def write_annotations(
        self, frame: pd.DataFrame, complete: Callable[[pd.DataFrame], pd.DataFrame]
    ) -> None:
        """Writes the table of the boxes; `complete` gives some of its rows all of `ANNOTATIONS_SCHEMA`."""
        write_table(frame, complete, self._draft.path / ANNOTATIONS_TABLE, ANNOTATIONS_SCHEMA)

    def finish(self, manifest: DatasetManifest) -> None:
        """Gives the artifact its manifest."""
        self._draft.manifest = manifest


@contextmanager
def create_dataset(path: str | Path) -> Iterator[DatasetDraft]:
    """Writes a dataset artifact, see `publish`. The sha256 of its images stand in its table of images."""
    with publish(path, DatasetManifest) as draft:
        yield DatasetDraft(draft)
