"""The verdict on evaluations with known figures."""

import pytest

from brain_tumor.artifacts.dataset import Leakage, SharedBySplits
from brain_tumor.artifacts.evaluation import ALL, Evaluation, Interval, LabelCurves, ModelEvaluation
from brain_tumor.artifacts.predictions import EvaluationData
from brain_tumor.reports.verdict import verdict, verdict_text

TITLES = {"constant": "constant baseline", "baseline_box": "baseline box (frozen random backbone)"}
ABOUT_BOXES = {"mean_iou": 0.5, "shuffled_iou": 0.1, "center_spread": 0.9, "box_ap50": 0.4, "macro_f1": 0.7}


def sure(low: float, high: float) -> Interval:
    return Interval(value=(low + high) / 2, low=low, high=high, patients=30)


def make_evaluation(
    differences: dict[str, dict[str, Interval]],
    figures: dict[str, float] | None = None,
    gain: Interval | None = None,
    patients: int | None = 30,
    shared: SharedBySplits | None = None,
    matrix: list[list[int]] | None = None,
) -> Evaluation:
    """One final model and its differences from others; differences that are not given are 0."""
    final = ModelEvaluation(
        title="final model",
        mlflow_run_id="",
        thresholds={"a": 0.5},
        figures=ABOUT_BOXES | (figures or {}),
        labels={"a": {}},
        intervals={},
        label_intervals={},
        iou_from_image=gain or sure(0.3, 0.5),
        curves={"a": LabelCurves(roc=None, confusion_matrix=matrix or [[30, 20], [10, 40]])},
        micro=None,
    )
    none = Interval(value=None, reason="there is none")
    names = ("macro_f1", "mean_iou", "box_ap50")
    leakage = Leakage(used={"train/test": shared} if shared else {}, provided={})
    return Evaluation(
        notice="",
        split="test",
        threshold=0.5,
        patients=patients,
        images=100,
        boxes=50,
        absent_labels=[],
        models={"final": final}
        | {name: final.model_copy(update={"title": TITLES[name]}) for name in differences},
        differences={
            other: {ALL: {name: found.get(name, none) for name in names}}
            for other, found in differences.items()
        },
        trainings={},
        configs={},
        data=EvaluationData(source="made up", splits={}, class_counts={}, leakage=leakage),
    )


def test_better_than_the_constant_baseline() -> None:
    found = make_evaluation({"constant": {"macro_f1": sure(0.1, 0.2), "mean_iou": sure(0.3, 0.4)}})
    assert verdict(found) == [
        "The final model beats the constant baseline in macro_f1 0.700 (+0.150 [+0.100, +0.200]), "
        "mean_iou 0.500 (+0.350 [+0.300, +0.400]).",
        "The boxes depend on the image: mean_iou is 0.500, and 0.100 with boxes predicted for other images; "
        "their centers spread 0.90 times as far as the true ones.",
    ]


def test_a_worse_model_is_reported_as_worse() -> None:
    others = {
        "baseline_box": {"mean_iou": sure(-0.2, -0.1), "box_ap50": sure(-0.1, 0.1)},
        "constant": {"macro_f1": sure(-0.2, -0.1), "mean_iou": sure(0.1, 0.2)},
    }
    first, second, *rest = verdict(make_evaluation(others))
    assert first.startswith("The final model loses to the constant baseline in macro_f1 0.700 (-0.150 [")
    assert "; it beats it in mean_iou" in first
    assert second.startswith("The final model loses to the baseline box in mean_iou 0.500 (-0.150")
    assert "; it does not differ clearly from it in box_ap50 0.400 (+0.000 [-0.100, +0.100])." in second
    advice = [line for line in rest if line.startswith("Try: ")]
    assert len(advice) == 2 and "imagenet" in advice[0] and "phases=joint" in advice[1]


def test_without_intervals_nothing_is_decided() -> None:
    few = Interval(value=0.3, patients=2, reason="only 2 patients, 10 are needed")
    line, *_ = verdict(make_evaluation({"constant": {"mean_iou": few}}))
    assert line == (
        "The final model does not differ clearly from the constant baseline in mean_iou 0.500 (+0.300) "
        "(only 2 patients, 10 are needed)."
    )


@pytest.mark.parametrize(
    ("figures", "gain"),
    [({"center_spread": 0.05}, sure(0.05, 0.1)), ({}, sure(-0.01, 0.1)), ({}, sure(0.005, 0.02))],
)
def test_boxes_that_ignore_the_image_are_reported(figures: dict[str, float | None], gain: Interval) -> None:
    lines = verdict(make_evaluation({}, figures=figures, gain=gain))
    assert lines[0].startswith("The boxes hardly depend on the image: mean_iou is 0.500, and 0.100 with")
    assert lines[1].startswith("Try: more epochs")


def test_boxes_that_cannot_be_shuffled_have_no_verdict() -> None:
    alone: dict[str, float] = {"shuffled_iou": None, "center_spread": None}
    assert verdict(make_evaluation({}, figures=alone, gain=Interval(value=None))) == []


def test_suspicious_properties_are_reported() -> None:
    shared = SharedBySplits(shared_patients=3, patients=["1"], identical_images=0, near_duplicates=7)
    everywhere = [[1, 0], [0, 99]]
    lines = verdict(make_evaluation({}, shared=shared, matrix=everywhere))[1:]
    assert lines == [
        "Suspicious: train and test share 3 patients.",
        "Suspicious: 7 of 100 images of test have a near-duplicate in train.",
        "Suspicious: a is in 99.0% of the images, so always predicting it has a high f1.",
        "Try: dataset.split=patient, with no patient in two splits.",
    ]
    unknown = verdict(make_evaluation({}, patients=None))[1:]
    assert unknown[0].startswith("Suspicious: patients are unknown")
    assert unknown[1].startswith("Try: dataset.filename_pattern")


def test_lines_fit_a_terminal() -> None:
    text = verdict_text(
        make_evaluation({"constant": {"macro_f1": sure(0.1, 0.2), "mean_iou": sure(0.3, 0.4)}})
    )
    assert max(map(len, text.splitlines())) <= 110
    assert text.startswith("The final model beats")
