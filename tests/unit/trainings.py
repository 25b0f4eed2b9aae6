"""What tests of trainings share: configs of one phase, and models by it."""

from typing import Any

from brain_tumor.config import TrainConfig
from brain_tumor.config.compose import compose

# On features that are computed once, at a rate so high that the model soon gets worse again, and that is the
# same however many epochs there are.
HASTY: dict[str, Any] = {
    "trainable_fraction": 0.0,
    "augment": "false",
    "learning_rate": 1e-2,
    "schedule": "plateau",
}


def make_config(overrides: list[str], name: str, *more: str, **phase: Any) -> TrainConfig:
    """The config of one training.

    Args:
        overrides: Hydra's overrides.
        name: The phase.
        more: Further overrides.
        phase: Values of the phase's own keys.
    """
    changes = [f"phases.{name}.{key}={value}" for key, value in phase.items()]
    return compose([*overrides, *more, *changes]).steps().trainings[name]


def without_seconds(epochs: list[dict[str, float]]) -> list[dict[str, float]]:
    """The figures of epochs that a repetition must have too."""
    return [{name: value for name, value in epoch.items() if name != "seconds"} for epoch in epochs]


def changed_weights(before: Any, after: Any) -> set[str]:
    """Paths of the weights of two Keras models that are not bit-identical."""
    pairs = list(zip(before.weights, after.weights, strict=True))
    assert all(weight.path == other.path for weight, other in pairs)
    return {weight.path for weight, other in pairs if weight.numpy().tobytes() != other.numpy().tobytes()}
