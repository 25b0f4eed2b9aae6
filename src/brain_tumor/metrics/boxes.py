"""Metrics of boxes in class slots, over the true boxes of present classes.

Every true box counts once, independent of batches and devices. Shapes as in the box
losses: true and predicted boxes (batch, num_classes, 4), `[xmin, ymin, xmax, ymax]`, normalized to 0..1. A
predicted box may have a fifth number, its score.
"""

from typing import Any

import keras
from keras import ops
from typing_extensions import override

from brain_tumor.boxes.measures import iou, present


class _BoxMean(keras.metrics.Mean):
    """The mean of `measure` over all true boxes; 0 if there are none.

    Args:
        slot: The class whose boxes count; None for all of them.
    """

    def __init__(self, slot: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.slot = slot

    def measure(self, y_true: Any, y_pred: Any) -> Any:
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
    """Mean IoU with the true box."""

    def __init__(self, slot: int | None = None, name: str = "iou", **kwargs: Any) -> None:
        super().__init__(slot, name=name, **kwargs)

    @override
    def measure(self, y_true: Any, y_pred: Any) -> Any:
        return iou(y_true, y_pred, ops)


@keras.saving.register_keras_serializable("brain_tumor")
class BoxRecall(_BoxMean):
    """The fraction of true boxes whose predicted box has at least a certain IoU.

    Args:
        threshold: That IoU, 0..1.
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
    """Average precision of one class's boxes at an IoU of 0.5, ranked by their own scores.

    Unlike recall it counts false boxes, also in images without the class. The scores are put into 200 bins,
    so it approximates COCO's AP50. 0 if there are no true boxes.

    Args:
        slot: The class.
    """

    LOWEST, HIGHEST, BINS = -10.0, 10.0, 200  # logits; the probabilities are 1 in 20,000

    def __init__(self, slot: int, name: str = "ap50", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.slot = slot
        self.found = self.add_variable((self.BINS,), "zeros", name="found")
        self.shown = self.add_variable((self.BINS,), "zeros", name="shown")
        self.boxes = self.add_variable((), "zeros", name="boxes")

    @override
    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        y_true, y_pred = (ops.cast(values, self.dtype)[:, self.slot] for values in (y_true, y_pred))
        there = ops.cast(present(y_true), self.dtype)
        hit = there * ops.cast(iou(y_true, y_pred[..., :4], ops) >= 0.5, self.dtype)
        share = (y_pred[..., 4] - self.LOWEST) / (self.HIGHEST - self.LOWEST)
        index = ops.cast(ops.clip(share, 0, 1) * (self.BINS - 1), "int32")
        bins = ops.one_hot(index, self.BINS, dtype=self.dtype)
        if sample_weight is not None:  # one per image
            weights = ops.reshape(ops.cast(sample_weight, self.dtype), (-1,))
            bins, there = bins * weights[:, None], there * weights
        self.found.assign_add(ops.sum(bins * hit[:, None], axis=0))
        self.shown.assign_add(ops.sum(bins, axis=0))
        self.boxes.assign_add(ops.sum(there))

    def result(self) -> Any:
        """The average precision so far."""
        found, shown = (ops.cumsum(ops.flip(values, axis=0)) for values in (self.found, self.shown))
        precision = ops.divide_no_nan(found, shown)
        steps = ops.flip(ops.convert_to_tensor(self.found), axis=0)
        return ops.divide_no_nan(ops.sum(precision * steps), ops.convert_to_tensor(self.boxes))

    @override
    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "slot": self.slot}
