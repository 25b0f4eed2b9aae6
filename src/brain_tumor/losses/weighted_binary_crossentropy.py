"""Weighted binary cross-entropy for imbalanced labels."""

from typing import Any

import keras
from keras import ops
from typing_extensions import override


@keras.saving.register_keras_serializable("brain_tumor")
class WeightedBinaryCrossentropy(keras.losses.Loss):
    """Binary cross-entropy in which positives of label k have the weight `class_weights[k]`.

    With negatives / positives as weights, a label's positives and negatives have equal total weight.

    Shapes: truth (0 or 1) and logits (batch, num_classes). An image's loss is the mean over classes. Logits,
        since the logarithm of a probability rounded to 0 has no gradient.

    Args:
        class_weights: One weight per class, saved with the config.
        reduction: `sum_over_batch_size` gives the mean over the images, `sum` their sum (see `BoxLoss`).
    """

    def __init__(
        self,
        class_weights: list[float],
        reduction: str = "sum_over_batch_size",
        name: str = "weighted_binary_crossentropy",
    ) -> None:
        super().__init__(name=name, reduction=reduction)
        self.class_weights = [float(weight) for weight in class_weights]

    @override
    def call(self, y_true: Any, y_pred: Any) -> Any:
        y_true = ops.cast(y_true, y_pred.dtype)
        weights = ops.convert_to_tensor(self.class_weights, dtype=y_pred.dtype)
        present = weights * y_true * ops.softplus(-y_pred)
        absent = (1 - y_true) * ops.softplus(y_pred)
        return ops.mean(present + absent, axis=-1)

    @override
    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "class_weights": self.class_weights}
