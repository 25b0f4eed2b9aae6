"""Phases as configuration: their order, the models to evaluate, and invalid phases."""

import pytest

from brain_tumor.config import StepConfigs
from brain_tumor.configure import configure
from brain_tumor.runtime.errors import InputError


def refusal(*overrides: str) -> str:
    with pytest.raises(InputError) as caught:
        configure(list(overrides))
    return str(caught.value)


def order(steps: StepConfigs) -> list[str]:
    return list(steps.trainings)


def test_phases_come_after_their_start_phase() -> None:
    steps = configure(["phases.phase1_box.start=baseline_box", "phases.baseline_box.heads=[boxes,labels]"])
    assert order(steps).index("baseline_box") < order(steps).index("phase1_box")
    both = "phases.baseline_classification.heads=[labels,boxes]"
    moved = configure(["phases.baseline_classification.start=phase3_finetune", both])
    assert order(moved)[-1] == "baseline_classification"
    assert (moved.final, moved.baselines) == ("phase3_finetune", ["baseline_box", "baseline_classification"])


def test_a_sixth_phase_needs_only_configuration() -> None:
    steps = configure(["+phases.phase4={start: phase3_finetune, learning_rate: 1e-6}", "final=phase4"])
    assert order(steps)[-1] == "phase4"
    assert steps.trainings["phase4"].phase.learning_rate == 1e-6
    assert steps.baselines == ["baseline_classification", "baseline_box"]


def test_a_joint_training_exists_for_both_profiles() -> None:
    for profile, epochs in (("quick", 7), ("full", 100)):
        steps = configure(["phases=joint", f"profile={profile}"])
        assert order(steps) == ["baseline_classification", "baseline_box", "joint"]
        assert (steps.final, steps.trainings["joint"].phase.epochs) == ("joint", epochs)
        assert steps.trainings["joint"].phase.trained_heads == ["labels", "boxes"]


def test_a_phase_can_be_removed() -> None:
    steps = configure(["~phases.baseline_box", "~phases.baseline_classification"])
    assert order(steps) == ["phase1_box", "phase2_classification", "phase3_finetune"]
    assert steps.baselines == []


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ["phases.phase1_box.start=phase0"],
            "phases.phase1_box.start=phase0, which is not one of the phases",
        ),
        (
            ["phases.phase1_box.start=phase3_finetune"],
            "phases that start from each other: phase1_box, phase2_classification, phase3_finetune.",
        ),
        (["phases.phase1_box.start=phase1_box"], "phases that start from each other: phase1_box, "),
        (
            ["phases.baseline_box.start=phase1_box"],
            "phases.baseline_box.heads=['boxes'], but phase1_box, which it starts from, has",
        ),
        (["final=phase9"], "final=phase9, which is not one of the phases"),
        (["final=baseline_box"], "final=baseline_box, but that phase's model lacks one of the heads"),
        (["+phases.Phase4.epochs=1"], "names a phase 'Phase4'"),
        (["+phases.records.epochs=1"], "names a phase 'records'"),
        ([f"+phases.extra{i}.epochs=1" for i in range(3)], "has 5 models to compare with the final one"),
        (["phases.phase1_box.heads=[]"], "phases.phase1_box has heads=[]"),
        (["phases.baseline_box.train_heads=[labels]"], "but heads=['boxes'] lack labels"),
        (["phases.phase1_box.loss_weights.boxes=0"], "loss_weights are 0: nothing would be trained"),
        (["phases.phase1_box.monitor=val_labels_auc"], "which the phase does not train; give val_boxes_iou."),
        (["phases.phase1_box.monitor=val_both"], "which the phase does not train; give val_boxes_iou."),
        (["phases.phase2_classification.monitor=val_both"], "does not train; give val_labels_auc."),
        (
            ["phases.phase3_finetune.trainable_fraction=0.5"],
            "phases.phase3_finetune has both trainable_layers and trainable_fraction",
        ),
    ],
)
def test_phases_that_cannot_be_trained_are_refused(overrides: list[str], words: str) -> None:
    assert words in refusal(*overrides)
