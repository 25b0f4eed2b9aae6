from typing import Any

import pytest

from brain_tumor.config import TrainConfig
from brain_tumor.config.training import LossWeights
from brain_tumor.configure import configure

PHASES = ("baseline_classification", "baseline_box", "phase1_box", "phase2_classification", "phase3_finetune")


@pytest.fixture(scope="module")
def full() -> dict[str, TrainConfig]:
    return configure(["profile=full"]).trainings


def test_the_full_profile_has_the_required_model_and_batch(full: dict[str, TrainConfig]) -> None:
    for config in full.values():
        assert config.model.backbone == "resnet101"
        assert config.model.weights == "imagenet"
        assert config.model.image_size == 240
        assert config.batch_size == 64


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "phase1_box",
            {
                "heads": ["labels", "boxes"],
                "train_heads": ["boxes"],
                "learning_rate": 3e-4,
                "clip_norm": None,
                "epochs": 50,
                "loss_weights": LossWeights(),
                "trainable_layers": None,
                "trainable_fraction": None,
                "monitor": "val_boxes_iou",
            },
        ),
        (
            "phase2_classification",
            {
                "heads": ["labels", "boxes"],
                "train_heads": ["labels"],
                "learning_rate": 1e-4,
                "clip_norm": None,
                "epochs": 5,
                "loss_weights": LossWeights(),
                "trainable_layers": None,
                "trainable_fraction": 0.0,
                "monitor": "val_labels_auc",
            },
        ),
        (
            "phase3_finetune",
            {
                "heads": ["labels", "boxes"],
                "train_heads": ["labels", "boxes"],
                "learning_rate": 1e-5,
                "clip_norm": 1.0,
                "epochs": 70,
                "loss_weights": LossWeights(),
                "trainable_layers": 150,
                "trainable_fraction": None,
                "monitor": "val_both",
            },
        ),
        (
            "baseline_classification",
            {"heads": ["labels"], "train_heads": ["labels"], "trainable_fraction": None, "epochs": 100},
        ),
        (
            "baseline_box",
            {"heads": ["boxes"], "train_heads": ["boxes"], "trainable_fraction": None, "epochs": 100},
        ),
    ],
)
def test_the_full_profile_has_the_required_phase_settings(
    full: dict[str, TrainConfig], name: str, expected: dict[str, Any]
) -> None:
    phase = full[name].phase
    assert {key: getattr(phase, key) for key in expected} == expected


def test_a_profile_changes_only_configured_phases() -> None:
    quick = configure([]).trainings
    assert list(quick) == list(PHASES)
    assert [config.phase.epochs for config in quick.values()] == [20, 5, 5, 20, 4]
    assert {config.model.image_size for config in quick.values()} == {64}
    frozen = {name for name, config in quick.items() if config.phase.trainable_fraction == 0}
    assert frozen == {*PHASES} - {"phase3_finetune"}
    assert not any(quick[name].phase.augment for name in frozen)
