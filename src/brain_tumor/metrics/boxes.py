"""How well boxes in class slots lie: metrics over the true boxes of present classes.

Every true box counts once, whatever its batch and whatever the device that saw it. Shapes as in the box
losses: true and predicted boxes (batch, num_classes, 4), `[xmin, ymin, xmax, ymax]`, normalized to 0..1.
"""

from typing import Any

import keras
from keras import ops

from brain_tumor.boxes.measures import iou, present


class _BoxMean(keras.metrics.Mean):
    """The mean of what `measure` says of each true box; 0 where there is none."""

    def measure(self, y_true: Any, y_pred: Any) -> Any:
        raise NotImplementedError

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        y_true, y_pred = ops.cast(y_true, self.dtype), ops.cast(y_pred, self.dtype)
        weights = ops.cast(present(y_true), self.dtype)
        if sample_weight is not None:  # one an image
            weights *= ops.reshape(ops.cast(sample_weight, self.dtype), (-1, 1))
        super().update_state(self.measure(y_true, y_pred), sample_weight=weights)


@keras.saving.register_keras_serializable("brain_tumor")
class BoxIoU(_BoxMean):
    """Mean IoU with the true box."""

    def __init__(self, name: str = "iou", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)

    def measure(self, y_true: Any, y_pred: Any) -> Any:
        return iou(y_true, y_pred, ops)


@keras.saving.register_keras_serializable("brain_tumor")
class BoxRecall(_BoxMean):
    """The share of true boxes whose predicted box has at least a certain IoU.

    Args:
        threshold: That IoU, 0..1.
    """

    def __init__(self, threshold: float = 0.5, name: str = "recall", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.threshold = threshold

    def measure(self, y_true: Any, y_pred: Any) -> Any:
        return iou(y_true, y_pred, ops) >= self.threshold

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "threshold": self.threshold}


@keras.saving.register_keras_serializable("brain_tumor")
class BoxMeanSquaredError(_BoxMean):
    """Mean squared error of the four coordinates."""

    def __init__(self, name: str = "mse", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)

    def measure(self, y_true: Any, y_pred: Any) -> Any:
        return ops.mean(ops.square(y_true - y_pred), axis=-1)


@keras.saving.register_keras_serializable("brain_tumor")
class BoxMeanAbsoluteError(_BoxMean):
    """Mean absolute error of the four coordinates."""

    def __init__(self, name: str = "mae", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)

    def measure(self, y_true: Any, y_pred: Any) -> Any:
        return ops.mean(ops.abs(y_true - y_pred), axis=-1)
