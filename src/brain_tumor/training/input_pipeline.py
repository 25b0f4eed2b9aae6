"""Batches for training and evaluation, by tf.data.

The order of the stages is the point: decode and letterbox once and keep the result as bytes (a quarter of the
size of floats), shuffle what is decoded, anew each epoch, and augment last, on whole batches, so that no
epoch sees the same picture twice.
"""

import math
from pathlib import Path
from typing import Any

import tensorflow as tf

from brain_tumor.config import AugmentationConfig
from brain_tumor.data.records import parse_example, shard_paths
from brain_tumor.geometry import box_to_letterbox, letterbox
from brain_tumor.storage import read_manifest


def load_split(records: str | Path, split: str, num_classes: int, image_size: int) -> tf.data.Dataset:
    """The examples of a split in their order on disk, decoded and letterboxed.

    Returns:
        A data set of dicts: `image` uint8 (size, size, 3), `labels` float32 (num_classes,), `boxes` float32
        (num_classes, 4) normalised to 0..1 of the letterboxed image, an absent class a row of zeros, and
        `filename`, `patient_id`, `slice`, `height`, `width` of the original.
    """
    count = read_manifest(records, "records")["splits"][split]["images"]
    # Known sizes let Keras plan an epoch without reading one first.
    serialized = tf.data.TFRecordDataset(shard_paths(records, split)).apply(
        tf.data.experimental.assert_cardinality(count)
    )
    return serialized.map(
        lambda text: _letterbox_example(parse_example(text, num_classes), image_size),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )


def _letterbox_example(example: dict[str, Any], size: int) -> dict[str, Any]:
    placement = letterbox(example["height"], example["width"], size)
    top, left, new_height, new_width = placement
    image = tf.image.decode_jpeg(example.pop("encoded"), channels=3)
    # Without antialiasing, shrinking 240 px to 64 would skip most of the pixels, small lesions with them.
    image = tf.image.resize(image, (new_height, new_width), antialias=True)
    image = tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)
    image = tf.image.pad_to_bounding_box(image, top, left, size, size)

    corners = box_to_letterbox(
        tf.unstack(example["boxes"], axis=-1), [tf.cast(pixels, tf.float32) for pixels in placement], size
    )
    # The padding moves the zeros of an absent class's row too: take them back.
    boxes = tf.stack(corners, axis=-1) * example["labels"][:, tf.newaxis]
    return {**example, "image": tf.ensure_shape(image, (size, size, 3)), "boxes": boxes}


