"""The class head, and the pooled box head, a simple one for comparison.

The dense box head is in `brain_tumor.model.dense_head`.
"""

from typing import Any

import keras
from keras import ops
from typing_extensions import override


def label_head(vectors: list[Any], num_classes: int, dropout: float) -> Any:
    """The probability of each label, (batch, num_classes).

    Args:
        vectors: The head's inputs, each (batch, channels).
        num_classes: Number of labels.
        dropout: Dropout rate.

    Returns:
        The output of the layer `labels`. Losses use the layer `labels_logits`, before the sigmoid.
    """
    x = keras.layers.Concatenate(name="labels_vectors")(vectors) if len(vectors) > 1 else vectors[0]
    # Mean and maximum of ReLU outputs and a logit have different scales: without normalization, the largest
    # would dominate.
    x = keras.layers.BatchNormalization(name="labels_norm")(x)
    x = keras.layers.Dropout(dropout, name="labels_dropout")(x)
    x = keras.layers.Dense(num_classes, dtype="float32", name="labels_logits")(x)
    return keras.layers.Activation("sigmoid", dtype="float32", name="labels")(x)


def pooled_box_head(features: list[Any], num_classes: int, width: int) -> Any:
    """One box per class, (batch, num_classes, 4), by dense layers on the mean of the coarsest feature map.

    For comparison with the dense box head: pooling discards most spatial information.

    Args:
        features: Feature maps, finest first, each (batch, rows, columns, channels).
        num_classes: Number of labels.
        width: Units of the hidden layers.
    """
    x = keras.layers.GlobalAveragePooling2D(name="boxes_pool")(features[-1])
    for layer in (1, 2):
        x = keras.layers.Dense(width, use_bias=False, name=f"boxes_dense{layer}")(x)
        # Without normalization, a learning rate that suits the backbone saturates the sigmoids.
        x = keras.layers.LayerNormalization(name=f"boxes_dense{layer}_norm")(x)
        x = keras.layers.Activation("relu", name=f"boxes_dense{layer}_relu")(x)
    x = keras.layers.Dense(num_classes * 4, name="boxes_sizes")(x)
    return BoxFromPlaceAndSize(num_classes, dtype="float32", name="boxes")(x)


@keras.saving.register_keras_serializable("brain_tumor")
class BoxFromPlaceAndSize(keras.layers.Layer):
    """Decodes four logits per class into a box: its width, height, and position in the remaining space.

    The sigmoids make every box valid (0 <= xmin <= xmax <= 1, the same for y), and every valid box can be
    represented.

    Input: (batch, num_classes * 4), per class the position in x and y, width and height. Output: (batch,
    num_classes, 4), each `[xmin, ymin, xmax, ymax]`, normalized to 0..1 of the image.

    Args:
        num_classes: Number of classes.
    """

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_classes = num_classes

    @override
    def call(self, inputs: Any) -> Any:
        values = ops.sigmoid(ops.reshape(inputs, (-1, self.num_classes, 4)))
        position, size = values[..., :2], values[..., 2:]
        low = position * (1 - size)
        return ops.concatenate([low, ops.minimum(low + size, 1)], axis=-1)

    @override
    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (input_shape[0], self.num_classes, 4)

    @override
    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_classes": self.num_classes}
