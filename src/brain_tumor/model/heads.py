"""The heads: from feature maps to label probabilities, and to one box a class."""

from typing import Any

import keras
from keras import ops

# Channels are normalized in as many groups.
GROUPS = 8


def label_head(features: Any, num_classes: int, dropout: float) -> Any:
    """Probability of each label, (batch, num_classes): what is in the image matters, not where."""
    x = keras.layers.GlobalAveragePooling2D(name="labels_pool")(features)
    x = keras.layers.Dropout(dropout, name="labels_dropout")(x)
    return keras.layers.Dense(num_classes, activation="sigmoid", dtype="float32", name="labels")(x)


def pooled_box_head(features: list[Any], num_classes: int, width: int) -> Any:
    """One box a class, (batch, num_classes, 4), from the mean of the coarsest map, by dense layers.

    What is left of the geometry after that mean is what the backbone has put into channels.

    Args:
        features: Feature maps, finest first, each (batch, rows, columns, channels).
        num_classes: Number of labels.
        width: Units of the hidden layers.
    """
    x = keras.layers.GlobalAveragePooling2D(name="boxes_pool")(features[-1])
    for layer in (1, 2):
        x = keras.layers.Dense(width, use_bias=False, name=f"boxes_dense{layer}")(x)
        # Without it, a rate that suits the backbone drives the sigmoids to where they have no gradient.
        x = keras.layers.LayerNormalization(name=f"boxes_dense{layer}_norm")(x)
        x = keras.layers.Activation("relu", name=f"boxes_dense{layer}_relu")(x)
    x = keras.layers.Dense(num_classes * 4, name="boxes_sizes")(x)
    return BoxFromPlaceAndSize(num_classes, dtype="float32", name="boxes")(x)


def spatial_box_head(features: list[Any], num_classes: int, width: int) -> Any:
    """One box a class, (batch, num_classes, 4), from maps at falling resolution.

    The coarse maps know what a structure is, the fine one where it ends; they are summed at the finest map's
    resolution, as in a feature pyramid (Lin et al., 2017, https://arxiv.org/abs/1612.03144). The boxes then
    come from votes of the positions, see `BoxVotes`: nothing is pooled before the regression.

    Args:
        features: Feature maps, finest first, each (batch, rows, columns, channels).
        num_classes: Number of labels.
        width: Channels of the hidden layers, a multiple of `GROUPS`.
    """
    rows, columns = features[0].shape[1:3]
    merged = []
    for level, feature in enumerate(features):
        x = keras.layers.Conv2D(width, 1, name=f"boxes_lateral{level}")(feature)
        if feature.shape[1:3] != (rows, columns):
            x = keras.layers.Resizing(rows, columns, interpolation="bilinear", name=f"boxes_resize{level}")(x)
        merged.append(x)
    # Group norm keeps no moving statistics that a short training would leave behind.
    x = keras.layers.Add(name="boxes_merge")(merged)
    x = keras.layers.GroupNormalization(GROUPS, name="boxes_merge_norm")(x)
    x = keras.layers.Activation("relu", name="boxes_merge_relu")(x)
    x = keras.layers.Conv2D(width, 3, padding="same", use_bias=False, name="boxes_conv")(x)
    x = keras.layers.GroupNormalization(GROUPS, name="boxes_conv_norm")(x)
    x = keras.layers.Activation("relu", name="boxes_conv_relu")(x)
    votes = keras.layers.Conv2D(num_classes * 5, 1, name="boxes_votes")(x)
    return BoxVotes(num_classes, dtype="float32", name="boxes")(votes)


BOX_HEADS = {"pooled": pooled_box_head, "spatial": spatial_box_head}


@keras.saving.register_keras_serializable("brain_tumor")
class BoxFromPlaceAndSize(keras.layers.Layer):
    """Turns four numbers a class into a box: its width and height, and where in the room left by them it is.

    Each goes through a sigmoid, so a box is always valid, 0 <= xmin <= xmax <= 1, likewise y, and every valid
    box has its four numbers.

    Input: (batch, num_classes * 4), a class's place in x and y, width and height. Output: (batch,
    num_classes, 4), each `[xmin, ymin, xmax, ymax]`, normalized to 0..1 of the image.

    Args:
        num_classes: Number of classes.
    """

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_classes = num_classes

    def call(self, inputs: Any) -> Any:
        values = ops.sigmoid(ops.reshape(inputs, (-1, self.num_classes, 4)))
        place, size = values[..., :2], values[..., 2:]
        low = place * (1 - size)
        return ops.concatenate([low, ops.minimum(low + size, 1)], axis=-1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (input_shape[0], self.num_classes, 4)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_classes": self.num_classes}


@keras.saving.register_keras_serializable("brain_tumor")
class BoxVotes(keras.layers.Layer):
    """Each position of a feature map votes for a box of each class; the output is the votes' weighted mean.

    A position's vote is its distance to the box's four sides (as in FCOS, Tian et al., 2019,
    https://arxiv.org/abs/1904.01355), each as a share of the way to the image's edge, and a softmax over all
    positions gives the votes' weights. So a box is always valid, 0 <= xmin <= xmax <= 1, likewise y, without
    a clip that would stop its gradient.

    Input: (batch, rows, columns, num_classes * 5). Output: (batch, num_classes, 4), each
    `[xmin, ymin, xmax, ymax]`, normalized to 0..1 of the image.

    Args:
        num_classes: Number of classes.
    """

    # sigmoid(-2) is 0.12: an untrained head votes for boxes of an eighth of the image's side.
    INITIAL_DISTANCE = -2.0

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_classes = num_classes

    def call(self, inputs: Any) -> Any:
        rows, columns = inputs.shape[1:3]
        votes = ops.reshape(inputs, (-1, rows * columns, self.num_classes, 5))
        weights = ops.softmax(votes[..., 0], axis=1)
        shares = ops.sigmoid(votes[..., 1:] + self.INITIAL_DISTANCE)
        x = (ops.arange(columns, dtype="float32") + 0.5) / columns
        y = (ops.arange(rows, dtype="float32") + 0.5) / rows
        # (positions, 1), in the order in which the reshape above runs through rows and columns
        x, y = ops.reshape(ops.tile(x, rows), (-1, 1)), ops.reshape(ops.repeat(y, columns), (-1, 1))
        sides = ops.stack(
            [
                x * (1 - shares[..., 0]),
                y * (1 - shares[..., 1]),
                x + (1 - x) * shares[..., 2],
                y + (1 - y) * shares[..., 3],
            ],
            axis=-1,
        )
        # A mean of ones can be a rounding error above 1.
        return ops.minimum(ops.sum(weights[..., None] * sides, axis=1), 1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (input_shape[0], self.num_classes, 4)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_classes": self.num_classes}
