"""Metrics of boxes in class slots, over the true boxes of present classes.

Every true box counts once, whatever the batches and devices. Shapes: true and predicted boxes (batch,
num_classes, 4), `[xmin, ymin, xmax, ymax]`, normalized to 0..1, zeros for absent classes in the truth. A
predicted box may have a fifth number, its score (a logit).
"""

from typing import Any

import keras
from keras import ops
from typing_extensions import override

from brain_tumor.boxes.measures import iou, present


class _BoxMean(keras.metrics.Mean):
    """The mean of `measure` over all true boxes; 0 if there are none.

    Args:
        slot: The index of the class to measure; None for all classes.
    """

    def __init__(self, slot: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.slot = slot

    def measure(self, y_true: Any, y_pred: Any) -> Any:
        """The value of each pair of boxes, (batch, num_classes)."""
        raise NotImplementedError

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        y_true, y_pred = ops.cast(y_true, self.dtype), ops.cast(y_pred, self.dtype)[..., :4]
        if self.slot is not None:
            y_true, y_pred = (boxes[:, self.slot : self.slot + 1] for boxes in (y_true, y_pred))
        weights = ops.cast(present(y_true), self.dtype)
        if sample_weight is not None:  # one per image
            weights *= ops.reshape(ops.cast(sample_weight, self.dtype), (-1, 1))
        super().update_state(self.measure(y_true, y_pred), sample_weight=weights)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "slot": self.slot}


@keras.saving.register_keras_serializable("brain_tumor")
class BoxIoU(_BoxMean):
    """Mean IoU of predicted and true boxes."""

    def __init__(self, slot: int | None = None, name: str = "iou", **kwargs: Any) -> None:
        super().__init__(slot, name=name, **kwargs)

    @override
    def measure(self, y_true: Any, y_pred: Any) -> Any:
        return iou(y_true, y_pred, ops)


@keras.saving.register_keras_serializable("brain_tumor")
class BoxRecall(_BoxMean):
    """The fraction of true boxes whose predicted box has at least a certain IoU.

    Args:
        threshold: The IoU threshold, 0..1.
    """

    def __init__(self, threshold: float = 0.5, name: str = "recall", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.threshold = threshold

    @override
    def measure(self, y_true: Any, y_pred: Any) -> Any:
        return iou(y_true, y_pred, ops) >= self.threshold

    @override
    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "threshold": self.threshold}


@keras.saving.register_keras_serializable("brain_tumor")
class BoxMeanSquaredError(_BoxMean):
    """Mean squared error of the four coordinates."""

    def __init__(self, name: str = "mse", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)

    @override
    def measure(self, y_true: Any, y_pred: Any) -> Any:
        return ops.mean(ops.square(y_true - y_pred), axis=-1)


@keras.saving.register_keras_serializable("brain_tumor")
class BoxMeanAbsoluteError(_BoxMean):
    """Mean absolute error of the four coordinates."""

    def __init__(self, name: str = "mae", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)

    @override
    def measure(self, y_true: Any, y_pred: Any) -> Any:
        return ops.mean(ops.abs(y_true - y_pred), axis=-1)


@keras.saving.register_keras_serializable("brain_tumor")
class BoxAP50(keras.metrics.Metric):
    """Average precision of one class's boxes at an IoU of 0.5, ranked by their scores.

    Unlike recall, it also counts false positives, including those in images without the class. It
    approximates COCO's AP50 by binning the scores into 200 bins. 0 if there are no true boxes.

    Args:
        slot: The index of the class.
    """

    MIN_SCORE, MAX_SCORE, BINS = -10.0, 10.0, 200  # logits, of probabilities 0.00005 and 0.99995

    def __init__(self, slot: int, name: str = "ap50", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.slot = slot
        self.true_positives = self.add_variable((self.BINS,), "zeros", name="true_positives")
        self.predictions = self.add_variable((self.BINS,), "zeros", name="predictions")
        self.positives = self.add_variable((), "zeros", name="positives")

    @override
    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        y_true, y_pred = (ops.cast(values, self.dtype)[:, self.slot] for values in (y_true, y_pred))
        positive = ops.cast(present(y_true), self.dtype)
        hit = positive * ops.cast(iou(y_true, y_pred[..., :4], ops) >= 0.5, self.dtype)
        share = (y_pred[..., 4] - self.MIN_SCORE) / (self.MAX_SCORE - self.MIN_SCORE)
        index = ops.cast(ops.clip(share, 0, 1) * (self.BINS - 1), "int32")
        bins = ops.one_hot(index, self.BINS, dtype=self.dtype)
        if sample_weight is not None:  # one per image
            weights = ops.reshape(ops.cast(sample_weight, self.dtype), (-1,))
            bins, positive = bins * weights[:, None], positive * weights
        self.true_positives.assign_add(ops.sum(bins * hit[:, None], axis=0))
        self.predictions.assign_add(ops.sum(bins, axis=0))
        self.positives.assign_add(ops.sum(positive))

    def result(self) -> Any:
        """The average precision so far."""
        hits, ranked = (
            ops.cumsum(ops.flip(values, axis=0)) for values in (self.true_positives, self.predictions)
        )
        precision = ops.divide_no_nan(hits, ranked)
        steps = ops.flip(ops.convert_to_tensor(self.true_positives), axis=0)
        return ops.divide_no_nan(ops.sum(precision * steps), ops.convert_to_tensor(self.positives))

    @override
    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "slot": self.slot}
