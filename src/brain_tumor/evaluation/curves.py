"""ROC curves and confusion matrices, in the plain numbers that a dashboard takes."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix, roc_curve

from brain_tumor.errors import InputError
from brain_tumor.evaluation.table import has_class_head, read_predictions

CATEGORIES = ["absent", "present"]
MOST_POINTS = 100


@dataclass(frozen=True)
class RocCurve:
    """Points of a ROC curve from (0, 0) to (1, 1), at most 100.

    Attributes:
        fpr: False positive rates.
        tpr: True positive rates.
        thresholds: The probability behind each point, falling. The first one is infinite by definition and
            stands here as 1.0, since dashboards and JSON take finite numbers alone.
    """

    fpr: list[float]
    tpr: list[float]
    thresholds: list[float]


@dataclass(frozen=True)
class LabelCurves:
    """How well a model tells one label's presence.

    Attributes:
        roc: The ROC curve; None if the label is present in all slices or in none.
        confusion_matrix: Slices counted by truth (rows) and prediction (columns), both in the order of
            `CATEGORIES`.
    """

    roc: RocCurve | None
    confusion_matrix: list[list[int]]


def read_label_curves(path: str | Path, label: str) -> LabelCurves:
    """The curves of one label and the final model, from a predictions artifact, at its threshold.

    Raises:
        InputError: There is no whole predictions artifact at `path`, or it does not know the label.
    """
    predictions, manifest = read_predictions(path)
    return label_curves(predictions, label, manifest["threshold"])


def label_curves(
    predictions: pd.DataFrame, label: str, threshold: float, model: str = "final"
) -> LabelCurves:
    """The curves of one label and model.

    Args:
        predictions: The predictions table.
        label: The label's name.
        threshold: Probability from which the label counts as predicted (confusion matrix).
        model: The model's name in the table.

    Raises:
        InputError: The table has no probabilities of this label by this model.
    """
    rows = predictions[(predictions["model"] == model) & (predictions["label"] == label)]
    if rows.empty or not has_class_head(rows):
        raise InputError(
            f"The predictions hold no probabilities of {label} by the model {model};"
            " choose a label and a model with a class head that they hold."
        )
    present, probability = rows["present"].to_numpy(bool), rows["probability"].to_numpy(float)
    matrix = confusion_matrix(present, probability >= threshold, labels=[False, True]).tolist()
    if present.all() or not present.any():
        return LabelCurves(None, matrix)
    fpr, tpr, thresholds = roc_curve(present, probability)
    kept = np.unique(np.linspace(0, len(fpr) - 1, MOST_POINTS).round().astype(int))
    thresholds = np.minimum(thresholds, 1.0)
    return LabelCurves(RocCurve(fpr[kept].tolist(), tpr[kept].tolist(), thresholds[kept].tolist()), matrix)
