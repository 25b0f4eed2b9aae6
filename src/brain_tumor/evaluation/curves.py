"""ROC curves, confusion matrices and calibration bins."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, roc_curve

from brain_tumor.artifacts.evaluation import LabelCurves, RocCurve
from brain_tumor.config import Threshold
from brain_tumor.evaluation.thresholds import decisions

MAX_POINTS = 100
BINS = 15
MIN_DISTANCE = 1e-6  # between the false positive rates of repeated points


def label_curves(rows: pd.DataFrame, threshold: Threshold) -> LabelCurves:
    """Computes the ROC curve and confusion matrix of one label and model, or of all its labels pooled.

    Args:
        rows: Rows of the predictions table, of one model with a class head.
        threshold: The decision threshold of the confusion matrix, see `decisions`.

    Returns:
        Plain Python numbers; the ROC curve is None if the label is present in all rows or in none.
    """
    present, probability = rows["present"].to_numpy(bool), rows["probability"].to_numpy(float)
    matrix = confusion_matrix(present, decisions(rows, threshold), labels=[False, True]).tolist()
    if present.all() or not present.any():
        return LabelCurves(roc=None, confusion_matrix=matrix)
    fpr, tpr, thresholds = roc_curve(present, probability)
    kept = np.unique(np.linspace(0, len(fpr) - 1, MAX_POINTS).round().astype(int))
    thresholds = np.minimum(thresholds, 1.0)
    roc = RocCurve(fpr=fpr[kept].tolist(), tpr=tpr[kept].tolist(), thresholds=thresholds[kept].tolist())
    return LabelCurves(roc=roc, confusion_matrix=matrix)


def repeat_points(roc: RocCurve) -> RocCurve:
    """Repeats the curve's points so that Kubeflow's dashboard draws its steps.

    The dashboard keeps one point per false positive rate and fits a spline to them. So each point is
    repeated three times, at rates that increase by at least 1e-6 and stay between 0 and 1.
    """
    rates = np.repeat(roc.fpr, 3)
    offsets = np.arange(len(rates)) * MIN_DISTANCE
    rates = np.maximum.accumulate(rates - offsets) + offsets
    rates = np.minimum(rates, 1.0 - offsets[::-1])
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
        For each non-empty one of 15 equally wide bins, (bins,): the fraction of rows in it, their mean
        probability, and the fraction of them whose label is present.
    """
    present, probability = rows["present"].to_numpy(float), rows["probability"].to_numpy(float)
    bins = np.minimum((probability * BINS).astype(int), BINS - 1)
    weights = (np.ones(len(rows)), probability, present)
    count, probabilities, positives = (np.bincount(bins, each, BINS) for each in weights)
    filled = count > 0
    return (
        count[filled] / len(rows),
        probabilities[filled] / count[filled],
        positives[filled] / count[filled],
    )
