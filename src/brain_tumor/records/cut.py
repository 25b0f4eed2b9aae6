"""Splits a dataset's tables into shards, lazily."""

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
    """The names of a split's TFRecord files."""
    return shard_names(split, -(-dataset.manifest.counts[split].images // images_per_shard))


def cut_into_shards(dataset: Dataset, images_per_shard: int) -> Iterator[Shard]:
    """Yields the shards of all splits, in order. Each table is read once.

    Args:
        dataset: The dataset artifact. Its tables are sorted by split, and by image in the same order.
        images_per_shard: Maximum number of images per shard.

    Raises:
        DamagedError: The tables are not sorted this way, or have a label that is not in the manifest.
    """
    slots = {label: slot for slot, label in enumerate(dataset.manifest.labels)}
    images = dataset.image_rows(["split", *IMAGE_COLUMNS])
    boxes = dataset.annotation_rows(["source_id", "label", *COORDINATES])
    boxes_of_images = itertools.groupby(boxes, itemgetter("source_id"))
    source_id, image_boxes = next(boxes_of_images, (None, iter(())))
    for split in SPLITS:
        remaining = dataset.manifest.counts[split].images
        for name in split_shard_names(dataset, split, images_per_shard):
            shard = Shard(name, split)
            for image in itertools.islice(images, min(images_per_shard, remaining)):
                if image["split"] != split:
                    raise _damaged(dataset, f"{image['source_id']} is in {split}")
                if image["source_id"] == source_id:
                    try:
                        shard.add(image, image_boxes, slots)
                    except KeyError as error:
                        raise _damaged(dataset, f"a box has the label {error}") from error
                    source_id, image_boxes = next(boxes_of_images, (None, iter(())))
                else:
                    shard.add(image, (), slots)
            remaining -= len(shard)
            yield shard
    if source_id is not None:
        raise _damaged(dataset, f"the boxes are not in the order of the images, from {source_id} on")


def _damaged(dataset: Dataset, why: str) -> DamagedError:
    return DamagedError(f"{dataset.path}: the tables do not match the {MANIFEST} ({why}); run ingest again.")
