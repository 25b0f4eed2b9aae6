"""Trainings that compute with fewer digits."""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from trainings import make_config

from brain_tumor.artifacts.model import open_model
from brain_tumor.artifacts.records import open_records
from brain_tumor.config import HEADS, ModelConfig
from brain_tumor.model.detector import build_detector, leaf_layers
from brain_tumor.model.saving import load_model
from brain_tumor.training.precision import compute_policy
from brain_tumor.training.train import train


def test_bfloat16_trains_a_float32_model(
    tiny_overrides: list[str], tiny_records: Path, tmp_path: Path
) -> None:
    config = make_config(tiny_overrides, "phase3_finetune", "training.precision=bfloat16", start="null")
    metrics = train(config, open_records(tiny_records), tmp_path / "model")

    assert np.isfinite(list(metrics.values())).all()
    model = load_model(open_model(tmp_path / "model"))
    assert {layer.dtype_policy.name for layer in leaf_layers(model)} == {"float32"}
    assert {weight.dtype for weight in model.weights} <= {"float32", "int64", "uint32"}


def test_bfloat16_keeps_what_must_be_exact() -> None:
    keras.utils.set_random_seed(0)
    config = ModelConfig(backbone="resnet50", weights="none", image_size=32, head_width=16)
    model = build_detector(config, 3, list(HEADS))
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    exact = model(images, training=False)
    with compute_policy(model, "bfloat16", 1):
        rounded = model(images, training=False)
        assert model.get_layer("preprocessing").compute_dtype == "float32"
        assert {layer.compute_dtype for layer in model.get_layer("backbone").layers} == {"bfloat16"}
    for head, answers in exact.items():
        assert rounded[head].dtype == answers.dtype == tf.float32
        difference = np.abs(np.asarray(answers) - rounded[head]).max()
        assert 0 < difference < 0.05, "it is computed with fewer digits, and not much worse"
    again = model(images, training=False)
    for head in exact:
        np.testing.assert_array_equal(exact[head], again[head])
