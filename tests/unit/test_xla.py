"""The code that a GPU would compile: XLA errors and NaN are found without a GPU."""

from typing import Any, Literal

import keras
import numpy as np
import pytest
import tensorflow as tf

from brain_tumor.config import Head, PhaseConfig
from brain_tumor.losses import BOX_LOSSES
from brain_tumor.model.detector import freeze, training_model
from brain_tumor.training.compile import compile_model
from brain_tumor.training.precision import compute_policy
from tests.unit.models import CLASSES, images, small_detector

pytestmark = [pytest.mark.slow, pytest.mark.heavy]

CORNERS = np.array(
    [
        [[0.2, 0.2, 0.6, 0.6], [0.2, 0.2, 0.6, 0.6]],  # the same
        [[0.2, 0.2, 0.6, 0.6], [0.2, 0.3, 0.6, 0.5]],  # two sides in common
        [[0.2, 0.2, 0.6, 0.6], [0.4, 0.4, 0.4, 0.4]],  # without size
        [[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]],  # the whole image
    ],
    np.float32,
)


@pytest.mark.parametrize("name", BOX_LOSSES)
def test_a_box_losss_gradient_is_finite_where_corners_are_equal(name: str) -> None:
    loss = BOX_LOSSES[name]()
    truth, predicted = tf.constant(CORNERS[:, None, 0]), tf.Variable(CORNERS[:, None, 1])

    def gradient() -> tf.Tensor:
        with tf.GradientTape() as tape:
            value = loss(truth, predicted)
        return tape.gradient(value, predicted)

    compiled = tf.function(gradient, jit_compile=True)().numpy()
    assert np.isfinite(compiled).all()
    np.testing.assert_allclose(compiled, gradient().numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("heads", "layers", "box_head", "box_loss", "dtype"),
    [
        (["boxes"], 175, "dense", "ciou", "bfloat16"),  # phase 1
        (["labels"], 0, "dense", "ciou", "bfloat16"),  # phase 2
        (["labels", "boxes"], 20, "dense", "giou", "float32"),  # phase 3
        pytest.param(["labels", "boxes"], 20, "dense", "diou", "bfloat16", marks=pytest.mark.campaign),
        (["labels", "boxes"], 0, "pooled", "iou", "bfloat16"),
        pytest.param(["boxes"], 20, "pooled", "ciou", "float32", marks=pytest.mark.campaign),
    ],
)
def test_a_step_of_the_detector_compiles(
    heads: list[Head],
    layers: int,
    box_head: str,
    box_loss: Literal["iou", "giou", "diou", "ciou"],
    dtype: Any,
) -> None:
    detector = small_detector(box_head=box_head)
    freeze(detector, heads, layers)
    model = training_model(detector, heads)
    labels = {f"label{slot}": 1.0 for slot in range(CLASSES)}
    boxes = np.zeros((4, CLASSES, 4), np.float32)
    boxes[1:, 0], boxes[1:, 1] = CORNERS[:3, 0], CORNERS[3, 0]
    truth = {name: boxes.any(-1).astype(np.float32) if name == "labels" else boxes for name in model.output}
    before = {weight.path: keras.ops.convert_to_numpy(weight) for weight in detector.weights}

    with compute_policy(detector, dtype, 1):
        compile_model(model, PhaseConfig(box_loss=box_loss, learning_rate=1e-3), labels, 10, True)
        values = model.train_on_batch(images(4), truth, return_dict=True)

    assert all(np.isfinite(value) for value in values.values())
    learning = {weight.path for weight in model.trainable_weights}
    for weight in detector.weights:
        after = keras.ops.convert_to_numpy(weight)
        assert np.isfinite(after).all()
        if weight.path in learning:
            assert (after != before[weight.path]).any(), f"{weight.path} learns"
        elif "moving" not in weight.path and "seed" not in weight.path:
            np.testing.assert_array_equal(after, before[weight.path])
