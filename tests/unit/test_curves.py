"""ROC curves and confusion matrices as plain numbers."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import auc, roc_auc_score

from brain_tumor.evaluation.curves import calibration_bins, label_curves, repeat_points


def make_rows(present: list[bool], probability: list[float]) -> pd.DataFrame:
    return pd.DataFrame({"present": present, "probability": probability})


def test_by_hand() -> None:
    curves = label_curves(make_rows([True, True, True, False, False], [0.9, 0.8, 0.2, 0.5, 0.1]), 0.5)
    assert curves.confusion_matrix == [
        [1, 1],
        [1, 2],
    ]  # rows: truth, columns: prediction; absent, then present
    assert curves.roc is not None
    assert curves.roc.fpr == [0.0, 0.0, 0.0, 0.5, 0.5, 1.0]
    assert curves.roc.tpr == pytest.approx([0, 1 / 3, 2 / 3, 2 / 3, 1, 1])
    assert curves.roc.thresholds == [1.0, 0.9, 0.8, 0.5, 0.2, 0.1]


def test_many_points_are_thinned_without_changing_the_curve() -> None:
    rng = np.random.default_rng(0)
    present = rng.random(5000) < 0.5
    probability = np.clip(0.25 * present + 0.75 * rng.random(5000), 0, 1)
    curves = label_curves(make_rows(present.tolist(), probability.tolist()), 0.5)
    roc = curves.roc
    assert roc is not None
    assert len(roc.fpr) == len(roc.tpr) == len(roc.thresholds) == 100
    assert (roc.fpr[0], roc.tpr[0], roc.fpr[-1], roc.tpr[-1]) == (0, 0, 1, 1)
    assert roc.thresholds == sorted(roc.thresholds, reverse=True)
    assert auc(roc.fpr, roc.tpr) == pytest.approx(roc_auc_score(present, probability), abs=0.005)


def test_numbers_are_plain_and_finite() -> None:
    curves = label_curves(make_rows([True, False], [1.0, 0.0]), 0.5)
    assert curves.roc is not None
    values = [*curves.roc.fpr, *curves.roc.tpr, *curves.roc.thresholds]
    assert {type(value) for value in values} == {float}
    assert {type(cell) for row in curves.confusion_matrix for cell in row} == {int}
    json.dumps(values, allow_nan=False)


@pytest.mark.parametrize("present", [True, False])
def test_a_single_class_has_no_roc_curve(present: bool) -> None:
    curves = label_curves(make_rows([present] * 3, [0.9, 0.6, 0.1]), 0.5)
    assert curves.roc is None
    assert curves.confusion_matrix == ([[0, 0], [1, 2]] if present else [[1, 2], [0, 0]])


def test_a_dashboards_spline_shows_the_true_steps() -> None:
    """Rates rise strictly within the axis, and each point stays almost where it was."""
    rng = np.random.default_rng(1)
    present = rng.random(900) < 0.5
    rows = make_rows(present.tolist(), np.clip(0.4 * present + 0.6 * rng.random(900), 0, 1).tolist())
    roc = label_curves(rows, 0.5).roc
    assert roc is not None
    proof = repeat_points(roc)
    assert len(proof.fpr) == len(proof.tpr) == len(proof.thresholds) == 3 * len(roc.fpr) <= 300
    assert (np.diff(proof.fpr) > 0.9e-6).all() and proof.fpr[0] >= 0 and proof.fpr[-1] <= 1
    np.testing.assert_allclose(proof.fpr, np.repeat(roc.fpr, 3), atol=3e-4)
    assert proof.tpr == np.repeat(roc.tpr, 3).tolist()
    assert auc(proof.fpr, proof.tpr) == pytest.approx(auc(roc.fpr, roc.tpr), abs=3e-4)
    assert len(json.dumps(proof.model_dump(), allow_nan=False)) < 30_000


def test_a_perfect_curve_stays_within_the_axis() -> None:
    roc = label_curves(make_rows([True, False], [1.0, 0.0]), 0.5).roc
    assert roc is not None
    proof = repeat_points(roc)
    assert min(proof.fpr) >= 0 and max(proof.fpr) <= 1 and (np.diff(proof.fpr) > 0.9e-6).all()


def test_calibration_bins_by_hand() -> None:
    weight, mean, share = calibration_bins(make_rows([True, False, True], [0.01, 0.03, 1.0]))
    assert weight.tolist() == pytest.approx([2 / 3, 1 / 3])
    assert mean.tolist() == pytest.approx([0.02, 1.0]) and share.tolist() == [0.5, 1.0]
