"""The records artifact: sharded TFRecords, and what training and evaluation need to know about them.

<split>-00000-of-00002.tfrecord         see `brain_tumor.records`
images.parquet  annotations.parquet     the dataset's tables, unrounded (records store float32)
statistics.json                         `Statistics`
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from pydantic import model_validator

from brain_tumor.artifacts.dataset import ANNOTATIONS_TABLE, IMAGES_TABLE, Dataset, Leakage, shared_metrics
from brain_tumor.artifacts.folder import Draft, Manifest, publish, read_json, read_manifest
from brain_tumor.artifacts.tables import read_table
from brain_tumor.config import SPLITS, Schema, Split
from brain_tumor.runtime.errors import InputError
from brain_tumor.stores.files import write_json

STATISTICS = "statistics.json"


class Statistics(Schema):
    """What training needs to know about the records."""

    class_counts: dict[Split, dict[str, int]]
    """The number of images that show a label, by split and label."""
    class_weights: dict[str, float]
    """Per label, negatives / positives in train, clipped to 1 / max_class_weight .. max_class_weight; the
    latter for a label that is not in train."""
    mean_boxes: dict[str, list[float] | None]
    """Per label, the mean of train's boxes, normalized to the original image; None if train has none."""
    leakage: Leakage


class SplitRecords(Schema):
    """The counts of a split's records."""

    images: int
    boxes: int
    patients: int | None
    """None if the patient of any image is unknown."""
    shards: int
    """The number of files."""


class RecordsManifest(Manifest):
    """The manifest of the records artifact."""

    kind: Literal["records"] = "records"
    source: str
    notice: str
    """A notice about the data that every report must show, or an empty string."""
    labels: list[str]
    """In slot order."""
    channels: Literal[1, 3]
    """1 if all images are grey."""
    config: dict[str, Any]
    """The step's config, defaults included."""
    splits: dict[Split, SplitRecords]
    left_out: list[str]
    """The source_id of the dataset's images that TensorFlow cannot decode."""

    @model_validator(mode="after")
    def _check_splits(self) -> "RecordsManifest":
        if set(self.splits) != set(SPLITS):
            raise ValueError("does not count every split")
        return self


@dataclass(frozen=True)
class Records:
    """A records artifact, opened.

    Attributes:
        path: Its folder.
        manifest: Its manifest.
    """

    path: Path
    manifest: RecordsManifest

    @property
    def labels(self) -> list[str]:
        """The label names in slot order."""
        return self.manifest.labels

    @cached_property
    def statistics(self) -> Statistics:
        """What training needs to know about the records."""
        return read_json(Statistics, self.path / STATISTICS)

    def images(self, split: Split) -> pd.DataFrame:
        """The rows of `Dataset.images` of a split, in the order of its records."""
        return read_table(self.path / IMAGES_TABLE, filters=[("split", "==", split)])

    def annotations(self, split: Split) -> pd.DataFrame:
        """The rows of `Dataset.annotations` of a split, in the order of its records."""
        return read_table(self.path / ANNOTATIONS_TABLE, filters=[("split", "==", split)])

    def shard_paths(self, split: Split) -> list[str]:
        """The TFRecord files of a split, in order.

        Raises:
            InputError: There is no such split.
        """
        if split not in self.manifest.splits:
            raise InputError(f"{self.path} has no split {split!r}; it has {', '.join(SPLITS)}.")
        return [str(self.path / name) for name in shard_names(split, self.manifest.splits[split].shards)]

    def metrics(self) -> dict[str, float]:
        """Counts by split, class weights, and what the splits share, by name."""
        flat: dict[str, float] = {}
        for split, counts in self.manifest.splits.items():
            own = counts.model_dump().items()
            flat |= {f"{split}_{name}": count for name, count in own if count is not None}
        statistics = self.statistics
        flat |= {f"class_weight_{label}": weight for label, weight in statistics.class_weights.items()}
        used = Leakage(used=statistics.leakage.used, provided={})
        return {**flat, **shared_metrics(used)}


def open_records(path: str | Path) -> Records:
    """Opens a records artifact.

    Raises:
        InputError: There is no records artifact at `path`, or an older version wrote it.
    """
    return Records(Path(path), read_manifest(path, RecordsManifest))


def shard_names(split: str, shards: int) -> list[str]:
    """The names of a split's files, in order."""
    return [f"{split}-{index:05d}-of-{shards:05d}.tfrecord" for index in range(shards)]


@dataclass(frozen=True)
class RecordsDraft:
    """A records artifact being written.

    Attributes:
        path: The folder for the TFRecord files.
    """

    path: Path
    _draft: Draft

    def finish(self, dataset: Dataset, statistics: Statistics, manifest: RecordsManifest) -> None:
        """Adds the dataset's tables and the statistics, and sets the artifact's manifest."""
        dataset.copy_tables(self.path)
        write_json(self.path / STATISTICS, statistics.model_dump(mode="json"))
        self._draft.manifest = manifest


@contextmanager
def create_records(path: str | Path) -> Iterator[RecordsDraft]:
    """Writes a records artifact, see `publish`."""
    with publish(path, RecordsManifest) as draft:
        yield RecordsDraft(draft.path, draft)
