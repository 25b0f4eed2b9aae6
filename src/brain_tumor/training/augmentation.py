"""Random changes of a batch of training images, each image in its own way, and its boxes with it.

All that is random follows from a seed, so that the same seed gives the same changes.
"""

import math
from typing import Any

import tensorflow as tf

from brain_tumor.boxes.measures import area, present
from brain_tumor.config import AugmentationConfig

# An image is neither shifted nor scaled where one of its boxes would keep less than this share of its area.
SMALLEST_VISIBLE_SHARE = 0.5


def augment(batch: dict[str, Any], config: AugmentationConfig, seed: Any) -> dict[str, Any]:
    """Changes the images of a batch, each in its own way, and their boxes with them.

    Boxes are clipped to the image. Where one would keep less than half of its area, its image is neither
    shifted nor scaled: a label that is present always has a box that can be seen. What comes into view from
    outside is black, as the letterbox's padding is. Noise is the same in all channels, so that a grey image
    stays grey.

    Args:
        batch: `image` uint8 (batch, size, size, 1 or 3); `boxes` (batch, num_classes, 4), normalized.
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

    axes = colors = levels = grain = None
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
        colors = _color_matrices(1 + config.saturation * saturation, 2 * math.pi * config.hue * hue)
    if config.brightness or config.contrast:
        gain, offset = 1 + config.contrast * contrast, 255 * config.brightness * brightness
        if config.contrast:
            offset += (1 - gain) * tf.reduce_mean(tf.cast(images, tf.float32), axis=(1, 2, 3))
        levels = gain, offset
    if config.noise:
        seeds = tf.random.stateless_uniform((count,), noise_seed, None, None, tf.uint32)
        grain = seeds, 255 * config.noise * (noise + 1) / 2
    return {**batch, "image": _render(images, axes, colors, levels, grain), "boxes": boxes}


def _move_boxes(boxes: Any, factor: Any, shift: Any) -> Any:
    """Boxes (batch, classes, 4) after scaling about the middle and a shift, by axis: both (batch, 2)."""
    corners = tf.reshape(boxes, (-1, boxes.shape[1], 2, 2)) - 0.5
    corners = corners * factor[:, tf.newaxis, tf.newaxis] + 0.5 + shift[:, tf.newaxis, tf.newaxis]
    # A mirrored box's left corner has become its right one.
    moved = tf.concat([tf.reduce_min(corners, axis=2), tf.reduce_max(corners, axis=2)], axis=-1)
    return tf.where(present(boxes)[..., tf.newaxis], moved, 0.0)


def _loses_boxes(boxes: Any, factor: Any, shift: Any) -> Any:
    """Whether a box of the image would keep too little of itself: (batch,) booleans."""
    moved = _move_boxes(boxes, factor, shift)
    visible = area(tf.clip_by_value(moved, 0, 1), tf)
    return tf.reduce_any(visible < SMALLEST_VISIBLE_SHARE * area(moved, tf), axis=1)


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

    def neighbor(position: Any, weight: Any) -> tuple[Any, Any]:
        inside = (position >= 0) & (position < size)
        index = tf.cast(tf.clip_by_value(position, 0, size - 1), tf.int32)
        return index, tf.where(inside, weight, 0.0)

    return *neighbor(lower, 1 - part), *neighbor(lower + 1, part)


def _color_matrices(saturation: Any, angle: Any) -> Any:
    """Matrices (batch, 3, 3) that change saturation and hue of RGB row vectors and leave grey as it is."""
    to_yiq = tf.image.rgb_to_yiq(tf.eye(3))
    zero, one = tf.zeros_like(angle), tf.ones_like(angle)
    cosine, sine = saturation * tf.cos(angle), saturation * tf.sin(angle)
    turn = tf.stack([one, zero, zero, zero, cosine, sine, zero, -sine, cosine], axis=1)
    return to_yiq @ tf.reshape(turn, (-1, 3, 3)) @ tf.linalg.inv(to_yiq)


# XLA makes one loop over the pixels of what would be dozens of passes through memory.
@tf.function(jit_compile=True, autograph=False)
def _render(images: Any, axes: Any, colors: Any, levels: Any, grain: Any) -> Any:
    """Changes images (batch, size, size, channels). What is None is left out.

    Args:
        images: uint8.
        axes: What `_source_pixels` says of x and of y.
        colors: Matrices (batch, 3, 3) for the pixels' RGB.
        levels: Factor and summand of each image's grey levels, both (batch,).
        grain: Seed (uint32) and standard deviation of each image's noise, both (batch,).
    """
    count, size, channels = tf.shape(images)[0], images.shape[1], images.shape[-1]
    result = tf.cast(images, tf.float32)
    if axes is not None:
        result = _resample(images, *axes)
    if colors is not None:
        result = tf.reshape(tf.reshape(result, (count, size * size, 3)) @ colors, tf.shape(images))
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
