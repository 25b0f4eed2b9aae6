"""Measures of boxes `[xmin, ymin, xmax, ymax]`: presence, area, overlap.

One definition for every array library: functions with the argument `xp` use that library, by default NumPy;
losses and metrics pass `keras.ops`, the augmentation TensorFlow.
"""

from typing import Any

import numpy as np

# Lower limit of a union, so that gradients are finite: far below a pixel, in pixels and in normalized units.
SMALLEST_UNION = 1e-7


def present(boxes: Any) -> Any:
    """Whether class slots (..., 4) hold a box: booleans (...). The slot of an absent class is all zeros."""
    positive = boxes > 0
    return positive[..., 0] | positive[..., 1] | positive[..., 2] | positive[..., 3]


def area(boxes: Any, xp: Any = np) -> Any:
    """The areas (...) of boxes (..., 4); 0 for one whose corners are swapped."""
    sides = xp.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    return sides[..., 0] * sides[..., 1]


def overlap(a: Any, b: Any, xp: Any = np) -> tuple[Any, Any]:
    """Intersection over union, 0..1, and the union's area of boxes (..., 4), pair by pair: two arrays (...).

    Two boxes without area have an IoU of 0.
    """
    low, high = xp.maximum(a[..., :2], b[..., :2]), xp.minimum(a[..., 2:], b[..., 2:])
    intersection = area(xp.concatenate([low, high], axis=-1), xp)
    union = area(a, xp) + area(b, xp) - intersection
    return intersection / xp.maximum(union, SMALLEST_UNION), union


def iou(a: Any, b: Any, xp: Any = np) -> Any:
    """Intersection over union of boxes (..., 4), pair by pair, 0..1: an array (...)."""
    return overlap(a, b, xp)[0]
