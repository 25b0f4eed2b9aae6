"""Shared by tests of the model: small detectors and their predictions."""

from typing import Any

import keras
import numpy as np

from brain_tumor.config import HEADS, Head, ModelConfig
from brain_tumor.model.detector import build_detector

CLASSES = 5
BOTH: list[Head] = list(HEADS)


def model_config(**changes: Any) -> ModelConfig:
    """A ResNet50 on 32 px, with random weights."""
    small = {"backbone": "resnet50", "weights": "none", "image_size": 32, "head_width": 16}
    return ModelConfig.model_validate({**small, "batchnorm_momentum": 0.87, **changes})


def small_detector(**changes: Any) -> keras.Model:
    """A detector with both heads for this config."""
    keras.utils.set_random_seed(0)
    return build_detector(model_config(**changes), CLASSES, BOTH)


def answer(model: keras.Model, inputs: np.ndarray) -> dict[str, np.ndarray]:
    """A model's predictions by head. A direct call, since `predict` would trace a graph first."""
    return {head: values.numpy() for head, values in model(inputs, training=False).items()}


def images(count: int, size: int = 32) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (count, size, size, 3)).astype(np.float32)


def check_boxes(boxes: np.ndarray) -> None:
    """Checks that boxes are valid: 0 <= xmin <= xmax <= 1, and the same for y."""
    assert np.isfinite(boxes).all()
    assert (boxes >= 0).all() and (boxes <= 1).all()
    assert (boxes[..., :2] <= boxes[..., 2:]).all()


def backbone_paths(backbone: keras.Model) -> set[str]:
    """The paths of a backbone's weights."""
    return {weight.path for weight in backbone.weights}
