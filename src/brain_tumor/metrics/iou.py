"""Intersection over union of boxes in class slots."""

from typing import Any

import keras
from keras import ops


def present(boxes: Any) -> Any:
    """Which slots of true boxes (..., 4) hold a box: booleans (...). An absent class is a row of zeros."""
    return ops.any(boxes > 0, axis=-1)


def box_iou(a: Any, b: Any) -> Any:
    """Intersection over union of two tensors of boxes (..., 4), pair by pair: (...), 0..1."""
    sides = ops.minimum(a[..., 2:], b[..., 2:]) - ops.maximum(a[..., :2], b[..., :2])
    intersection = ops.prod(ops.maximum(sides, 0), axis=-1)
    union = _area(a) + _area(b) - intersection
    return intersection / ops.maximum(union, keras.config.epsilon())


def _area(boxes: Any) -> Any:
    return ops.prod(ops.maximum(boxes[..., 2:] - boxes[..., :2], 0), axis=-1)


@keras.saving.register_keras_serializable("brain_tumor")
class BoxIoU(keras.metrics.Metric):
    """Mean IoU over the true boxes of present classes: every true box counts once, whatever its batch.

    Shapes as in the box losses: (batch, num_classes, 4).
    """

    def __init__(self, name: str = "iou", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.total = self.add_weight(name="total", initializer="zeros")
        self.count = self.add_weight(name="count", initializer="zeros")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        y_true = ops.cast(y_true, y_pred.dtype)
        mask = ops.cast(present(y_true), self.dtype)
        self.total.assign_add(ops.sum(ops.cast(box_iou(y_true, y_pred), self.dtype) * mask))
        self.count.assign_add(ops.sum(mask))

    def result(self) -> Any:
        return self.total / ops.maximum(self.count, 1)
