"""Batches for training and evaluation, by tf.data.

The order of the stages matters: images are decoded and letterboxed once and cached as uint8 (a quarter of the
size of floats, and a third of that for grey images), shuffled after the cache, in a new order each epoch, and
augmented last, in batches, so that each epoch sees different images. A cache that does not fit into memory is
written to a file, so nothing is decoded twice.

All randomness of an epoch comes from the seed and the epoch's number, so that a training can resume at any
epoch with the same result.
"""

import atexit
import math
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from brain_tumor.boxes.measures import present
from brain_tumor.config import AugmentationConfig
from brain_tumor.records.read import without_autotuner
from brain_tumor.runtime.errors import InputError
from brain_tumor.training.augmentation import augment

# The minimum size of the shuffle buffer, in batches, if the cache is a file.
MIN_SHUFFLE_BATCHES = 16


def steps_per_epoch(examples: tf.data.Dataset, batch_size: int) -> int:
    """The number of batches of `training_batches` per epoch, at least 1."""
    return max(1, int(examples.cardinality()) // batch_size)


def training_batches(
    examples: tf.data.Dataset,
    batch_size: int,
    outputs: Sequence[str],
    augmentation: AugmentationConfig | None,
    seed: int,
    first_epoch: int = 0,
    memory_cache_gb: float = math.inf,
) -> tf.data.Dataset:
    """Shuffled and augmented batches, repeated indefinitely, `steps_per_epoch` per epoch.

    Each epoch has a different order and augmentation. Both depend only on the seed and the epoch's number, so
    batches from `first_epoch` on are the same as those of a training that started earlier.

    Args:
        examples: From `load_split`, or from `features.with_features` if there is no augmentation.
        batch_size: Images per batch. An incomplete last batch is dropped (other images each epoch), unless it
            is the only one.
        outputs: Names of the model's outputs, each of which gets a target; see `training_model`.
        augmentation: The augmentation; None for none.
        seed: Seed of shuffling and augmentation.
        first_epoch: Number of the first epoch.
        memory_cache_gb: The maximum size of the cache in memory, in GB. A larger cache is a file, with
            a shuffle buffer of this size.

    Returns:
        Batches of `(images, targets)`: images uint8 (batch, size, size, 1 or 3), or features instead, and a
        dict of the outputs' targets.

    Raises:
        InputError: The disk is too small for the cache.
    """
    examples = examples.map(lambda example: {key: example[key] for key in ("image", "labels", "boxes")})
    epochs = _shuffled_epochs(examples, batch_size, seed, first_epoch, memory_cache_gb)

    def finish(batch_seed: Any, batch: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        if augmentation:
            batch = augment(batch, augmentation, batch_seed)
        return _inputs_and_targets(batch, outputs)

    return (
        epochs.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))
        .map(finish, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .prefetch(tf.data.AUTOTUNE)
        # `flat_map` drops the examples' options.
        .with_options(without_autotuner())
    )


def _shuffled_epochs(
    examples: tf.data.Dataset, batch_size: int, seed: int, first_epoch: int, memory_cache_gb: float
) -> tf.data.Dataset:
    """Pairs of a seed (2,) and a batch of examples, epoch after epoch indefinitely."""
    count = int(examples.cardinality())
    cached, buffer_size = _cache(examples, memory_cache_gb)
    buffer_size = min(count, max(buffer_size, MIN_SHUFFLE_BATCHES * batch_size))

    def epoch_batches(epoch: Any) -> tf.data.Dataset:
        # `shuffle` combines its seed with the graph's, which fails if that is 0 and its own a tensor.
        tf.compat.v1.get_default_graph().seed = None  # of this function's graph only
        epoch_seed = tf.random.stateless_uniform((), (seed, epoch), None, None, tf.int64)
        return (
            # The cache is created outside this function, so that all epochs share it.
            cached.shuffle(buffer_size, seed=epoch_seed, reshuffle_each_iteration=False)
            .batch(batch_size, drop_remainder=count >= batch_size)
            .enumerate()
            .map(lambda step, batch: (tf.stack([epoch_seed, step]), batch))
        )

    return tf.data.Dataset.range(first_epoch, tf.int64.max).flat_map(epoch_batches)


def evaluation_batches(
    examples: tf.data.Dataset, batch_size: int, outputs: Sequence[str], memory_cache_gb: float = math.inf
) -> tf.data.Dataset:
    """Batches in order, each image once, not augmented: `(images, targets)` as in `training_batches`.

    Raises:
        InputError: The disk is too small for the cache.
    """
    kept = {"image": "image"} | {output.split("_")[0]: output for output in outputs}
    examples = examples.map(lambda example: {key: example[key] for key in kept})
    cached, _ = _cache(examples, memory_cache_gb)
    return (
        cached.batch(batch_size)
        .map(lambda batch: _inputs_and_targets(batch, outputs))
        .prefetch(tf.data.AUTOTUNE)
    )


def _inputs_and_targets(batch: dict[str, Any], outputs: Sequence[str]) -> tuple[Any, dict[str, Any]]:
    # An output's target is that of its head.
    return batch["image"], {output: batch[output.split("_")[0]] for output in outputs}


def _cache(examples: tf.data.Dataset, memory_cache_gb: float) -> tuple[tf.data.Dataset, int]:
    """Caches examples, and returns them and the number of them that fit into memory."""
    example_bytes = sum(
        spec.shape.num_elements() * spec.dtype.size for spec in tf.nest.flatten(examples.element_spec)
    )
    count = int(examples.cardinality())
    if count * example_bytes <= memory_cache_gb * 1e9:
        return examples.cache(), count
    folder = tempfile.mkdtemp(prefix="brain-tumor-cache-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    free = shutil.disk_usage(folder).free
    if count * example_bytes > free:
        raise InputError(
            f"{count} images take {count * example_bytes / 1e9:.1f} GB, more than memory_cache_gb="
            f"{memory_cache_gb:g} and than the {free / 1e9:.1f} GB free in {tempfile.gettempdir()}; raise "
            "memory_cache_gb, or set TMPDIR to a folder on a larger disk."
        )
    return examples.cache(str(Path(folder) / "examples")), int(memory_cache_gb * 1e9 / example_bytes)


def with_loss_weights(inputs: Any, targets: dict[str, Any]) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """Adds sample weights that turn summed losses into means if several devices share a batch.

    A device sees only its part of the batch, so each image's weight is one over the number of boxes (for
    labels: images) in the whole batch.
    """
    weights = {}
    for output, truth in targets.items():
        images = tf.shape(truth)[0]
        count = images if output == "labels" else tf.reduce_sum(tf.cast(present(truth), tf.int32))
        weights[output] = tf.fill([images], 1 / tf.cast(tf.maximum(count, 1), tf.float32))
    return inputs, targets, weights
