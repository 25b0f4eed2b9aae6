"""Random augmentation of a batch of training images and their boxes, independently per image.

All randomness comes from a seed: the same seed gives the same augmentation.
"""

import math
from typing import Any

import tensorflow as tf

from brain_tumor.boxes.measures import area, present
from brain_tumor.config import AugmentationConfig

# An image is not shifted, scaled or rotated if a box would keep less than this fraction of its area.
MIN_VISIBLE_FRACTION = 0.5


def augment(batch: dict[str, Any], config: AugmentationConfig, seed: Any) -> dict[str, Any]:
    """Augments the images of a batch and their boxes, independently per image.

    A rotated box becomes the bounding box of its four corners. Boxes are clipped to the image. If a box would
    keep less than half of its area, its image is only mirrored, so that a present label always has a visible
    box. Areas outside the original image are black, like the letterbox's padding.

    Args:
        batch: `image` uint8 (batch, size, size, 1 or 3); `boxes` (batch, num_classes, 4), normalized to 0..1.
        config: The ranges of the augmentation.
        seed: An integer tensor (2,); the same seed gives the same augmentation.

    Returns:
        The batch with augmented `image` (uint8) and `boxes`.
    """
    images, boxes = batch["image"], batch["boxes"]
    shape = images.shape
    # Each transformation has its own random column: switching one off does not change the others.
    draws = tf.unstack(tf.random.stateless_uniform((tf.shape(images)[0], 9), seed, -1.0, 1.0), axis=1)
    flip, flip_vertical, shift_x, shift_y, scale, rotation, brightness, contrast, gamma = draws

    images = tf.cast(images, tf.float32)
    if config.flip or config.flip_vertical or config.shift or config.scale or config.rotation:
        mirror = [_mirror(flip, config.flip), _mirror(flip_vertical, config.flip_vertical)]
        factor, angle = 1 + config.scale * scale, math.radians(config.rotation) * rotation
        matrices = _matrices(mirror, factor, angle)
        shift = config.shift * tf.stack([shift_x, shift_y], axis=1)
        cut_off = _cuts_off_boxes(boxes, matrices, shift)[:, tf.newaxis]
        mirrored = _matrices(mirror, tf.ones_like(factor), tf.zeros_like(angle))
        matrices = tf.where(cut_off[..., tf.newaxis], mirrored, matrices)
        shift = tf.where(cut_off, 0.0, shift)
        boxes = tf.clip_by_value(_move_boxes(boxes, matrices, shift), 0, 1)
        images = _resample(images, matrices, shift)
    if config.brightness or config.contrast or config.gamma:
        gain, offset = 1 + config.contrast * contrast, 255 * config.brightness * brightness
        images = _adjust_intensity(images, tf.exp(config.gamma * gamma), gain, offset)
    else:
        images = _to_bytes(images)
    return {**batch, "image": tf.ensure_shape(images, shape), "boxes": boxes}


def _mirror(draw: Any, enabled: bool) -> Any:
    """-1 for a random half of the images if enabled, otherwise 1: (batch,)."""
    return tf.where(draw < 0, -1.0, 1.0) if enabled else tf.ones_like(draw)


def _matrices(mirror: list[Any], factor: Any, angle: Any) -> Any:
    """Matrices (batch, 2, 2) that mirror, scale and then rotate column vectors (x, y)."""
    cosine, sine = factor * tf.cos(angle), factor * tf.sin(angle)
    x, y = mirror
    return tf.stack(
        [tf.stack([x * cosine, -y * sine], axis=1), tf.stack([x * sine, y * cosine], axis=1)], axis=1
    )


def _move_boxes(boxes: Any, matrices: Any, shift: Any) -> Any:
    """Applies a matrix about the center (batch, 2, 2) and a shift (batch, 2) to boxes (batch, classes, 4)."""
    xmin, ymin, xmax, ymax = tf.unstack(boxes - 0.5, axis=-1)
    # (batch, 2, classes * 4): x and y of all corners
    corners = tf.stack(
        [tf.concat([xmin, xmax, xmin, xmax], axis=1), tf.concat([ymin, ymin, ymax, ymax], axis=1)], axis=1
    )
    moved = matrices @ corners + shift[:, :, tf.newaxis] + 0.5
    moved = tf.reshape(moved, (-1, 2, 4, boxes.shape[1]))
    low, high = tf.reduce_min(moved, axis=2), tf.reduce_max(moved, axis=2)
    sides = tf.transpose(tf.concat([low, high], axis=1), (0, 2, 1))
    return tf.where(present(boxes)[..., tf.newaxis], sides, 0.0)


def _cuts_off_boxes(boxes: Any, matrices: Any, shift: Any) -> Any:
    """Whether a box of the image would keep too little of its area: (batch,) booleans."""
    moved = _move_boxes(boxes, matrices, shift)
    visible = area(tf.clip_by_value(moved, 0, 1), tf)
    return tf.reduce_any(visible < MIN_VISIBLE_FRACTION * area(moved, tf), axis=1)


def _resample(images: Any, matrices: Any, shift: Any) -> Any:
    """Transforms images (batch, size, size, channels), float32, as `_move_boxes` does boxes."""
    size = images.shape[1]
    inverse = tf.linalg.inv(matrices)
    # Where the center of pixel 0 comes from, in pixels.
    middle = (size - 1) / 2
    offset = middle - tf.linalg.matvec(inverse, middle + size * shift)
    rows = tf.concat([inverse, offset[:, :, tf.newaxis]], axis=2)
    transforms = tf.concat([tf.reshape(rows, (-1, 6)), tf.zeros_like(offset)], axis=1)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=transforms,
        output_shape=(size, size),
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )


# XLA fuses dozens of elementwise operations into one loop over the pixels.
@tf.function(jit_compile=True, autograph=False)
def _adjust_intensity(images: Any, exponent: Any, gain: Any, offset: Any) -> Any:
    """Applies gamma, contrast and brightness to images (batch, size, size, channels), float32, 0..255.

    Args:
        images: The images.
        exponent: The gamma of intensities as fractions of 255, (batch,).
        gain: The contrast factor about the image's mean, (batch,).
        offset: The brightness to add, in grey levels, (batch,).

    Returns:
        uint8, of the same shape.
    """
    images = 255 * tf.pow(tf.clip_by_value(images / 255, 0, 1), _per_image(exponent))
    mean = tf.reduce_mean(images, axis=(1, 2, 3), keepdims=True)
    images = mean + (images - mean) * _per_image(gain) + _per_image(offset)
    return _to_bytes(images)


def _per_image(values: Any) -> Any:
    return tf.reshape(values, (-1, 1, 1, 1))


def _to_bytes(images: Any) -> Any:
    return tf.cast(tf.clip_by_value(images, 0, 255) + 0.5, tf.uint8)
