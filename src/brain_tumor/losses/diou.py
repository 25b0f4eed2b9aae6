"""The box loss."""

from typing import Any

import keras
from keras import ops

from brain_tumor.metrics.iou import box_iou, present


@keras.saving.register_keras_serializable("brain_tumor")
class DIoULoss(keras.losses.Loss):
    """1 - IoU, plus the distance of the centers, over the boxes of present classes.

    The squared distance of the two centers, relative to the squared diagonal of the smallest box around both,
    gives a gradient where boxes do not overlap and 1 - IoU alone is flat (Zheng et al., 2020,
    https://arxiv.org/abs/1911.08287).

    Shapes: true and predicted boxes (batch, num_classes, 4), `[xmin, ymin, xmax, ymax]`; an absent class has
    a row of zeros in the truth. The loss is a scalar: the sum over present boxes divided by their number, so
    it does not depend on how many slots are empty; a batch without any box has loss 0.
    """

    def __init__(self, name: str = "diou", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        y_true = ops.cast(y_true, y_pred.dtype)
        mask = ops.cast(present(y_true), y_pred.dtype)
        distance = ops.sum(ops.square(_center(y_true) - _center(y_pred)), axis=-1)
        enclosing = ops.maximum(y_true[..., 2:], y_pred[..., 2:]) - ops.minimum(
            y_true[..., :2], y_pred[..., :2]
        )
        diagonal = ops.sum(ops.square(enclosing), axis=-1)
        loss = 1 - box_iou(y_true, y_pred) + distance / ops.maximum(diagonal, keras.config.epsilon())
        return ops.sum(loss * mask) / ops.maximum(ops.sum(mask), 1)


def _center(boxes: Any) -> Any:
    return (boxes[..., :2] + boxes[..., 2:]) / 2
