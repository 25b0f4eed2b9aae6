"""Trainable and frozen parts in each of the five phases of `phases=mission`."""

from pathlib import Path

import keras
import pytest

from brain_tumor.artifacts.model import Model, open_model
from brain_tumor.artifacts.records import open_records
from brain_tumor.config import TrainConfig
from brain_tumor.config.compose import compose
from brain_tumor.model.detector import build_detector
from brain_tumor.model.saving import load_model
from brain_tumor.training.train import train
from tests.unit.trainings import changed_weights

pytestmark = [pytest.mark.slow, pytest.mark.heavy]

# By phase: its start, the trainable heads, and the number of trainable layers of the backbone's 175.
# The shared tiny configuration freezes a part in phase 1, where the default one unfreezes everything.
TRAININGS = {
    "baseline_classification": (None, {"labels"}, 0),
    "baseline_box": (None, {"boxes"}, 0),
    "phase1_box": (None, {"boxes"}, 17),
    "phase2_classification": ("phase1_box", {"labels"}, 0),
    "phase3_finetune": ("phase2_classification", {"labels", "boxes"}, 20),
}
# Normalizations of a head: the pyramid has one per map (four) and one for their sum, each tower has two.
NORMALIZATIONS = {"labels": 1, "boxes": 9}


@pytest.fixture(scope="module")
def configs(tiny_overrides: list[str]) -> dict[str, TrainConfig]:
    trainings = compose(tiny_overrides).steps().trainings
    return {name: trainings[name] for name in TRAININGS}


@pytest.fixture(scope="module")
def models(
    configs: dict[str, TrainConfig], tiny_records: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Model]:
    """The trained models of all phases, by name."""
    folder, records = tmp_path_factory.mktemp("models"), open_records(tiny_records)
    made: dict[str, Model] = {}
    for name, (start, _, _) in TRAININGS.items():
        train(configs[name], records, folder / name, made[start] if start else None)
        made[name] = open_model(folder / name)
    return made


@pytest.mark.parametrize("name", TRAININGS)
def test_frozen_weights_stay_bit_identical_and_all_others_change(
    name: str, configs: dict[str, TrainConfig], models: dict[str, Model]
) -> None:
    start, heads, layers = TRAININGS[name]
    after = load_model(models[name])
    if start:
        before = load_model(models[start])
    else:
        keras.utils.set_random_seed(configs[name].seed)
        before = build_detector(configs[name].model, 3, configs[name].phase.heads)
    changed = changed_weights(before, after)

    backbone = after.get_layer("backbone").layers
    assert len(backbone) == 175
    learning = {weight.path for layer in backbone[175 - layers :] for weight in layer.weights}
    of_heads = {weight.path for weight in after.weights if weight.path.split("_")[0].split("/")[0] in heads}
    learning |= of_heads

    frozen = {weight.path for weight in after.weights} - learning
    assert changed & frozen == set(), "this includes moving statistics"
    # A bias before a normalization has no effect and no gradient; rounding may leave it unchanged.
    assert {path for path in learning - changed if not path.endswith("conv/bias")} == set()
    assert statistics(learning - of_heads) == 2 * normalizations(backbone, layers)
    assert statistics(of_heads) == 2 * sum(NORMALIZATIONS[head] for head in heads)


def statistics(paths: set[str]) -> int:
    """The number of moving statistics among these weights."""
    return len([path for path in paths if "/moving_" in path])


def normalizations(backbone: list[keras.layers.Layer], layers: int) -> int:
    """The number of normalizations in the backbone's top layers; each has two moving statistics."""
    top = backbone[len(backbone) - layers :]
    return len([layer for layer in top if isinstance(layer, keras.layers.BatchNormalization)])