def training_batches(
    examples: tf.data.Dataset,
    batch_size: int,
    heads: list[str],
    augmentation: AugmentationConfig | None,
    seed: int,
    first_epoch: int = 0,
    memory_cache_gb: float = math.inf,
) -> tf.data.Dataset:
    """Shuffled and augmented batches without end, epoch after epoch.

    Args:
        examples: From `load_split`, or from `with_features` if there is no augmentation.
        batch_size: Images a batch. A last, smaller batch is left out (of another order each epoch), unless it
            is the only one.
        heads: The targets that a batch has.
        augmentation: How images are changed; None if they are not.
        seed: Seed of the order and of the changes, which depend on it and the epoch's number alone.
        first_epoch: The epoch to begin with, from 0.

    Returns:
        Batches of `(images, targets)`: float32 (batch, size, size, 3), 0..255, or the features in their
        place, and a dict of the heads' truths; `steps_per_epoch` of them an epoch.
    """
    examples = examples.map(lambda example: {key: example[key] for key in ("image", "labels", "boxes")})
    count = int(examples.cardinality())
    whole = examples.cache().batch(count).cache()

    def epoch_batches(epoch: Any) -> tf.data.Dataset:
        order = tf.random.experimental.stateless_shuffle(tf.range(count), (seed, epoch))
        everything = tf.data.experimental.get_single_element(whole)
        shuffled = tf.nest.map_structure(lambda tensor: tf.gather(tensor, order), everything)
        batches = tf.data.Dataset.from_tensor_slices(shuffled)
        batches = batches.batch(batch_size, drop_remainder=count >= batch_size).enumerate()
        return batches.map(lambda step, batch: (epoch * count + step, batch))

    def finish(step: Any, batch: dict[str, Any]) -> Any:
        if augmentation is None:
            return _targets(batch, heads)
        return _targets(augment(batch, augmentation, seed * 1_000_003 + step), heads)

    return (
        tf.data.Dataset.range(first_epoch, tf.int64.max)
        .flat_map(epoch_batches)
        .map(finish, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .prefetch(tf.data.AUTOTUNE)
    )


def steps_per_epoch(examples: tf.data.Dataset, batch_size: int) -> int:
    """How many batches `training_batches` gives an epoch."""
    return max(1, int(examples.cardinality()) // batch_size)


def with_features(examples: tf.data.Dataset, extractor: Any, batch_size: int) -> tf.data.Dataset:
    """The same examples with a backbone's feature maps in place of the image.

    They are computed as they are read; what is cached behind this is computed once.

    Args:
        examples: From `load_split`.
        extractor: A function from images (batch, size, size, 3), float32, to a list of feature maps.
        batch_size: Images a call.
    """
    count = examples.cardinality()
    return (
        examples.batch(batch_size)
        .map(
            lambda batch: {
                **batch,
                # Keras answers with a tensor in place of a list of one.
                "image": tuple(tf.nest.flatten(extractor(tf.cast(batch["image"], tf.float32)))),
            }
        )
        .unbatch()
        .apply(tf.data.experimental.assert_cardinality(count))
    )


def evaluation_batches(
    examples: tf.data.Dataset, batch_size: int, heads: list[str], memory_cache_gb: float = math.inf
) -> tf.data.Dataset:
    """Batches in order and unchanged, each image once: `(images, targets)` as in `training_batches`."""
    examples = examples.map(lambda example: {key: example[key] for key in ("image", *heads)})
    return (
        examples.cache()
        .batch(batch_size)
        .map(lambda batch: _targets(batch, heads))
        .prefetch(tf.data.AUTOTUNE)
    )


def to_model_input(images: Any) -> Any:
    """Images as the model reads them."""
    return tf.cast(images, tf.float32)


def _targets(batch: dict[str, Any], heads: list[str]) -> tuple[Any, dict[str, Any]]:
    inputs = tf.nest.map_structure(lambda tensor: tf.cast(tensor, tf.float32), batch["image"])
    return inputs, {head: batch[head] for head in heads}


def augment(batch: dict[str, Any], config: AugmentationConfig, seed: Any) -> dict[str, Any]:
    """Changes the images of a batch, each in its own way, and their boxes with them.

    Args:
        batch: `image` uint8 or float32 (batch, size, size, 3), 0..255; `boxes` (batch, num_classes, 4),
            normalised.
        config: What may change, and how far.
        seed: A scalar integer tensor; the same seed gives the same changes.

    Returns:
        The batch with changed `image` (float32, 0..255) and `boxes`.
    """
    count = tf.shape(batch["image"])[0]

    def draw(stream: int, low: float, high: float) -> Any:
        return tf.random.stateless_uniform([count, 1, 1, 1], (seed, stream), low, high)

    image, boxes = tf.cast(batch["image"], tf.float32), batch["boxes"]
    if config.flip:
        flipped = draw(0, 0.0, 1.0) < 0.5
        image = tf.where(flipped, image[:, :, ::-1], image)
        present = tf.reduce_any(boxes > 0, axis=-1, keepdims=True)
        mirrored = tf.stack([1 - boxes[..., 2], boxes[..., 1], 1 - boxes[..., 0], boxes[..., 3]], axis=-1)
        boxes = tf.where(flipped[..., 0] & present, mirrored, boxes)
    mean = tf.reduce_mean(image, axis=(1, 2, 3), keepdims=True)
    image = (image - mean) * (1 + draw(1, -config.contrast, config.contrast)) + mean
    image += 255 * draw(2, -config.brightness, config.brightness)
    return {**batch, "image": tf.clip_by_value(image, 0, 255), "boxes": boxes}
