"""From which probability a label counts as predicted: one number for all, or one a label found on valid."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve

from brain_tumor.artifacts.predictions import has_class_head
from brain_tumor.config import Threshold
from brain_tumor.config.fields import DEFAULT_THRESHOLD, TUNED
from brain_tumor.runtime.errors import InputError

Thresholds = dict[str, float]
"""By label the probability from which it counts as predicted."""


def find_thresholds(predictions: pd.DataFrame, labels: list[str], threshold: Threshold) -> Thresholds:
    """The thresholds of one model.

    Args:
        predictions: The model's rows in the predictions table, those of valid among them if it is to tune.
        labels: The label names.
        threshold: A number is every label's. `tuned` is by label where F1 on valid is highest, in the middle
            between two probabilities that occur there; 0.5 for a label that valid does not show.

    Returns:
        By label; nothing if the model has no class head.

    Raises:
        InputError: There are no rows of valid to tune on.
    """
    if not has_class_head(predictions):
        return {}
    if threshold != TUNED:
        return dict.fromkeys(labels, threshold)
    valid = predictions[predictions["split"] == "valid"]
    if valid.empty:
        raise InputError(
            "The predictions have no rows of the split valid, on which thresholds are tuned; make them "
            "again, or set evaluate.threshold to a number."
        )
    return {label: _tune(valid[valid["label"] == label]) for label in labels}


def _tune(rows: pd.DataFrame) -> float:
    present = rows["present"].to_numpy(bool)
    if not present.any():
        return DEFAULT_THRESHOLD
    precision, recall, thresholds = precision_recall_curve(present, rows["probability"].to_numpy(float))
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    best = int(np.argmax(f1[:-1]))  # the last point has no threshold
    below = thresholds[best - 1] if best else 0.0
    return float(below + thresholds[best]) / 2


def with_decisions(predictions: pd.DataFrame, thresholds: dict[str, Thresholds]) -> pd.DataFrame:
    """The rows with one more column, `predicted`: whether the label counts as predicted.

    Args:
        predictions: Rows of the predictions table.
        thresholds: By model, as `find_thresholds` gives them. A model without any predicts no label.
    """
    pairs = zip(predictions["model"], predictions["label"], strict=True)
    limits = np.array([thresholds[model].get(label, np.inf) for model, label in pairs], float)
    return predictions.assign(predicted=predictions["probability"].to_numpy(float) >= limits)


def decisions(rows: pd.DataFrame, threshold: Threshold) -> NDArray[np.bool_]:
    """Whether each row's label counts as predicted: its column `predicted`, if it has that.

    Args:
        rows: Rows of the predictions table.
        threshold: For rows without that column.

    Raises:
        ValueError: The threshold is to be tuned, and nothing has tuned it: see `with_decisions`.
    """
    if "predicted" in rows:
        return rows["predicted"].to_numpy(bool)
    if threshold == TUNED:
        raise ValueError("thresholds are tuned by find_thresholds, and applied by with_decisions")
    return rows["probability"].to_numpy(float) >= threshold
