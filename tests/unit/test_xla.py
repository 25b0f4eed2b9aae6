"""What a GPU would compile: no GPU is needed to find out that XLA refuses it or answers with NaN."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from brain_tumor.losses import BOX_LOSSES, WeightedBinaryCrossentropy
from brain_tumor.model.heads import BOX_HEADS, label_head
from brain_tumor.training.precision import compute_policy

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
    loss = BOX_LOSSES[name](0.5)
    truth, predicted = tf.constant(CORNERS[:, None, 0]), tf.Variable(CORNERS[:, None, 1])

    def gradient() -> tf.Tensor:
        with tf.GradientTape() as tape:
            value = loss(truth, predicted)
        return tape.gradient(value, predicted)

    compiled = tf.function(gradient, jit_compile=True)().numpy()
    assert np.isfinite(compiled).all()
    np.testing.assert_allclose(compiled, gradient().numpy(), atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("head", BOX_HEADS)
def test_a_step_of_both_heads_compiles(head: str, dtype: str) -> None:
    keras.utils.set_random_seed(0)
    sizes = (8, 4, 2)
    inputs = [keras.Input((size, size, 16)) for size in sizes]
    # They stand for a backbone, whose layers compute in the step's type too.
    features = [keras.layers.Conv2D(16, 1)(each) for each in inputs]
    heads = {"labels": label_head(features[-1], 3, 0.2), "boxes": BOX_HEADS[head](features, 3, 16)}
    model = keras.Model(inputs, heads)
    images = [np.random.default_rng(size).random((4, size, size, 16), np.float32) for size in sizes]
    boxes = np.concatenate([np.zeros((1, 3, 4)), np.tile(CORNERS[:3, :1], (1, 3, 1))]).astype(np.float32)
    truth = {"labels": boxes.any(-1).astype(np.float32), "boxes": boxes}
    losses = {"labels": WeightedBinaryCrossentropy([1.0, 2.0, 3.0]), "boxes": BOX_LOSSES["ciou"](0.5)}
    before = [keras.ops.convert_to_numpy(weight) for weight in model.trainable_weights]

    with compute_policy(model, dtype, 1):
        model.compile("adam", loss=losses, jit_compile=True)
        values = model.train_on_batch(images, truth)

    assert np.isfinite(values).all()
    after = [keras.ops.convert_to_numpy(weight) for weight in model.trainable_weights]
    assert all(np.isfinite(weight).all() for weight in after)
    assert all((old != new).any() for old, new in zip(before, after, strict=True)), "all of it learns"
