"""The box losses: 1 - IoU, with penalties for boxes that do not overlap."""

import math
from typing import Any

import keras
from keras import ops
from typing_extensions import override

from brain_tumor.boxes import measures


class BoxLoss(keras.losses.Loss):
    """A loss over the boxes of present classes; subclasses define `cost`, the loss of a pair of boxes.

    Shapes: true and predicted boxes (batch, num_classes, 4), `[xmin, ymin, xmax, ymax]`, normalized to 0..1;
    an absent class is zeros in the truth. Value and gradient are finite for all boxes, including those
    without size or with swapped corners, whose area is 0.

    Args:
        reduction: `sum_over_batch_size` gives the mean over the batch's true boxes, whatever the number of
            empty slots; 0 for a batch without boxes. `sum` gives their sum. If several devices share a batch,
            use `sum` with a `sample_weight` per image of one over the number of boxes in the whole batch.
    """

    def cost(self, y_true: Any, y_pred: Any) -> Any:
        """The loss of each pair of boxes: (batch, num_classes)."""
        raise NotImplementedError

    @override
    def call(self, y_true: Any, y_pred: Any) -> Any:
        mask = ops.cast(measures.present(y_true), y_pred.dtype)
        losses = ops.sum(self.cost(y_true, y_pred) * mask, axis=-1)
        if self.reduction == "sum":
            return losses
        # Keras computes the mean over images; divided by the mean number of boxes, it is the mean over boxes.
        return ops.divide_no_nan(losses, ops.mean(ops.sum(mask, axis=-1)))


@keras.saving.register_keras_serializable("brain_tumor")
class IoULoss(BoxLoss):
    """1 - IoU: 0..1, with zero gradient if boxes do not overlap."""

    @override
    def cost(self, y_true: Any, y_pred: Any) -> Any:
        return 1 - measures.iou(y_true, y_pred, ops)


@keras.saving.register_keras_serializable("brain_tumor")
class GIoULoss(BoxLoss):
    """1 - IoU, plus the fraction of the smallest enclosing box that neither box covers: 0..2.

    Reference: Rezatofighi et al., 2019, https://arxiv.org/abs/1902.09630.
    """

    @override
    def cost(self, y_true: Any, y_pred: Any) -> Any:
        iou, union = measures.overlap(y_true, y_pred, ops)
        area = measures.area(_hull(y_true, y_pred), ops)
        return 1 - iou + (area - union) / ops.maximum(area, keras.config.epsilon())


@keras.saving.register_keras_serializable("brain_tumor")
class DIoULoss(BoxLoss):
    """1 - IoU, plus the squared distance of the centers over that of the hull's diagonal: 0..2.

    The hull is the smallest enclosing box. Reference: Zheng et al., 2020, https://arxiv.org/abs/1911.08287.
    """

    @override
    def cost(self, y_true: Any, y_pred: Any) -> Any:
        return 1 - measures.iou(y_true, y_pred, ops) + _center_distance(y_true, y_pred)


@keras.saving.register_keras_serializable("brain_tumor")
class CIoULoss(BoxLoss):
    """The DIoU loss, plus the difference of the aspect ratios, weighted by the overlap: 0..3.

    Aspect ratios are compared as angles; a box without size is treated as a square. The weight has no
    gradient, as in the reference: Zheng et al., 2020, https://arxiv.org/abs/1911.08287.
    """

    @override
    def cost(self, y_true: Any, y_pred: Any) -> Any:
        iou = measures.iou(y_true, y_pred, ops)
        difference = ops.square(2 / math.pi * (_aspect_angle(y_true) - _aspect_angle(y_pred)))
        weight = ops.stop_gradient(difference / ops.maximum(1 - iou + difference, keras.config.epsilon()))
        return 1 - iou + _center_distance(y_true, y_pred) + weight * difference


BOX_LOSSES = {"iou": IoULoss, "giou": GIoULoss, "diou": DIoULoss, "ciou": CIoULoss}


def _hull(a: Any, b: Any) -> Any:
    """The smallest enclosing boxes of pairs of boxes (..., 4), also with swapped corners."""
    # Pairwise, since under XLA the gradient of a minimum over an axis is NaN if values are equal.
    first, second = (ops.minimum(box[..., :2], box[..., 2:]) for box in (a, b))
    third, fourth = (ops.maximum(box[..., :2], box[..., 2:]) for box in (a, b))
    return ops.concatenate([ops.minimum(first, second), ops.maximum(third, fourth)], axis=-1)


def _center_distance(a: Any, b: Any) -> Any:
    """Squared distance of the centers over the squared diagonal of the hull: 0..1."""
    hull = _hull(a, b)
    diagonal = ops.sum(ops.square(hull[..., 2:] - hull[..., :2]), axis=-1)
    # Subtracting before summing corners keeps the precision that small boxes need.
    distance = ops.sum(ops.square((a[..., :2] - b[..., :2]) + (a[..., 2:] - b[..., 2:])), axis=-1) / 4
    return distance / ops.maximum(diagonal, keras.config.epsilon())


def _aspect_angle(boxes: Any) -> Any:
    """The arctangent of width over height: 0..pi / 2."""
    sides = ops.maximum(boxes[..., 2:] - boxes[..., :2], keras.config.epsilon())
    return ops.arctan2(sides[..., 0], sides[..., 1])
