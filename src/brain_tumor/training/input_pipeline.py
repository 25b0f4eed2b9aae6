"""Batches for training and evaluation, by tf.data.

The order of the stages is the point: decode and letterbox once and keep the result as bytes (a quarter of the
size of floats, and a third of that for grey images), shuffle what is decoded, anew each epoch, and augment
last, on whole batches, so that no epoch sees the same picture twice. What does not fit into memory is kept in
a file, so nothing is ever decoded twice.

All that is random in an epoch follows from the seed and the epoch's number, so that a training can go on at
any epoch as if it had never stopped.
"""

import atexit
import logging
import math
import shutil
import tempfile
from pathlib import Path
from typing import Any

import tensorflow as tf

from brain_tumor.config import AugmentationConfig
from brain_tumor.data.records import parse_example, shard_paths
from brain_tumor.errors import InputError
from brain_tumor.geometry import box_to_letterbox, letterbox
from brain_tumor.storage import read_manifest

# An image is neither shifted nor scaled where one of its boxes would keep less than this share of its area.
SMALLEST_VISIBLE_SHARE = 0.5
# A split whose cache is a file is shuffled within as many images as fit into memory, and at least these.
SMALLEST_SHUFFLE_BATCHES = 16


def load_split(records: str | Path, split: str, num_classes: int, image_size: int) -> tf.data.Dataset:
    """The examples of a split in their order on disk, decoded and letterboxed.

    Returns:
        A data set of dicts: `image` uint8 (size, size, channels), `labels` float32 (num_classes,), `boxes`
        float32 (num_classes, 4) normalised to 0..1 of the letterboxed image, an absent class a row of zeros,
        and `source_id`, `filename`, `patient_id`, `slice`, `height`, `width` of the original. There is 1
        channel if all images of the records are grey, else 3; `to_model_input` makes 3 of either.

    Raises:
        InputError: There is no records artifact or no such split, or an older version wrote it.
    """
    manifest = read_manifest(records, "records")
    channels = manifest.get("channels")
    if channels not in (1, 3):
        raise InputError(
            f"{records} does not say how many channels its images have; build the records again."
        )
    # Known sizes let Keras plan an epoch without reading one first.
    serialized = tf.data.TFRecordDataset(shard_paths(records, split)).apply(
        tf.data.experimental.assert_cardinality(manifest["splits"][split]["images"])
    )
    return serialized.map(
        lambda text: _letterbox_example(parse_example(text, num_classes), image_size, channels),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )


def _letterbox_example(example: dict[str, Any], size: int, channels: int) -> dict[str, Any]:
    # What happens along y and along x is the same: vectors of both halve the number of operations, each of
    # which costs more than what it computes.
    sides = tf.stack([example["height"], example["width"]])
    start, _, new_sides, _ = letterbox(sides, sides[::-1], size)
    image = tf.image.decode_jpeg(example.pop("encoded"), channels=channels)
    # Without antialiasing, shrinking 240 px to 64 would skip most of the pixels, small lesions with them. It
    # changes nothing where an image grows, and takes five times as long.
    image = tf.cond(
        tf.reduce_max(sides) > size,
        lambda: tf.image.resize(image, new_sides, antialias=True),
        lambda: tf.image.resize(image, new_sides),
    )
    padding = tf.stack([start, size - new_sides - start], axis=1)
    image = tf.pad(tf.cast(image + 0.5, tf.uint8), tf.concat([padding, [[0, 0]]], axis=0))

    points = tf.reshape(example["boxes"], (-1, 2, 2))  # two corners a box, x before y
    start, new_sides = (tf.cast(values[::-1], tf.float32) for values in (start, new_sides))
    corners, *_ = box_to_letterbox([points] * 4, (start, start, new_sides, new_sides), size)
    # The padding moves the zeros of an absent class's row too: take them back.
    boxes = tf.reshape(corners, example["boxes"].shape) * example["labels"][:, tf.newaxis]
    return {**example, "image": tf.ensure_shape(image, (size, size, channels)), "boxes": boxes}


