import keras
import numpy as np
import pytest

from brain_tumor.config import PhaseConfig
from brain_tumor.training.compile import build_optimizer
from brain_tumor.training.optimizer import FusedAdamW

pytestmark = pytest.mark.slow

STEPS = 8


def trained(optimizer: keras.optimizers.Optimizer) -> list[list[np.ndarray]]:
    """A small model's weights before and after each step with an optimizer, on the same batches."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ]
    )
    model.compile(optimizer, loss="mse", jit_compile=False)
    rng = np.random.default_rng(0)
    history = [model.get_weights()]
    for _ in range(STEPS):
        # Large targets: their gradients are far above the clipping norm.
        model.train_on_batch(rng.normal(size=(5, 6, 6, 2)), 100 * rng.normal(size=(5, 3)))
        history.append(model.get_weights())
    return history


@pytest.mark.parametrize(
    "options",
    [
        {"learning_rate": 1e-2, "weight_decay": 0.0},
        {"learning_rate": 1e-2, "weight_decay": 0.1},
        {"learning_rate": 3e-3, "weight_decay": 0.1, "global_clipnorm": 1.0},
    ],
    ids=["plain", "decay", "decay and clipping"],
)
def test_it_equals_adamw_of_keras(options: dict[str, float]) -> None:
    expected = trained(keras.optimizers.AdamW(**options))
    fused = trained(FusedAdamW(**options))

    for step in range(1, STEPS + 1):
        for before, weight, other in zip(expected[step - 1], expected[step], fused[step], strict=True):
            assert not np.array_equal(before, weight)
            np.testing.assert_allclose(other, weight, rtol=1e-4, atol=1e-6)


def test_decay_and_clipping_affect_the_comparison() -> None:
    """The options above change the result, so that the comparison is meaningful."""
    rate = {"learning_rate": 3e-3}
    results = [
        trained(FusedAdamW(**rate, **more))[-1][0]
        for more in ({"weight_decay": 0.0}, {"weight_decay": 0.1}, {"weight_decay": 0.1, "epsilon": 1.0})
    ]
    assert np.abs(results[0] - results[1]).max() > 1e-4
    # Adam's step depends on the gradient's size only through epsilon, where clipping has an effect.
    clipped = trained(FusedAdamW(**rate, weight_decay=0.1, epsilon=1.0, global_clipnorm=1.0))[-1][0]
    assert np.abs(results[2] - clipped).max() > 1e-4


def test_a_changed_rate_takes_effect() -> None:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    optimizer = FusedAdamW(1e-2, weight_decay=0.1)
    model.compile(optimizer, loss="mse")
    x, y = np.ones((2, 4)), np.ones((2, 2))
    model.train_on_batch(x, y)
    optimizer.learning_rate = 0.0
    before = model.get_weights()
    model.train_on_batch(x, y)
    for weight, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, other)


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_weight_decay_leaves_biases_and_normalizations_alone(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without gradients, weights shrink only by weight decay. Other backends use Keras's own AdamW."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            keras.layers.Conv2D(4, 3, bias_initializer="ones"),
            keras.layers.BatchNormalization(beta_initializer="ones"),
            keras.layers.Flatten(),
            keras.layers.Dense(5, bias_initializer="ones"),
            keras.layers.LayerNormalization(beta_initializer="ones"),
        ]
    )
    with monkeypatch.context() as patch:
        patch.setattr(keras.backend, "backend", lambda: backend)
        optimizer = build_optimizer(PhaseConfig(learning_rate=0.1, weight_decay=0.5), 10)
    assert type(optimizer) is (FusedAdamW if backend == "tensorflow" else keras.optimizers.AdamW)
    before = {variable.path: variable.numpy() for variable in model.trainable_variables}
    optimizer.build(model.trainable_variables)

    optimizer.apply([np.zeros(variable.shape, np.float32) for variable in model.trainable_variables])

    seen = set()
    for variable in model.trainable_variables:
        factor = 1 - 0.1 * 0.5 if variable.name == "kernel" else 1
        np.testing.assert_allclose(variable, factor * before[variable.path], rtol=1e-6)
        assert np.abs(before[variable.path]).min() > 0
        seen.add(variable.name)
    assert seen == {"kernel", "bias", "gamma", "beta"}
