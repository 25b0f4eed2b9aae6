"""Trainings with reduced precision."""

from pathlib import Path
from typing import Literal

import keras
import numpy as np
import pytest
import tensorflow as tf

from brain_tumor.artifacts.model import open_model
from brain_tumor.artifacts.records import open_records
from brain_tumor.config import HEADS, ModelConfig
from brain_tumor.model.detector import build_detector, leaf_layers, training_model
from brain_tumor.model.saving import load_model
from brain_tumor.training.precision import compute_policy
from brain_tumor.training.train import train
from tests.unit.trainings import make_config

pytestmark = pytest.mark.slow


def test_bfloat16_trains_a_float32_model(
    tiny_overrides: list[str], tiny_records: Path, tmp_path: Path
) -> None:
    config = make_config(tiny_overrides, "phase3_finetune", "training.precision=bfloat16", start="null")
    metrics = train(config, open_records(tiny_records), tmp_path / "model")

    assert np.isfinite(list(metrics.values())).all()
    model = load_model(open_model(tmp_path / "model"))
    assert {layer.dtype_policy.name for layer in leaf_layers(model)} == {"float32"}
    assert {weight.dtype for weight in model.weights} <= {"float32", "int64", "uint32"}


@pytest.mark.parametrize("head", ["dense", "pooled"])
def test_bfloat16_keeps_exact_parts_exact(head: Literal["dense", "pooled"]) -> None:
    keras.utils.set_random_seed(0)
    config = ModelConfig(backbone="resnet50", weights="none", image_size=32, head_width=16, box_head=head)
    model = build_detector(config, 3, list(HEADS))
    trained = training_model(model, list(HEADS))
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    exact, answers = trained(images, training=False), model(images, training=False)
    with compute_policy(model, "bfloat16", 1):
        rounded = trained(images, training=False)
        policies = {layer.name: layer.compute_dtype for layer in leaf_layers(model)}
        again = trained(images.astype(np.float32), training=False)
    expected = {"rgb", "preprocessing", "labels_logits", "labels", "boxes"}
    expected = expected - {"boxes"} | {"boxes_map", "boxes_best"} if head == "dense" else expected
    assert {name for name, dtype in policies.items() if dtype == "float32"} == expected
    assert len([name for name, dtype in policies.items() if dtype == "bfloat16"]) > 175, "all others"

    for name, values in exact.items():
        assert rounded[name].dtype == values.dtype == tf.float32
        np.testing.assert_array_equal(rounded[name], again[name], "grey levels are exact")
        if name == "boxes" and head == "dense":
            continue  # another position may be chosen
        difference = np.abs(np.asarray(values) - rounded[name])
        assert difference.max() > 0, "it is computed with reduced precision"
        assert difference.mean() < 0.1 * np.std(values), "but is not much worse"
    for name, values in model(images, training=False).items():
        np.testing.assert_array_equal(values, answers[name])
