"""The dense box head: a score and a box per class at each position of a fine feature map.

The position with the highest score gives the box, refined by the others that agree. So objects are found by a
score with its own loss, not by averaging over positions.
"""

import math
from typing import Any

import keras
from keras import ops
from typing_extensions import override

# An untrained head's score is low, since almost all positions are negatives.
PRIOR = 0.01
# The distance for an output of 0, as a fraction of the image's side: untrained boxes are a quarter of the
# side.
UNIT = 1 / 8
# Above this output (2.5 times the side) a distance grows linearly, so that a bad start does not overflow.
LINEAR = 3.0
# Boxes with at least so much IoU with the best one are predictions of the same structure.
AGREEMENT = 0.7


def feature_pyramid(features: list[Any], width: int) -> Any:
    """A feature pyramid's map at the resolution of the finest feature map, (batch, rows, columns, width).

    Each map is added to the next finer one: coarse maps tell structures apart, fine ones locate their borders
    (Lin et al., 2017, https://arxiv.org/abs/1612.03144).

    Args:
        features: Feature maps, finest first, each (batch, rows, columns, channels), each next one half as
            large, rounded up.
        width: Channels of the result.
    """
    merged = None
    for level in reversed(range(len(features))):
        x = _convolution(features[level], width, 1, f"boxes_lateral{level}")
        if merged is not None:
            merged = _enlarged(merged, x.shape[1:3], level)
            x = keras.layers.Add(name=f"boxes_add{level}")([x, merged])
        merged = keras.layers.Activation("relu", name=f"boxes_relu{level}")(x)
    x = _convolution(merged, width, 3, "boxes_pyramid")
    return keras.layers.Activation("relu", name="boxes_pyramid_relu")(x)


def dense_box_head(pyramid: Any, num_classes: int, width: int) -> Any:
    """The predictions at all positions, (batch, rows, columns, num_classes, 5), see `PositionAnswers`.

    Two towers of two 3x3 convolutions, one for the scores and one for the distances from a position to the
    four sides of a box, as in FCOS (Tian et al., 2019, https://arxiv.org/abs/1904.01355).

    Args:
        pyramid: From `feature_pyramid`.
        num_classes: Number of labels.
        width: Channels of the towers.
    """
    towers = {}
    for name in ("scores", "sides"):
        x = pyramid
        for layer in (1, 2):
            x = _convolution(x, width, 3, f"boxes_{name}{layer}")
            x = keras.layers.Activation("relu", name=f"boxes_{name}{layer}_relu")(x)
        towers[name] = x
    scores = keras.layers.Conv2D(
        num_classes,
        1,
        bias_initializer=keras.initializers.Constant(-math.log(1 / PRIOR - 1)),
        name="boxes_scores_out",
    )(towers["scores"])
    sides = keras.layers.Conv2D(
        num_classes * 4,
        1,
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
        name="boxes_sides_out",
    )(towers["sides"])
    return PositionAnswers(num_classes, dtype="float32", name="boxes_map")([scores, sides])


def _convolution(x: Any, width: int, kernel: int, name: str) -> Any:
    x = keras.layers.Conv2D(width, kernel, padding="same", use_bias=False, name=name)(x)
    return keras.layers.BatchNormalization(name=f"{name}_norm")(x)


def _enlarged(x: Any, shape: tuple[int, int], level: int) -> Any:
    """Doubles a map's size, and crops it if rows or columns are odd."""
    # Nearest neighbour: the gradient of a bilinear resize is float32, which XLA cannot add to bfloat16.
    x = keras.layers.UpSampling2D(2, name=f"boxes_enlarge{level}")(x)
    rows, columns = x.shape[1] - shape[0], x.shape[2] - shape[1]
    if rows or columns:
        x = keras.layers.Cropping2D(((0, rows), (0, columns)), name=f"boxes_crop{level}")(x)
    return x


