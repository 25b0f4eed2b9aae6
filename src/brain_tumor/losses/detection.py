"""The loss of the dense box head, and the assignment of positions to boxes."""

from typing import Any

import keras
from keras import ops
from typing_extensions import override

from brain_tumor.boxes import measures
from brain_tumor.losses.iou import BOX_LOSSES
from brain_tumor.model.dense_head import cell_centers

# A position is assigned to a box if it is less than this many cells from its center.
RADIUS = 1.5
# The maximum number of positions per box: 3 x 3.
MAX_POSITIVES = 9


def assign_positions(boxes: Any, centers: Any) -> Any:
    """Assigns positions to boxes by center sampling.

    A position is assigned to a box if it is inside it and less than 1.5 cells from its center in x and y, as
    in FCOS (Tian et al., 2020, https://arxiv.org/abs/2006.09214). The cell that contains the center is always
    assigned, so that a box smaller than a cell has a position too.

    Args:
        boxes: (batch, num_classes, 4), normalized to 0..1, zeros for absent classes.
        centers: The centers of the cells, (rows, columns, 2), x before y.

    Returns:
        Booleans (batch, rows, columns, num_classes).
    """
    rows, columns = centers.shape[:2]
    cells = ops.convert_to_tensor([columns, rows], dtype=boxes.dtype)
    boxes = boxes[:, None, None]
    centers = ops.cast(centers, boxes.dtype)[None, :, :, None]
    box_center = (boxes[..., :2] + boxes[..., 2:]) / 2
    near = ops.abs(centers - box_center) * cells < RADIUS
    inside = ops.logical_and(centers > boxes[..., :2], centers < boxes[..., 2:])
    # Clipped, since the center of a box without width or height may be on the image's edge.
    same_cell = ops.floor(centers * cells) == ops.floor(ops.clip(box_center, 0, 1 - 1e-6) * cells)
    assigned = ops.logical_or(ops.all(ops.logical_and(near, inside), axis=-1), ops.all(same_cell, axis=-1))
    return ops.logical_and(assigned, measures.present(boxes))


def quality_focal_loss(quality: Any, logits: Any) -> Any:
    """Cross-entropy with a target between 0 and 1, weighted by the squared error.

    The many easy negatives thus have almost no weight. Reference: Li et al., 2020,
    https://arxiv.org/abs/2006.04388.

    Args:
        quality: The targets, 0..1, of any shape.
        logits: The predictions, of the same shape.

    Returns:
        The elementwise losses, of the same shape.
    """
    error = quality - ops.sigmoid(logits)
    return ops.square(error) * (ops.softplus(logits) - quality * logits)


@keras.saving.register_keras_serializable("brain_tumor")
class DetectionLoss(keras.losses.Loss):
    """The box loss of the assigned positions, plus the score loss of all positions.

    A true box's loss is the mean over its positions. A score's loss is the quality focal loss; its target is
    the IoU of the predicted box with the true one, or 0 at positions without a box, so that the best box gets
    the highest score. Both are per true box: the sum of the score losses over all positions is divided by
    nine, the maximum number of positions per box.

    Shapes: truth (batch, num_classes, 4), `[xmin, ymin, xmax, ymax]`, normalized to 0..1, zeros for
        absent classes; predictions (batch, rows, columns, num_classes, 5), see
        `brain_tumor.model.dense_head.BoxDecoder`.

    Args:
        box_loss: A key of `BOX_LOSSES`.
        box_weight: Weight of the box loss.
        score_weight: Weight of the score loss.
        reduction: `sum_over_batch_size` gives the mean over the batch's true boxes; a batch without any is
            divided by 1. `sum` as in `BoxLoss`.
    """

    def __init__(
        self,
        box_loss: str = "ciou",
        box_weight: float = 4.0,
        score_weight: float = 2.0,
        reduction: str = "sum_over_batch_size",
        name: str | None = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction)
        self.box_loss = box_loss
        self.box_weight = float(box_weight)
        self.score_weight = float(score_weight)

    @override
    def call(self, y_true: Any, y_pred: Any) -> Any:
        y_true = ops.cast(y_true, y_pred.dtype)
        centers = cell_centers(*y_pred.shape[1:3])
        positive = ops.cast(assign_positions(y_true, centers), y_pred.dtype)
        truth, boxes = y_true[:, None, None], y_pred[..., :4]
        cost = BOX_LOSSES[self.box_loss]().cost(truth, boxes)
        count = ops.sum(positive, axis=(1, 2))
        box_losses = ops.sum(cost * positive, axis=(1, 2)) / ops.maximum(count, 1)
        quality = ops.stop_gradient(measures.iou(truth, boxes, ops)) * positive
        score_losses = ops.sum(quality_focal_loss(quality, y_pred[..., 4]), axis=(1, 2)) / MAX_POSITIVES
        losses = ops.sum(self.box_weight * box_losses + self.score_weight * score_losses, axis=-1)
        if self.reduction == "sum":
            return losses
        present = ops.cast(measures.present(y_true), y_pred.dtype)
        images = ops.cast(ops.shape(y_true)[0], y_pred.dtype)
        # Keras computes the mean over images.
        return losses * images / ops.maximum(ops.sum(present), 1)

    @override
    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "box_loss": self.box_loss,
            "box_weight": self.box_weight,
            "score_weight": self.score_weight,
        }
