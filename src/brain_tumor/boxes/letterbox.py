"""Letterboxing of images and boxes, and the inverse.

A box is `[xmin, ymin, xmax, ymax]`. In a file it is in pixels of its image, xmax and ymax exclusive; in a
tensor it is normalized to 0..1 of the tensor's image.

The functions use only arithmetic that numbers, NumPy arrays and TensorFlow tensors support, so that the input
pipeline and the evaluation use the same code.
"""

from typing import Any

import numpy as np


def letterbox(height: Any, width: Any, size: int) -> tuple[Any, Any, Any, Any]:
    """The placement of a letterboxed image in its square: resized to fit, centered.

    Args:
        height: Height of the original image in pixels: an int, or an integer array or tensor.
        width: Its width, of the same type.
        size: Side of the square, in pixels.

    Returns:
        `(top, left, new_height, new_width)`: position and size of the resized image in the square, in pixels.
    """
    longest = (height + width + abs(height - width)) // 2  # max(height, width), for numbers and tensors
    new_height = _at_least_one((2 * height * size + longest) // (2 * longest))
    new_width = _at_least_one((2 * width * size + longest) // (2 * longest))
    return (size - new_height) // 2, (size - new_width) // 2, new_height, new_width


def _at_least_one(pixels: Any) -> Any:
    return (pixels + 1 + abs(pixels - 1)) // 2  # max(pixels, 1), for numbers and tensors


def box_to_letterbox(box: Any, placement: Any, size: int) -> tuple[Any, Any, Any, Any]:
    """Converts a box of the original image to the letterboxed square.

    Args:
        box: Four values or arrays `(xmin, ymin, xmax, ymax)`, normalized to 0..1 of the original image.
        placement: The result of `letterbox`. TensorFlow needs it cast to the box's type.
        size: Side of the square, in pixels.

    Returns:
        The four coordinates normalized to 0..1 of the square.
    """
    top, left, new_height, new_width = placement
    xmin, ymin, xmax, ymax = box
    return (
        (xmin * new_width + left) / size,
        (ymin * new_height + top) / size,
        (xmax * new_width + left) / size,
        (ymax * new_height + top) / size,
    )


def box_from_letterbox(box: Any, height: Any, width: Any, size: int) -> tuple[Any, Any, Any, Any]:
    """Converts a box of the letterboxed square to the original image: the inverse of `box_to_letterbox`.

    Args:
        box: Four values or arrays `(xmin, ymin, xmax, ymax)`, normalized to 0..1 of the square.
        height: Height of the original image in pixels.
        width: Its width.
        size: Side of the square, in pixels.

    Returns:
        The four coordinates in pixels of the original image. They are outside the image for a box on the
        padding.
    """
    top, left, new_height, new_width = letterbox(height, width, size)
    xmin, ymin, xmax, ymax = box
    return (
        (xmin * size - left) / new_width * width,
        (ymin * size - top) / new_height * height,
        (xmax * size - left) / new_width * width,
        (ymax * size - top) / new_height * height,
    )


def boxes_in_pixels(boxes: np.ndarray, height: np.ndarray, width: np.ndarray, size: int) -> np.ndarray:
    """Converts boxes of the letterboxed square to pixels of the original images, clipped to these.

    Args:
        boxes: (n, 4), normalized to 0..1 of the square.
        height: The height of each box's original image, in pixels (n,).
        width: Its width, in pixels (n,).
        size: Side of the square, in pixels.

    Returns:
        (n, 4), float64.
    """
    moved = np.stack(box_from_letterbox(boxes.astype(np.float64).T, height, width, size), axis=1)
    # The padding is not part of the image.
    clipped: np.ndarray = np.clip(moved, 0, np.stack([width, height] * 2, axis=1))
    return clipped
