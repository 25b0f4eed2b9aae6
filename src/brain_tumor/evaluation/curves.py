"""ROC curves, confusion matrices and calibration, as plain Python numbers for a dashboard."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, roc_curve

from brain_tumor.artifacts.evaluation import LabelCurves, RocCurve
from brain_tumor.config import Threshold
from brain_tumor.evaluation.thresholds import decisions

MOST_POINTS = 100
BINS = 15
# Distance between repeated points, so that a dashboard's spline goes straight through them.
APART = 1e-6


def label_curves(rows: pd.DataFrame, threshold: Threshold) -> LabelCurves:
    """Computes the curves of one label and model, or of all its labels pooled.

    Args:
        rows: Rows of the predictions table: of one label and a model with a class head.
        threshold: Probability from which the label counts as predicted (confusion matrix), see `decisions`.
    """
    present, probability = rows["present"].to_numpy(bool), rows["probability"].to_numpy(float)
    matrix = confusion_matrix(present, decisions(rows, threshold), labels=[False, True]).tolist()
    if present.all() or not present.any():
        return LabelCurves(roc=None, confusion_matrix=matrix)
    fpr, tpr, thresholds = roc_curve(present, probability)
    kept = np.unique(np.linspace(0, len(fpr) - 1, MOST_POINTS).round().astype(int))
    thresholds = np.minimum(thresholds, 1.0)
    roc = RocCurve(fpr=fpr[kept].tolist(), tpr=tpr[kept].tolist(), thresholds=thresholds[kept].tolist())
    return LabelCurves(roc=roc, confusion_matrix=matrix)


def spline_proof(roc: RocCurve) -> RocCurve:
    """Repeats the curve's points so that Kubeflow's dashboard draws its steps.

    The dashboard keeps one point per false positive rate and fits a spline to them. So each point is given
    three times, at rates that rise by a millionth and stay between 0 and 1.
    """
    rates = np.repeat(roc.fpr, 3)
    place = np.arange(len(rates)) * APART
    # Rates rise by at least a millionth from the left; those pushed beyond 1 are shifted back from the right.
    rates = np.maximum.accumulate(rates - place) + place
    rates = np.minimum(rates, 1.0 - place[::-1])
    return RocCurve(
        fpr=rates.tolist(),
        tpr=np.repeat(roc.tpr, 3).tolist(),
        thresholds=np.repeat(roc.thresholds, 3).tolist(),
    )


def calibration_bins(
    rows: pd.DataFrame,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Bins predicted probabilities for a calibration curve.

    Args:
        rows: Rows of one model that has a class head.

    Returns:
        For each non-empty one of 15 equally wide bins: the share of the rows in it, their mean probability,
        and the share of them whose label is present.
    """
    present, probability = rows["present"].to_numpy(float), rows["probability"].to_numpy(float)
    place = np.minimum((probability * BINS).astype(int), BINS - 1)
    count, mean, shown = (np.bincount(place, own, BINS) for own in (np.ones(len(rows)), probability, present))
    filled = count > 0
    return count[filled] / len(rows), mean[filled] / count[filled], shown[filled] / count[filled]
