"""Statistics of the records, accumulated shard by shard."""

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np

from brain_tumor.artifacts.dataset import DatasetManifest
from brain_tumor.artifacts.records import SplitRecords, Statistics
from brain_tumor.artifacts.tables import COORDINATES
from brain_tumor.config import SPLITS, Split
from brain_tumor.records.shard import Shard
from brain_tumor.runtime.errors import DamagedError


@dataclass
class _SplitTally:
    images: int = 0
    boxes: int = 0
    patients: set[str] = field(default_factory=set)


class Tally:
    """Counts the content of shards.

    Args:
        labels: The label names, in slot order.
    """

    def __init__(self, labels: list[str]) -> None:
        self._labels = labels
        self._splits: defaultdict[str, _SplitTally] = defaultdict(_SplitTally)
        self._box_sums = np.zeros((len(labels), len(COORDINATES)))
        self._box_counts = np.zeros(len(labels), int)

    def add(self, shard: Shard) -> None:
        """Adds a shard's images and boxes to the counts."""
        tally = self._splits[shard.split]
        tally.images += len(shard)
        tally.boxes += len(shard.boxes["slot"])
        tally.patients |= set(shard.images["patient_id"])
        if shard.split == "train":
            slots = np.array(shard.boxes["slot"], int)
            np.add.at(self._box_sums, slots, np.stack([shard.boxes[name] for name in COORDINATES], axis=1))
            np.add.at(self._box_counts, slots, 1)

    def check(self, expected: dict[Split, SplitRecords]) -> None:
        """Compares the counts with those in the dataset's manifest.

        Raises:
            DamagedError: They differ.
        """
        for split, records in expected.items():
            tally = self._splits[split]
            patients = None if "" in tally.patients else len(tally.patients)
            counted = (tally.images, tally.boxes, patients)
            if counted != (records.images, records.boxes, records.patients):
                raise DamagedError(
                    f"The records of {split} have {counted} images, boxes and patients, but the dataset's "
                    f"manifest counts {(records.images, records.boxes, records.patients)}; run ingest again."
                )

    def statistics(self, dataset: DatasetManifest, max_class_weight: float) -> Statistics:
        """The statistics that training uses.

        Args:
            dataset: The dataset's manifest.
            max_class_weight: Upper limit of a label's weight; the lower limit is its reciprocal.
        """
        counts = {split: dataset.counts[split].boxes_by_label for split in SPLITS}
        train_images = dataset.counts["train"].images
        weights = {}
        for label, positives in counts["train"].items():
            ratio = (train_images - positives) / positives if positives else max_class_weight
            weights[label] = min(max(ratio, 1 / max_class_weight), max_class_weight)
        means = {
            label: (total / count).tolist() if count else None
            for label, total, count in zip(self._labels, self._box_sums, self._box_counts, strict=True)
        }
        return Statistics(
            class_counts=counts, class_weights=weights, mean_boxes=means, leakage=dataset.leakage
        )
