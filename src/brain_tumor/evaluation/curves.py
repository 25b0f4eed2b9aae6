"""ROC curves, confusion matrices and calibration, in the plain numbers that a dashboard takes."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, roc_curve

from brain_tumor.artifacts.evaluation import LabelCurves, RocCurve
from brain_tumor.config import Threshold
from brain_tumor.evaluation.thresholds import decisions

MOST_POINTS = 100
BINS = 15
# How far apart a dashboard must be told the points of one place, for its spline to go straight through it.
APART = 1e-6


def label_curves(rows: pd.DataFrame, threshold: Threshold) -> LabelCurves:
    """The curves of one label and model, or of all its labels in one pot.

    Args:
        rows: The label's rows of one model, which has a class head, in the predictions table.
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
    """The curve as Kubeflow's dashboard draws its true steps.

    It keeps one point of each false positive rate, and lays a spline through those. So each point is given
    three times, at rates that rise by a millionth, all of them between 0 and 1.
    """
    rates = np.repeat(roc.fpr, 3)
    place = np.arange(len(rates)) * APART
    # Rising by a millionth at least, from the left; and where that leaves the axis, from the right.
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
    """How far probabilities can be believed.

    Args:
        rows: Rows of one model that has a class head.

    Returns:
        Of each of 15 equally wide bins of probability that is not empty: the share of the rows in it, their
        mean probability, and the share of them that show their label.
    """
    present, probability = rows["present"].to_numpy(float), rows["probability"].to_numpy(float)
    place = np.minimum((probability * BINS).astype(int), BINS - 1)
    count, mean, shown = (np.bincount(place, own, BINS) for own in (np.ones(len(rows)), probability, present))
    filled = count > 0
    return count[filled] / len(rows), mean[filled] / count[filled], shown[filled] / count[filled]