def steps_per_epoch(examples: tf.data.Dataset, batch_size: int) -> int:
    """How many batches of `training_batches` are an epoch: a last, smaller one only if it is the only one."""
    return max(1, int(examples.cardinality()) // batch_size)


def training_batches(
    examples: tf.data.Dataset,
    batch_size: int,
    heads: list[str],
    augmentation: AugmentationConfig | None,
    seed: int,
    first_epoch: int = 0,
    memory_cache_gb: float = math.inf,
) -> tf.data.Dataset:
    """Shuffled and augmented batches without end, `steps_per_epoch` of them an epoch.

    Each epoch has another order and other changes. Both follow from the seed and the epoch's number alone, so
    a stream that begins at `first_epoch` goes on exactly as one that began earlier.

    Args:
        examples: From `load_split`, or from `with_features` if there is no augmentation.
        batch_size: Images a batch. A last, smaller batch is left out (of another order each epoch), unless it
            is the only one.
        heads: The targets that a batch has.
        augmentation: How images are changed; None if they are not.
        seed: Seed of the order and of the changes.
        first_epoch: Number of the epoch to begin with.
        memory_cache_gb: Up to how many GB of examples are kept in memory. If there are more, they are kept in
            a file, and shuffled within a window of that size.

    Returns:
        Batches of `(images, targets)`: float32 (batch, size, size, 3), 0..255, or the features in their
        place, and a dict of the heads' truths.

    Raises:
        InputError: The disk is too small.
    """
    examples = examples.map(lambda example: {key: example[key] for key in ("image", "labels", "boxes")})
    colours = augmentation and (augmentation.saturation or augmentation.hue)
    if colours and examples.element_spec["image"].shape[-1] == 1:
        logging.warning("All images are grey: augmentation.saturation and augmentation.hue change nothing.")
    count = int(examples.cardinality())
    cached, window = _cache(examples, memory_cache_gb)
    window = min(count, max(window, SMALLEST_SHUFFLE_BATCHES * batch_size))

    def epoch_batches(epoch: Any) -> tf.data.Dataset:
        # `shuffle` mixes the global seed into its own, and cannot where that is 0 and its own a tensor.
        tf.compat.v1.get_default_graph().seed = None  # of this function alone
        epoch_seed = tf.random.stateless_uniform((), (seed, epoch), None, None, tf.int64)
        return (
            # The cache is outside of this function, so that all epochs share it.
            cached.shuffle(window, seed=epoch_seed, reshuffle_each_iteration=False)
            .batch(batch_size, drop_remainder=count >= batch_size)
            .enumerate()
            .map(lambda step, batch: (tf.stack([epoch_seed, step]), batch))
        )

    def finish(batch_seed: Any, batch: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        if augmentation:
            batch = augment(batch, augmentation, batch_seed)
        return _inputs_and_targets(batch, heads, _to_model_input_compiled)

    return (
        tf.data.Dataset.range(first_epoch, tf.int64.max)
        .flat_map(epoch_batches)
        .apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))
        .map(finish, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .prefetch(tf.data.AUTOTUNE)
    )


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
        .map(lambda batch: {**batch, "image": extract_features(extractor, batch["image"])})
        .unbatch()
        .apply(tf.data.experimental.assert_cardinality(count))
    )


def extract_features(extractor: Any, images: Any) -> tuple[Any, ...]:
    """What a model that begins behind the backbone reads in place of images (as in `load_split`)."""
    # Keras answers with a tensor in place of a list of one.
    return tuple(tf.nest.flatten(extractor(to_model_input(images))))


