"""Trainings on other hardware: several devices (here two logical CPUs), and another precision."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from brain_tumor.compose import compose, step_configs
from brain_tumor.config import TrainConfig, from_json, to_json
from brain_tumor.errors import InputError
from brain_tumor.model.artifact import load_model
from brain_tumor.model.detector import build_detector
from brain_tumor.training.learner import compile_learner, computing, leaf_layers, select_learner
from brain_tumor.training.startup import choose_jit_compile, choose_precision, flatten_graphs
from brain_tumor.training.trainer import train

# One epoch on one device, and the same on two. Adam divides a gradient by its size, which makes
# rounding errors of the smallest ones into whole steps; a large epsilon leaves them small.
CHILD = """
import sys
import keras
import numpy as np
import tensorflow as tf

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
from brain_tumor.config import TrainConfig, from_json
from brain_tumor.model.artifact import load_model, read_description
from brain_tumor.step import step
from brain_tumor.training import trainer
from brain_tumor.training.optimizer import FusedAdamW

config, records, folder = from_json(TrainConfig, sys.argv[1]), sys.argv[2], sys.argv[3]
keep = FusedAdamW.__init__

def with_large_epsilon(self, *arguments, **options):
    keep(self, *arguments, epsilon=1.0, **options)

FusedAdamW.__init__ = with_large_epsilon
models, epochs = [], []
for name, devices in (("one", []), ("two", ["CPU:0", "CPU:1"])):
    trainer.training_devices = lambda: devices
    with step():
        trainer.train(config, records, f"{folder}/{name}")
    models.append(load_model(f"{folder}/{name}"))
    epochs.append(read_description(f"{folder}/{name}")["phases"][0]["epochs"][0])
for model in models:
    norms = [
        layer
        for layer in model.get_layer("backbone").layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    assert norms and not any(norm.synchronized for norm in norms)
pairs = zip(models[0].weights, models[1].weights, strict=True)
print("weights", max(float(np.abs(weight - other).max()) for weight, other in pairs))
pairs = [(value, epochs[1][name]) for name, value in epochs[0].items() if name != "seconds"]
print("figures", max(abs(value - other) for value, other in pairs))
"""


@pytest.fixture(scope="module")
def make_config(tiny_overrides: list[str]) -> Callable[..., TrainConfig]:
    """Makes the tiny config of a fine-tuning without a start model, with changes."""

    def make(*overrides: str) -> TrainConfig:
        changes = ["phases.phase3_finetune.start=null", "phases.phase3_finetune.trainable_layers=20"]
        sections = step_configs(compose([*tiny_overrides, *changes, *overrides]))
        return from_json(TrainConfig, sections["phase3_finetune"])

    return make


@pytest.mark.parametrize("one_graph", [True, False])
def test_a_step_is_traced_once(make_config: Callable[..., TrainConfig], one_graph: bool) -> None:
    """Keras would trace it twice if the first trace created a variable, of the optimizer or a metric."""
    config = make_config()
    learner = select_learner(build_detector(config.model, 3, config.phase.heads), config.phase)
    compile_learner(learner, config.phase, [1.0] * 3, 4, False)
    steps: list[str] = []
    for name in ("train_step", "test_step"):
        step = getattr(learner, name)
        setattr(learner, name, lambda data, name=name, step=step: (steps.append(name), step(data))[1])
    if one_graph:
        flatten_graphs(learner)
    truth = {"labels": np.ones((5, 3), np.float32), "boxes": np.full((5, 3, 4), 0.5, np.float32)}
    batches = tf.data.Dataset.from_tensor_slices((np.ones((5, 32, 32, 3), np.float32), truth)).batch(2)

    history = learner.fit(batches.repeat(), steps_per_epoch=2, epochs=2, validation_data=batches, verbose=0)

    assert steps == ["train_step", "test_step"]
    assert len(history.history["val_loss"]) == 2


def test_two_devices_train_as_one(
    make_config: Callable[..., TrainConfig], tiny_records: Path, tmp_path: Path
) -> None:
    # Dropout draws on each device for itself. The norm of 0.1 is one that all steps are clipped to.
    config = make_config(
        "model.dropout=0.0",
        "phases.phase3_finetune.learning_rate=0.1",
        "phases.phase3_finetune.clip_norm=0.1",
    )
    done = subprocess.run(
        [sys.executable, "-c", CHILD, to_json(config), str(tiny_records), str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    differences = {name: float(value) for name, value in map(str.split, done.stdout.splitlines())}
    assert set(differences) == {"weights", "figures"}
    assert all(0 < value < 1e-5 for value in differences.values()), differences
    assert "on 1 device(s)" in done.stderr and "on 2 device(s)" in done.stderr


def test_bfloat16_trains_a_float32_model(
    make_config: Callable[..., TrainConfig], tiny_records: Path, tmp_path: Path
) -> None:
    config = make_config("training.precision=bfloat16")
    metrics = train(config, tiny_records, tmp_path / "model")

    assert np.isfinite(list(metrics.values())).all()
    model = load_model(tmp_path / "model")
    assert {layer.dtype_policy.name for layer in leaf_layers(model)} == {"float32"}
    assert {weight.dtype for weight in model.weights} <= {"float32", "int64", "uint32"}


def test_computing_in_bfloat16_keeps_what_must_be_exact(make_config: Callable[..., TrainConfig]) -> None:
    config = make_config()
    keras.utils.set_random_seed(0)
    model = build_detector(config.model, 3, ["labels", "boxes"])
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    exact = model(images, training=False)
    with computing(model, "bfloat16", 1):
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


def test_auto_is_exact_without_a_gpu_and_the_rest_is_refused() -> None:
    if not tf.config.list_physical_devices("GPU"):
        assert choose_precision("auto") == "float32"
    assert choose_precision("bfloat16") == "bfloat16"
    with pytest.raises(
        InputError, match="precision=float16 is not known; choose one of auto, float32, bfloat16"
    ):
        choose_precision("float16")


def test_xla_compiles_for_one_gpu_alone() -> None:
    assert [choose_jit_compile(devices) for devices in ([], ["GPU:0"], ["GPU:0", "GPU:1"])] == [
        False,
        "auto",
        False,
    ]
