"""Random augmentation of a batch of training images and their boxes, independently per image.

All randomness comes from a seed: the same seed gives the same augmentation.
"""

import math
from typing import Any

import tensorflow as tf

from brain_tumor.boxes.measures import area, present
from brain_tumor.config import AugmentationConfig

# An image is not shifted, scaled or rotated if one of its boxes would keep less than this fraction of its
# area.
SMALLEST_VISIBLE_SHARE = 0.5


def augment(batch: dict[str, Any], config: AugmentationConfig, seed: Any) -> dict[str, Any]:
    """Augments the images of a batch and their boxes, independently per image.

    A rotated box becomes the bounding box of its four corners. Boxes are clipped to the image. If a box would
    keep less than half of its area, its image is only mirrored, so that a present label always has a visible
    box. Areas from outside the image are black, like the letterbox's padding.

    Args:
        batch: `image` uint8 (batch, size, size, 1 or 3); `boxes` (batch, num_classes, 4), normalized.
        config: The ranges of the augmentation.
        seed: An integer tensor (2,); the same seed gives the same augmentation.

    Returns:
        The batch with augmented `image` (uint8) and `boxes`.
    """
    images, boxes = batch["image"], batch["boxes"]
    shape = images.shape
    # Each change has its own column: switching one off does not alter the others.
    draws = tf.unstack(tf.random.stateless_uniform((tf.shape(images)[0], 9), seed, -1.0, 1.0), axis=1)
    flip, flip_vertical, right, down, growth, turn, brightness, contrast, gamma = draws

    images = tf.cast(images, tf.float32)
    if config.flip or config.flip_vertical or config.shift or config.scale or config.rotation:
        mirror = [_mirror(flip, config.flip), _mirror(flip_vertical, config.flip_vertical)]
        factor, angle = 1 + config.scale * growth, math.radians(config.rotation) * turn
        matrices, shift = _matrices(mirror, factor, angle), config.shift * tf.stack([right, down], axis=1)
        stays = _loses_boxes(boxes, matrices, shift)[:, tf.newaxis]
        mirrored = _matrices(mirror, tf.ones_like(factor), tf.zeros_like(angle))
        matrices = tf.where(stays[..., tf.newaxis], mirrored, matrices)
        shift = tf.where(stays, 0.0, shift)
        boxes = tf.clip_by_value(_move_boxes(boxes, matrices, shift), 0, 1)
        images = _resample(images, matrices, shift)
    if config.brightness or config.contrast or config.gamma:
        gain, offset = 1 + config.contrast * contrast, 255 * config.brightness * brightness
        images = _recolor(images, tf.exp(config.gamma * gamma), gain, offset)
    else:
        images = _to_bytes(images)
    return {**batch, "image": tf.ensure_shape(images, shape), "boxes": boxes}


def _mirror(draw: Any, wanted: bool) -> Any:
    """-1 for half of the images at random, if mirroring is on, otherwise 1: (batch,)."""
    return tf.where(draw < 0, -1.0, 1.0) if wanted else tf.ones_like(draw)


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


def _loses_boxes(boxes: Any, matrices: Any, shift: Any) -> Any:
    """Whether a box of the image would keep too little of its area: (batch,) booleans."""
    moved = _move_boxes(boxes, matrices, shift)
    visible = area(tf.clip_by_value(moved, 0, 1), tf)
    return tf.reduce_any(visible < SMALLEST_VISIBLE_SHARE * area(moved, tf), axis=1)


def _resample(images: Any, matrices: Any, shift: Any) -> Any:
    """Moves images (batch, size, size, channels), float32, in the same way as `_move_boxes`."""
    size = images.shape[1]
    inverse = tf.linalg.inv(matrices)
    # The source of the center of pixel 0, in pixels.
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


# XLA fuses dozens of passes through memory into one loop over the pixels.
@tf.function(jit_compile=True, autograph=False)
def _recolor(images: Any, exponent: Any, gain: Any, offset: Any) -> Any:
    """Changes the grey levels of images (batch, size, size, channels), float32, 0..255.

    Args:
        images: The images.
        exponent: The gamma exponent of the levels as fractions of 255, (batch,).
        gain: The contrast: the factor of the distance from the image's mean, (batch,).
        offset: The brightness that is added last, (batch,).

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