def evaluation_batches(
    examples: tf.data.Dataset, batch_size: int, heads: list[str], memory_cache_gb: float = math.inf
) -> tf.data.Dataset:
    """Batches in order and unchanged, each image once: `(images, targets)` as in `training_batches`."""
    examples = examples.map(lambda example: {key: example[key] for key in ("image", *heads)})
    cached, _ = _cache(examples, memory_cache_gb)
    return (
        cached.batch(batch_size)
        .map(lambda batch: _inputs_and_targets(batch, heads, to_model_input))
        .prefetch(tf.data.AUTOTUNE)
    )


def to_model_input(images: Any) -> Any:
    """Grey or RGB images (batch, size, size, 1 or 3) as RGB, float32 (batch, size, size, 3)."""
    images = tf.cast(images, tf.float32)
    return images if images.shape[-1] == 3 else tf.image.grayscale_to_rgb(images)


# Compiled it takes a third of the time, but each size of a batch is compiled anew.
_to_model_input_compiled = tf.function(to_model_input, jit_compile=True, autograph=False)


def _inputs_and_targets(batch: dict[str, Any], heads: list[str], convert: Any) -> tuple[Any, dict[str, Any]]:
    inputs = batch["image"]
    if not isinstance(inputs, tuple):  # of features
        inputs = convert(inputs)
    return inputs, {head: batch[head] for head in heads}


