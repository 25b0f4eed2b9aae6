"""The dense box head: a score and a box per class at each position of a fine feature map.

The box with the highest score is the prediction, averaged with the boxes that overlap it. So objects
are located by a score with its own loss, not by averaging over all positions.
"""

import math
from typing import Any

import keras
from keras import ops
from typing_extensions import override

# Initial scores as probabilities: low, since almost all positions are negatives.
PRIOR = 0.01
# The distance for an output of 0, as a fraction of the image's side: initial boxes are a quarter of the side.
DISTANCE_UNIT = 1 / 8
# Above this output (2.5 times the side) distances grow linearly, to avoid overflow early in training.
LINEAR_ABOVE = 3.0
# The minimum IoU with the best box for a box to take part in box voting.
VOTING_IOU = 0.7


def feature_pyramid(features: list[Any], width: int) -> Any:
    """Merges feature maps into one at the finest resolution, (batch, rows, columns, width).

    Each map is upsampled and added to the next finer one: coarse maps distinguish structures, fine ones
    locate their borders (Lin et al., 2017, https://arxiv.org/abs/1612.03144).

    Args:
        features: Feature maps, finest first, each (batch, rows, columns, channels) and half the size of the
            previous one, rounded up.
        width: Channels of the result.
    """
    merged = None
    for level in reversed(range(len(features))):
        x = _convolution(features[level], width, 1, f"boxes_lateral{level}")
        if merged is not None:
            merged = _upsample(merged, x.shape[1:3], level)
            x = keras.layers.Add(name=f"boxes_add{level}")([x, merged])
        merged = keras.layers.Activation("relu", name=f"boxes_relu{level}")(x)
    x = _convolution(merged, width, 3, "boxes_pyramid")
    return keras.layers.Activation("relu", name="boxes_pyramid_relu")(x)


def dense_box_head(pyramid: Any, num_classes: int, width: int) -> Any:
    """The predictions at all positions, (batch, rows, columns, num_classes, 5), see `BoxDecoder`.

    Two towers of two 3x3 convolutions, one for the scores and one for the distances from a position to the
    four sides of a box, as in FCOS (Tian et al., 2019, https://arxiv.org/abs/1904.01355).

    Args:
        pyramid: The output of `feature_pyramid`.
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
    return BoxDecoder(num_classes, dtype="float32", name="boxes_map")([scores, sides])


def _convolution(x: Any, width: int, kernel: int, name: str) -> Any:
    x = keras.layers.Conv2D(width, kernel, padding="same", use_bias=False, name=name)(x)
    return keras.layers.BatchNormalization(name=f"{name}_norm")(x)


def _upsample(x: Any, shape: tuple[int, int], level: int) -> Any:
    """Doubles a map's size, and crops it to `shape`."""
    # Nearest neighbor, since a bilinear resize has float32 gradients, which XLA cannot add to bfloat16.
    x = keras.layers.UpSampling2D(2, name=f"boxes_enlarge{level}")(x)
    rows, columns = x.shape[1] - shape[0], x.shape[2] - shape[1]
    if rows or columns:
        x = keras.layers.Cropping2D(((0, rows), (0, columns)), name=f"boxes_crop{level}")(x)
    return x


# The registered names of the layers are those in saved models.
@keras.saving.register_keras_serializable("brain_tumor", name="PositionAnswers")
class BoxDecoder(keras.layers.Layer):
    """Decodes maps of scores and distances into a box and a score per position and class.

    A position is the center of a cell. A distance is the exponential of the output, in units of an eighth
    of the image's side, and grows linearly above 2.5 times the side. So a box always contains its position.
    Boxes may extend beyond the image: clipping them would remove the loss's gradient.

    Inputs: (batch, rows, columns, num_classes), the scores as logits, and (batch, rows, columns,
    num_classes * 4), the log-distances to the left, top, right and bottom side. Output: (batch, rows,
    columns, num_classes, 5), `[xmin, ymin, xmax, ymax, score]`, normalized to the image, the score a logit.

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
        distances = (
            DISTANCE_UNIT * ops.exp(ops.minimum(sides, LINEAR_ABOVE)) * (1 + ops.relu(sides - LINEAR_ABOVE))
        )
        centers = ops.cast(cell_centers(rows, columns)[:, :, None], distances.dtype)
        low, high = centers - distances[..., :2], centers + distances[..., 2:]
        return ops.concatenate([low, high, scores[..., None]], axis=-1)

    @override
    def compute_output_shape(self, input_shape: list[tuple[int | None, ...]]) -> tuple[int | None, ...]:
        return (*input_shape[0], 5)

    @override
    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_classes": self.num_classes}


def cell_centers(rows: int, columns: int) -> Any:
    """The x and y of the cells' centers, (rows, columns, 2), normalized to 0..1 of the image."""
    x = (ops.arange(columns, dtype="float32") + 0.5) / columns
    y = (ops.arange(rows, dtype="float32") + 0.5) / rows
    return ops.stack(ops.meshgrid(x, y), axis=-1)


@keras.saving.register_keras_serializable("brain_tumor", name="BestAnswers")
class BoxVoting(keras.layers.Layer):
    """Reduces the boxes of all positions to one per class by box voting.

    The result is the mean of the boxes whose IoU with the best-scored one is at least 0.7, weighted by their
    scores: neighboring positions predict the same box with different errors. Reference: Gidaris and
    Komodakis, 2015, https://arxiv.org/abs/1505.01749.

    Input: (batch, rows, columns, num_classes, 5), see `BoxDecoder`. Output: (batch, num_classes, 5):
    `[xmin, ymin, xmax, ymax]`, 0 <= xmin <= xmax <= 1, the same for y, and the highest score, a logit.
    """

    @override
    def call(self, inputs: Any) -> Any:
        rows, columns, classes = inputs.shape[1:4]
        predictions = ops.reshape(inputs, (-1, rows * columns, classes, 5))
        boxes, scores = ops.clip(predictions[..., :4], 0, 1), predictions[..., 4]
        best_position = ops.argmax(scores, axis=1)
        best = ops.take_along_axis(boxes, best_position[:, None, :, None], axis=1)
        score = ops.max(scores, axis=1)
        # The best box always votes: without area, its IoU with itself is 0.
        is_best = ops.cast(ops.one_hot(best_position, rows * columns, axis=1), "bool")
        votes = ops.cast(ops.logical_or(is_best, _iou(boxes, best) >= VOTING_IOU), boxes.dtype)
        # Relative to the best score: the probabilities of very low scores underflow to 0.
        weights = votes * ops.exp(ops.log_sigmoid(scores) - ops.log_sigmoid(score)[:, None])
        weights /= ops.sum(weights, axis=1, keepdims=True)
        box = ops.sum(weights[..., None] * boxes, axis=1)
        return ops.concatenate([ops.clip(box, 0, 1), score[..., None]], axis=-1)

    @override
    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (input_shape[0], *input_shape[3:])


def _iou(a: Any, b: Any) -> Any:
    """The same as `brain_tumor.boxes.measures.iou`: a served model has this file only, not the library."""
    low, high = ops.maximum(a[..., :2], b[..., :2]), ops.minimum(a[..., 2:], b[..., 2:])
    intersection = ops.prod(ops.maximum(high - low, 0), axis=-1)
    areas = [ops.prod(box[..., 2:] - box[..., :2], axis=-1) for box in (a, b)]
    return intersection / ops.maximum(sum(areas) - intersection, 1e-7)
