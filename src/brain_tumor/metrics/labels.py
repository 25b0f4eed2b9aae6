"""Keras metric of the label classification."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("brain_tumor")
class MeanAUC(keras.metrics.AUC):
    """The macro-averaged area under the ROC curve, at 200 thresholds.

    Only labels with both positives and negatives are included. If there are none, it is 0.5, the AUC of
    random predictions.

    Shapes: truth (0 or 1) and logits (batch, num_labels).

    Args:
        num_labels: Number of labels.
    """

    def __init__(self, num_labels: int, name: str = "auc", **kwargs: Any) -> None:
        # Keras's `get_config` includes the settings that are fixed here.
        kwargs = {key: value for key, value in kwargs.items() if key == "dtype"}
        super().__init__(multi_label=True, num_labels=num_labels, from_logits=True, name=name, **kwargs)

    def result(self) -> Any:
        """The mean so far."""
        # Both rates: (thresholds, labels), decreasing.
        recall = ops.divide_no_nan(self.true_positives, self.true_positives + self.false_negatives)
        fpr = ops.divide_no_nan(self.false_positives, self.false_positives + self.true_negatives)
        areas = ops.sum((fpr[:-1] - fpr[1:]) * (recall[:-1] + recall[1:]) / 2, axis=0)
        positives = self.true_positives[0] + self.false_negatives[0]
        negatives = self.false_positives[0] + self.true_negatives[0]
        defined = ops.cast(ops.logical_and(positives > 0, negatives > 0), areas.dtype)
        count = ops.sum(defined)
        return ops.where(count > 0, ops.sum(areas * defined) / ops.maximum(count, 1), 0.5)