def _cache(examples: tf.data.Dataset, memory_cache_gb: float) -> tuple[tf.data.Dataset, int]:
    """Examples that are computed once and then kept, and how many of them fit into the memory for it."""
    each = sum(spec.shape.num_elements() * spec.dtype.size for spec in tf.nest.flatten(examples.element_spec))
    count = int(examples.cardinality())
    if count * each <= memory_cache_gb * 1e9:
        return examples.cache(), count
    folder = tempfile.mkdtemp(prefix="brain-tumor-cache-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    free = shutil.disk_usage(folder).free
    if count * each > free:
        raise InputError(
            f"{count} images take {count * each / 1e9:.1f} GB, which is more than memory_cache_gb="
            f"{memory_cache_gb:g} and than the {free / 1e9:.1f} GB free in {tempfile.gettempdir()}; raise "
            "memory_cache_gb, or set TMPDIR to a folder on a larger disk."
        )
    return examples.cache(str(Path(folder) / "examples")), int(memory_cache_gb * 1e9 / each)


def augment(batch: dict[str, Any], config: AugmentationConfig, seed: Any) -> dict[str, Any]:
    """Changes the images of a batch, each in its own way, and their boxes with them.

    Boxes are clipped to the image. Where one would keep less than half of its area, its image is neither
    shifted nor scaled: a label that is present always has a box that can be seen. What comes into view from
    outside is black, as the letterbox's padding is. Noise is the same in all channels, so that a grey image
    stays grey.

    Args:
        batch: `image` uint8 (batch, size, size, 1 or 3); `boxes` (batch, num_classes, 4), normalised.
        config: What may change, and how far.
        seed: An integer tensor (2,); the same seed gives the same changes.

    Returns:
        The batch with changed `image` (float32, 0..255) and `boxes`.
    """
    images, boxes = batch["image"], batch["boxes"]
    count, size, channels = tf.shape(images)[0], images.shape[1], images.shape[-1]
    draw_seed, noise_seed = tf.unstack(tf.random.split(seed))
    mirror, right, down, growth, brightness, contrast, noise, saturation, hue = tf.unstack(
        # Every change has its column: switching one off leaves the others as they were.
        tf.random.stateless_uniform((count, 9), draw_seed, -1.0, 1.0),
        axis=1,
    )

    axes = colours = levels = grain = None
    if config.flip or config.shift or config.scale:
        mirror = tf.where(mirror < 0, -1.0, 1.0) if config.flip else tf.ones_like(mirror)
        sides = tf.stack([mirror, tf.ones_like(mirror)], axis=1)
        factor = sides * (1 + config.scale * growth)[:, tf.newaxis]
        shift = config.shift * tf.stack([right, down], axis=1)
        stays = _loses_boxes(boxes, factor, shift)[:, tf.newaxis]
        factor, shift = tf.where(stays, sides, factor), tf.where(stays, 0.0, shift)
        boxes = tf.clip_by_value(_move_boxes(boxes, factor, shift), 0, 1)
        axes = [_source_pixels(factor[:, axis], shift[:, axis], size) for axis in (0, 1)]
    if channels == 3 and (config.saturation or config.hue):
        colours = _colour_matrices(1 + config.saturation * saturation, 2 * math.pi * config.hue * hue)
    if config.brightness or config.contrast:
        gain, offset = 1 + config.contrast * contrast, 255 * config.brightness * brightness
        if config.contrast:
            offset += (1 - gain) * tf.reduce_mean(tf.cast(images, tf.float32), axis=(1, 2, 3))
        levels = gain, offset
    if config.noise:
        seeds = tf.random.stateless_uniform((count,), noise_seed, None, None, tf.uint32)
        grain = seeds, 255 * config.noise * (noise + 1) / 2
    return {**batch, "image": _render(images, axes, colours, levels, grain), "boxes": boxes}


def _move_boxes(boxes: Any, factor: Any, shift: Any) -> Any:
    """Boxes (batch, classes, 4) after scaling about the middle and a shift, by axis: both (batch, 2)."""
    corners = tf.reshape(boxes, (-1, boxes.shape[1], 2, 2)) - 0.5
    corners = corners * factor[:, tf.newaxis, tf.newaxis] + 0.5 + shift[:, tf.newaxis, tf.newaxis]
    # A mirrored box's left corner has become its right one.
    moved = tf.concat([tf.reduce_min(corners, axis=2), tf.reduce_max(corners, axis=2)], axis=-1)
    return tf.where(_present(boxes)[..., tf.newaxis], moved, 0.0)


def _loses_boxes(boxes: Any, factor: Any, shift: Any) -> Any:
    """Whether a box of the image would keep too little of itself: (batch,) booleans."""
    moved = _move_boxes(boxes, factor, shift)
    visible = _areas(tf.clip_by_value(moved, 0, 1))
    return tf.reduce_any(visible < SMALLEST_VISIBLE_SHARE * _areas(moved), axis=1)


def _areas(boxes: Any) -> Any:
    return tf.reduce_prod(boxes[..., 2:] - boxes[..., :2], axis=-1)


def _present(boxes: Any) -> Any:
    return tf.reduce_any(boxes > 0, axis=-1)


def _source_pixels(factor: Any, shift: Any, size: int) -> tuple[Any, Any, Any, Any]:
    """Which two pixels of an axis each new pixel lies between.

    Returns:
        The index and the weight of the lower one, and of the upper one, (batch, size) each. A pixel outside
        of the image has the weight 0.
    """
    half = size / 2
    target = tf.range(size, dtype=tf.float32)[tf.newaxis] + 0.5 - half
    source = (target - size * shift[:, tf.newaxis]) / factor[:, tf.newaxis] + half - 0.5
    lower = tf.floor(source)
    part = source - lower

    def neighbour(position: Any, weight: Any) -> tuple[Any, Any]:
        inside = (position >= 0) & (position < size)
        index = tf.cast(tf.clip_by_value(position, 0, size - 1), tf.int32)
        return index, tf.where(inside, weight, 0.0)

    return *neighbour(lower, 1 - part), *neighbour(lower + 1, part)


def _colour_matrices(saturation: Any, angle: Any) -> Any:
    """Matrices (batch, 3, 3) that change saturation and hue of RGB row vectors and leave grey as it is."""
    to_yiq = tf.image.rgb_to_yiq(tf.eye(3))
    zero, one = tf.zeros_like(angle), tf.ones_like(angle)
    cosine, sine = saturation * tf.cos(angle), saturation * tf.sin(angle)
    turn = tf.stack([one, zero, zero, zero, cosine, sine, zero, -sine, cosine], axis=1)
    return to_yiq @ tf.reshape(turn, (-1, 3, 3)) @ tf.linalg.inv(to_yiq)


# XLA makes one loop over the pixels of what would be dozens of passes through memory.
@tf.function(jit_compile=True, autograph=False)
def _render(images: Any, axes: Any, colours: Any, levels: Any, grain: Any) -> Any:
    """Changes images (batch, size, size, channels). What is None is left out.

    Args:
        images: uint8.
        axes: What `_source_pixels` says of x and of y.
        colours: Matrices (batch, 3, 3) for the pixels' RGB.
        levels: Factor and summand of each image's grey levels, both (batch,).
        grain: Seed (uint32) and standard deviation of each image's noise, both (batch,).
    """
    count, size, channels = tf.shape(images)[0], images.shape[1], images.shape[-1]
    result = tf.cast(images, tf.float32)
    if axes is not None:
        result = _resample(images, *axes)
    if colours is not None:
        result = tf.reshape(tf.reshape(result, (count, size * size, 3)) @ colours, tf.shape(images))
    if levels is not None:
        gain, offset = levels
        result = result * _per_image(gain) + _per_image(offset)
    if grain is not None:
        seeds, deviation = grain
        result += tf.reshape(_noise(seeds, size * size), (count, size, size, 1)) * _per_image(deviation)
    return tf.ensure_shape(tf.clip_by_value(result, 0, 255), (None, size, size, channels))


def _per_image(values: Any) -> Any:
    return tf.reshape(values, (-1, 1, 1, 1))


def _resample(images: Any, x: Any, y: Any) -> Any:
    """Bilinear interpolation, along the rows and then along the columns."""
    count, size, channels = tf.shape(images)[0], images.shape[1], images.shape[-1]
    pixels = tf.reshape(images, (count * size * size, channels))
    row_starts = tf.reshape(tf.range(count * size) * size, (count, size, 1))

    def column(index: Any, weight: Any) -> Any:
        taken = tf.gather(pixels, row_starts + index[:, tf.newaxis])
        return tf.cast(taken, tf.float32) * weight[:, tf.newaxis, :, tf.newaxis]

    rows = tf.reshape(column(*x[:2]) + column(*x[2:]), (count * size, size * channels))
    image_starts = tf.reshape(tf.range(count) * size, (count, 1))

    def row(index: Any, weight: Any) -> Any:
        return tf.gather(rows, image_starts + index) * weight[..., tf.newaxis]

    return tf.reshape(row(*y[:2]) + row(*y[2:]), (count, size, size, channels))


def _noise(seeds: Any, pixels: int) -> Any:
    """Nearly normal noise of mean 0 and deviation 1, (batch, pixels), from a seed (uint32) for each image.

    TensorFlow's normals cost more than all the rest of the pipeline. Here a pixel's number and its image's
    seed are hashed by MurmurHash3's finalizer to 32 fair bits: how many of 24 of them are 1 is a binomial,
    the other 8 spread it evenly up to the next whole number. Its excess kurtosis is -0.08.
    """
    numbers = tf.bitcast(tf.range(pixels), tf.uint32) * _uint32(0x9E3779B9)
    bits = numbers[tf.newaxis] + seeds[:, tf.newaxis]
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        bits = tf.bitwise.bitwise_xor(bits, tf.bitwise.right_shift(bits, _uint32(shift))) * _uint32(factor)
    bits = tf.bitwise.bitwise_xor(bits, tf.bitwise.right_shift(bits, _uint32(16)))
    ones = tf.raw_ops.PopulationCount(x=tf.bitwise.right_shift(bits, _uint32(8)))
    part = tf.cast(tf.bitcast(tf.bitwise.bitwise_and(bits, _uint32(255)), tf.int32), tf.float32) / 256
    variance = 24 / 4 + (1 - 1 / 256**2) / 12
    return (tf.cast(ones, tf.float32) + part - 12 - 255 / 512) / math.sqrt(variance)


def _uint32(value: int) -> Any:
    return tf.constant(value, tf.uint32)
