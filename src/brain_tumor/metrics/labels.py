"""Keras metric of the label classification."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("brain_tumor")
class MeanAUC(keras.metrics.AUC):
    """The mean over labels of the area under the ROC curve, by 200 thresholds.

    Only labels with both positives and negatives are part of the mean. Without any, it is 0.5, as for
    guessing.

    Shapes: truth (0 or 1) and logits (batch, num_labels).

    Args:
        num_labels: Number of labels.
    """

    def __init__(self, num_labels: int, name: str = "auc", **kwargs: Any) -> None:
        # Keras's `get_config` returns the settings that are fixed here.
        kwargs = {key: value for key, value in kwargs.items() if key == "dtype"}
        super().__init__(multi_label=True, num_labels=num_labels, from_logits=True, name=name, **kwargs)

    def result(self) -> Any:
        """The mean so far."""
        # (thresholds, labels), both rates decreasing.
        recall = ops.divide_no_nan(self.true_positives, self.true_positives + self.false_negatives)
        fall_out = ops.divide_no_nan(self.false_positives, self.false_positives + self.true_negatives)
        areas = ops.sum((fall_out[:-1] - fall_out[1:]) * (recall[:-1] + recall[1:]) / 2, axis=0)
        positives = self.true_positives[0] + self.false_negatives[0]
        negatives = self.false_positives[0] + self.true_negatives[0]
        known = ops.cast(ops.logical_and(positives > 0, negatives > 0), areas.dtype)
        count = ops.sum(known)
        return ops.where(count > 0, ops.sum(areas * known) / ops.maximum(count, 1), 0.5)
