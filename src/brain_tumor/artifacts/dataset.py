"""The dataset artifact: images as they came, tables in place of their annotations, and what is known of them.

images/<split as provided>/<file>       the good images, bytes untouched
quarantine/<split as provided>/<file>   the bad ones
images.parquet  annotations.parquet     see `Dataset`
findings.csv                            what is wrong or worth a remark
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pyarrow as pa

from brain_tumor.artifacts.folder import Draft, Manifest, publish, read_manifest
from brain_tumor.artifacts.tables import COORDINATES, Rows, read_frame, read_rows, write_table
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
    patients: int
    quarantined: int
    """Images set aside; they count in no other number, and in the split that they came in."""
    boxes_by_label: dict[str, int]


class SharedBySplits(Schema):
    """What two splits have in common."""

    shared_patients: int
    """How many patients have images in both."""
    patients: list[str]
    """The first of these."""
    identical_images: int
    """How many images of the second split have one of the same bytes in the first."""
    near_duplicates: int
    """How many have a near-duplicate there; one of the same bytes is one too."""


class Leakage(Schema):
    """What splits share, by pair (`train/valid`, ...)."""

    used: dict[str, SharedBySplits]
    """Of the splits that the images are in."""
    provided: dict[str, SharedBySplits]
    """Of those that they came in."""


class DatasetManifest(Manifest):
    """What the dataset artifact says of itself."""

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
    """How many images `filename_pattern` does not match: each counts as a patient of its own."""
    split: str
    """How the splits were made."""
    leakage: Leakage

    def metrics(self) -> dict[str, float]:
        """The counts and what splits share by name, sorted; the same names for the same labels."""
        flat: dict[str, float] = {
            "findings": sum(self.findings.values()),
            "unmatched_names": self.unmatched_names,
        }
        for split, counts in self.counts.items():
            own = counts.model_dump()
            by_label = own.pop("boxes_by_label")
            flat |= {f"{split}_{name}": value for name, value in own.items()}
            flat |= {f"{split}_boxes_{label}": count for label, count in by_label.items()}
        return dict(sorted({**flat, **shared_metrics(self.leakage)}.items()))


def shared_metrics(leakage: Leakage) -> dict[str, float]:
    """What splits share, by name."""
    flat = {}
    for prefix, pairs in (("", leakage.used), ("provided_", leakage.provided)):
        for pair, shared in pairs.items():
            for name in ("shared_patients", "identical_images", "near_duplicates"):
                flat[f"{prefix}{pair.replace('/', '_')}_{name}"] = getattr(shared, name)
    return flat


@dataclass(frozen=True)
class Dataset:
    """A dataset artifact, opened.

    Attributes:
        path: Its folder.
        manifest: Its manifest.
    """

    path: Path
    manifest: DatasetManifest

    @cached_property
    def images(self) -> pd.DataFrame:
        """One row an image, sorted by split and file name.

        Columns: split, filename, source_id (`<split as provided>/<filename>`, unique), width, height
        (pixels), patient_id, slice (nullable integer), grey (whether all its pixels have equal red, green and
        blue), sha256 (hexadecimal), perceptual_hash (64 bits, hexadecimal).
        """
        return read_frame(self.path / IMAGES_TABLE)

    @cached_property
    def annotations(self) -> pd.DataFrame:
        """One row a box, at most one a label and image, in the order of the images and labels.

        Columns: source_id, split, filename, label, and the `COORDINATES` in pixels of the original image.
        """
        return read_frame(self.path / ANNOTATIONS_TABLE)

    def image_rows(self, columns: list[str]) -> Rows:
        """The rows of `images`, of which only a few are in memory at a time."""
        return read_rows(self.path / IMAGES_TABLE, columns)

    def annotation_rows(self, columns: list[str]) -> Rows:
        """The rows of `annotations`, of which only a few are in memory at a time."""
        return read_rows(self.path / ANNOTATIONS_TABLE, columns)

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
        """Writes the table of the images; `complete` gives some of its rows all columns of
        `IMAGES_SCHEMA`."""
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
    with publish(path, indexed=[IMAGES]) as draft:
        yield DatasetDraft(draft)
