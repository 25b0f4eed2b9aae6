"""Splits a dataset's tables into shards, of which only a few are in memory at a time."""

import itertools
from collections.abc import Iterator
from operator import itemgetter

from brain_tumor.artifacts.dataset import Dataset
from brain_tumor.artifacts.folder import MANIFEST
from brain_tumor.artifacts.records import shard_names
from brain_tumor.artifacts.tables import COORDINATES
from brain_tumor.config import SPLITS, Split
from brain_tumor.records.shard import IMAGE_COLUMNS, Shard
from brain_tumor.runtime.errors import DamagedError


def split_shard_names(dataset: Dataset, split: Split, images_per_shard: int) -> list[str]:
    """The names of the files for a split's images."""
    return shard_names(split, -(-dataset.manifest.counts[split].images // images_per_shard))


def cut_into_shards(dataset: Dataset, images_per_shard: int) -> Iterator[Shard]:
    """Iterates over the shards of all splits, in order. Each table is read once.

    Args:
        dataset: The dataset artifact. Its tables are sorted by split, and by image in the same order.
        images_per_shard: Maximum number of images per shard.

    Raises:
        DamagedError: The tables are not sorted like this, or have a label that is not in the manifest.
    """
    slots = {label: slot for slot, label in enumerate(dataset.manifest.labels)}
    images = dataset.image_rows(["split", *IMAGE_COLUMNS])
    boxes = dataset.annotation_rows(["source_id", "label", *COORDINATES])
    boxes_of_images = itertools.groupby(boxes, itemgetter("source_id"))
    source_id, own_boxes = next(boxes_of_images, (None, iter(())))
    for split in SPLITS:
        missing = dataset.manifest.counts[split].images
        for name in split_shard_names(dataset, split, images_per_shard):
            shard = Shard(name, split)
            for image in itertools.islice(images, min(images_per_shard, missing)):
                if image["split"] != split:
                    raise _damaged(dataset, f"{image['source_id']} is in {split}")
                if image["source_id"] == source_id:
                    try:
                        shard.add(image, own_boxes, slots)
                    except KeyError as error:
                        raise _damaged(dataset, f"a box has the label {error}") from error
                    source_id, own_boxes = next(boxes_of_images, (None, iter(())))
                else:
                    shard.add(image, (), slots)
            missing -= len(shard)
            yield shard
    if source_id is not None:
        raise _damaged(dataset, f"a box of {source_id} stands before that image")


def _damaged(dataset: Dataset, why: str) -> DamagedError:
    return DamagedError(f"{dataset.path}: the tables do not fit the {MANIFEST} ({why}); run ingest again.")
