"""The loss of the dense box head, and which positions are assigned to a box."""

from typing import Any

import keras
from keras import ops
from typing_extensions import override

from brain_tumor.boxes import measures
from brain_tumor.losses.iou import BOX_LOSSES
from brain_tumor.model.dense_head import cell_centers

# A position is assigned to a box if it is less than this many cells from its center.
RADIUS = 1.5
# The number of positions of a large enough box: three by three.
MOST_POSITIVES = 9


def answering_positions(boxes: Any, places: Any) -> Any:
    """Assigns positions to boxes by center sampling.

    A position is assigned to a box if it is inside it and less than 1.5 cells from its center in x and y, as
    in FCOS (Tian et al., 2020, https://arxiv.org/abs/2006.09214). The cell that contains the center always
    is, so that a box smaller than a cell has one.

    Args:
        boxes: (batch, num_classes, 4), normalized to 0..1, an absent class a row of zeros.
        places: The centers of the cells, (rows, columns, 2), x before y.

    Returns:
        Booleans (batch, rows, columns, num_classes).
    """
    rows, columns = places.shape[:2]
    cells = ops.convert_to_tensor([columns, rows], dtype=boxes.dtype)
    boxes = boxes[:, None, None]
    places = ops.cast(places, boxes.dtype)[None, :, :, None]
    center = (boxes[..., :2] + boxes[..., 2:]) / 2
    near = ops.abs(places - center) * cells < RADIUS
    inside = ops.logical_and(places > boxes[..., :2], places < boxes[..., 2:])
    # The center of a box without width or height at the image's edge may be on that edge.
    own = ops.floor(places * cells) == ops.floor(ops.clip(center, 0, 1 - 1e-6) * cells)
    both = ops.all(ops.logical_and(near, inside), axis=-1)
    return ops.logical_and(ops.logical_or(both, ops.all(own, axis=-1)), measures.present(boxes))


def quality_focal_loss(quality: Any, logits: Any) -> Any:
    """Cross-entropy with a target between 0 and 1, weighted by the squared error.

    So the many easy negatives have almost no weight. Reference: Li et al., 2020,
    https://arxiv.org/abs/2006.04388.

    Args:
        quality: The targets, 0..1.
        logits: The predictions, of the same shape.

    Returns:
        The losses, of that shape.
    """
    distance = quality - ops.sigmoid(logits)
    return ops.square(distance) * (ops.softplus(logits) - quality * logits)


@keras.saving.register_keras_serializable("brain_tumor")
class DetectionLoss(keras.losses.Loss):
    """The box loss of the assigned positions, plus the score loss of all positions.

    The loss of a box is the mean over its positions. A score's target is the IoU of its position's predicted
    box with the true one, or 0 for a position without a box, so that the best box gets the highest score; its
    loss is the quality focal loss. Both are per box: the sum of the scores' losses over all positions is
    divided by nine, the maximum number of positions of a box.

    Shapes: truth (batch, num_classes, 4), `[xmin, ymin, xmax, ymax]`, normalized to 0..1, an absent class a
        row of zeros; predictions (batch, rows, columns, num_classes, 5), see
    `brain_tumor.model.dense_head.BoxDecoder`.

    Args:
        box_loss: A name of `BOX_LOSSES`.
        box_weight: Weight of the box loss.
        score_weight: Weight of the score loss.
        reduction: `sum_over_batch_size` gives the mean over the batch's present boxes; a batch without any
            counts as having one, since its scores still learn. `sum` as in `BoxLoss`.
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
        places = cell_centers(*y_pred.shape[1:3])
        positive = ops.cast(answering_positions(y_true, places), y_pred.dtype)
        truth, boxes = y_true[:, None, None], y_pred[..., :4]
        cost = BOX_LOSSES[self.box_loss]().cost(truth, boxes)
        count = ops.sum(positive, axis=(1, 2))
        of_boxes = ops.sum(cost * positive, axis=(1, 2)) / ops.maximum(count, 1)
        quality = ops.stop_gradient(measures.iou(truth, boxes, ops)) * positive
        of_scores = ops.sum(quality_focal_loss(quality, y_pred[..., 4]), axis=(1, 2)) / MOST_POSITIVES
        losses = ops.sum(self.box_weight * of_boxes + self.score_weight * of_scores, axis=-1)
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
