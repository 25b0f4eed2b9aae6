"""Reads the records back and compares them with the dataset's tables."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from brain_tumor.artifacts.dataset import Dataset
from brain_tumor.artifacts.tables import COORDINATES
from brain_tumor.config import SPLITS
from brain_tumor.records.cut import cut_into_shards, split_shard_names
from brain_tumor.records.shard import Shard
from brain_tumor.runtime.progress import Progress

# Larger batches are hardly faster and need more memory.
READ_BATCH = 64

IMAGE_KEYS = {
    "image/encoded": tf.string,
    "image/format": tf.string,
    "image/filename": tf.string,
    "image/source_id": tf.string,
    "image/key/sha256": tf.string,
    "image/height": tf.int64,
    "image/width": tf.int64,
    "image/patient_id": tf.string,
    "image/slice": tf.int64,
}
OBJECT_KEYS = {
    **{f"image/object/bbox/{name}": tf.float32 for name in COORDINATES},
    "image/object/class/label": tf.int64,
    "image/object/class/text": tf.string,
}


def read_back(dataset: Dataset, images_per_shard: int, folder: Path) -> Iterator[Shard]:
    """Parses every record of every file and compares it with the dataset's tables.

    The images' bytes are not compared again: `write_shard` checked their hashes, and TensorFlow checks each
    record's checksum.

    Args:
        dataset: The dataset artifact.
        images_per_shard: Maximum number of images per file.
        folder: The folder of the TFRecord files.

    Yields:
        Each shard, once its file is verified.

    Raises:
        RuntimeError: A file cannot be read or has different content; the message names it.
    """
    names = [name for split in SPLITS for name in split_shard_names(dataset, split, images_per_shard)]
    batches = _read_batches([str(folder / name) for name in names])
    with Progress("Reading back", dataset.image_count, "images") as progress:
        for shard in cut_into_shards(dataset, images_per_shard):
            for start in range(0, len(shard), READ_BATCH):
                progress.update(_compare(shard, start, batches))
            yield shard
    if next(batches, None) is not None:
        raise RuntimeError(f"{names[-1]} has more records than expected.")


def _read_batches(paths: list[str]) -> Iterator[dict[str, NDArray[Any]]]:
    """Batches of parsed records, in order. No batch spans two files."""
    batches: Iterator[dict[str, NDArray[Any]]] = (
        tf.data.Dataset.from_tensor_slices(paths)
        .flat_map(lambda path: tf.data.TFRecordDataset(path).batch(READ_BATCH))
        .map(_parse_batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .as_numpy_iterator()
    )
    return batches


def _parse_batch(records: tf.Tensor) -> dict[str, tf.Tensor]:
    """Parses a batch; object keys get the concatenated values of all images, and `<key> counts` per image."""
    parsed: dict[str, Any] = tf.io.parse_example(
        records,
        {key: tf.io.FixedLenFeature([], dtype) for key, dtype in IMAGE_KEYS.items()}
        | {key: tf.io.RaggedFeature(dtype) for key, dtype in OBJECT_KEYS.items()},
    )
    del parsed["image/encoded"]  # its presence is checked, its content is not needed
    for key in OBJECT_KEYS:
        parsed[f"{key} counts"] = parsed[key].row_lengths()
        parsed[key] = parsed[key].values
    return parsed


def _compare(shard: Shard, start: int, batches: Iterator[dict[str, NDArray[Any]]]) -> int:
    """Compares the next batch with a shard's rows from `start` on; returns its number of images."""
    try:
        batch = next(batches, None)
    except tf.errors.OpError as error:
        raise RuntimeError(f"{shard.name} cannot be read back: {error.message}") from error
    for key, values in _expected_batch(shard, start).items():
        if batch is None or not np.array_equal(batch[key], values):
            raise RuntimeError(
                f"{shard.name} differs from the dataset in {key} of one of the {READ_BATCH} images from "
                f"{shard.images['source_id'][start]} on."
            )
    assert batch is not None
    return len(batch["image/source_id"])


def _expected_batch(shard: Shard, start: int) -> dict[str, Any]:
    """The expected result of `_parse_batch` for a shard's rows from `start` on."""
    images = {name: values[start : start + READ_BATCH] for name, values in shard.images.items()}
    ends = shard.box_ends[start : start + READ_BATCH]
    first = shard.box_ends[start - 1] if start else 0
    boxes = {name: values[first : ends[-1]] for name, values in shard.boxes.items()}
    objects = {
        **{f"image/object/bbox/{name}": np.array(boxes[name], np.float32) for name in COORDINATES},
        "image/object/class/label": np.array(boxes["slot"]) + 1,
        "image/object/class/text": _encoded(boxes["label"]),
    }
    counts = np.diff(ends, prepend=first)
    return {
        "image/format": _encoded(images["format"]),
        "image/filename": _encoded(images["filename"]),
        "image/source_id": _encoded(images["source_id"]),
        "image/key/sha256": _encoded(images["sha256"]),
        "image/height": images["height"],
        "image/width": images["width"],
        "image/patient_id": _encoded(images["patient_id"]),
        "image/slice": images["slice"],
        **objects,
        **{f"{key} counts": counts for key in objects},
    }


def _encoded(texts: list[str]) -> list[bytes]:
    return [text.encode() for text in texts]