@keras.saving.register_keras_serializable("brain_tumor")
class PositionAnswers(keras.layers.Layer):
    """Turns maps of scores and distances into a prediction per position and class.

    A position is the center of its cell. A distance is the exponential of the output, in units of an eighth
    of the image's side, so a box always contains its position. Boxes may extend beyond the image, where the
    loss still has a gradient. Distances above 2.5 times the image's side grow linearly.

    Inputs: (batch, rows, columns, num_classes), the scores as logits, and (batch, rows, columns,
    num_classes * 4), the distances to the left, upper, right and lower side. Output: (batch, rows, columns,
    num_classes, 5), `[xmin, ymin, xmax, ymax, score]`, normalized to the image, the score unchanged.

    Args:
        num_classes: Number of classes.
    """

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_classes = num_classes

    @override
    def call(self, inputs: list[Any]) -> Any:
        scores, sides = inputs
        rows, columns = sides.shape[1:3]
        sides = ops.reshape(sides, (-1, rows, columns, self.num_classes, 4))
        distances = UNIT * ops.exp(ops.minimum(sides, LINEAR)) * (1 + ops.relu(sides - LINEAR))
        places = ops.cast(positions(rows, columns)[:, :, None], distances.dtype)
        low, high = places - distances[..., :2], places + distances[..., 2:]
        return ops.concatenate([low, high, scores[..., None]], axis=-1)

    @override
    def compute_output_shape(self, input_shape: list[tuple[int | None, ...]]) -> tuple[int | None, ...]:
        return (*input_shape[0], 5)

    @override
    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_classes": self.num_classes}


def positions(rows: int, columns: int) -> Any:
    """The x and y of the cells' centers, (rows, columns, 2), normalized to 0..1 of the image."""
    x = (ops.arange(columns, dtype="float32") + 0.5) / columns
    y = (ops.arange(rows, dtype="float32") + 0.5) / rows
    return ops.stack(ops.meshgrid(x, y), axis=-1)


@keras.saving.register_keras_serializable("brain_tumor")
class BestAnswers(keras.layers.Layer):
    """Each class's box: that of the position with its highest score, refined by the boxes that agree with it.

    The box is the mean of all positions' boxes whose IoU with the best one is at least 0.7, weighted by their
    scores ("box voting", Gidaris and Komodakis, 2015, https://arxiv.org/abs/1505.01749): the positions around
    a structure predict the same box, each with errors of its own.

    Input: (batch, rows, columns, num_classes, 5), see `PositionAnswers`. Output: (batch, num_classes, 5):
    `[xmin, ymin, xmax, ymax]`, 0 <= xmin <= xmax <= 1, the same for y, and the highest score, a logit.
    """

    @override
    def call(self, inputs: Any) -> Any:
        rows, columns, classes = inputs.shape[1:4]
        answers = ops.reshape(inputs, (-1, rows * columns, classes, 5))
        boxes, scores = ops.clip(answers[..., :4], 0, 1), answers[..., 4]
        position = ops.argmax(scores, axis=1)
        best = ops.take_along_axis(boxes, position[:, None, :, None], axis=1)
        score = ops.max(scores, axis=1)
        # A box without area overlaps nothing, not even itself.
        chosen = ops.cast(ops.one_hot(position, rows * columns, axis=1), "bool")
        votes = ops.cast(ops.logical_or(chosen, _iou(boxes, best) >= AGREEMENT), boxes.dtype)
        # Relative to the highest score: all scores of a class may be too small for a probability.
        weights = votes * ops.exp(ops.log_sigmoid(scores) - ops.log_sigmoid(score)[:, None])
        weights /= ops.sum(weights, axis=1, keepdims=True)
        box = ops.sum(weights[..., None] * boxes, axis=1)
        return ops.concatenate([ops.clip(box, 0, 1), score[..., None]], axis=-1)

    @override
    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (input_shape[0], *input_shape[3:])


def _iou(a: Any, b: Any) -> Any:
    """As `brain_tumor.boxes.measures.iou`, which a served model does not have: it loads this file alone."""
    low, high = ops.maximum(a[..., :2], b[..., :2]), ops.minimum(a[..., 2:], b[..., 2:])
    intersection = ops.prod(ops.maximum(high - low, 0), axis=-1)
    areas = [ops.prod(box[..., 2:] - box[..., :2], axis=-1) for box in (a, b)]
    return intersection / ops.maximum(sum(areas) - intersection, 1e-7)
