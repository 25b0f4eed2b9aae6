"""From which probability a label counts as predicted: one number for all, or one a label found on valid."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brain_tumor.artifacts.predictions import has_class_head
from brain_tumor.config import EvaluateConfig, Threshold
from brain_tumor.config.fields import DEFAULT_THRESHOLD, TUNED
from brain_tumor.evaluation.patients import draw_patients, with_patients
from brain_tumor.evaluation.resampled import resampled_f1
from brain_tumor.runtime.errors import InputError

# Resamples of valid's patients that a threshold is tuned on.
RESAMPLES = 200

Thresholds = dict[str, float]
"""By label the probability from which it counts as predicted."""


def find_thresholds(predictions: pd.DataFrame, labels: list[str], config: EvaluateConfig) -> Thresholds:
    """The thresholds of one model.

    `tuned` is by label where F1 on valid is highest: the median over resamples of valid's patients, each in
    the middle between two probabilities that occur. It is 0.5 where that does not raise the F1 of the
    patients that a resample leaves out, and where valid cannot tell: it shows the label in too few patients.

    Of few positives the threshold with the highest F1 fits their noise: Lin and Lin, "On the Thresholding
    Strategy for Infrequent Labels in Multi-label Classification", 2023. To judge on who is left out: Efron
    and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 17.

    Args:
        predictions: The model's rows in the predictions table, those of valid among them if it is to tune.
        labels: The label names.
        config: The threshold, a number for every label or `tuned`, and the seed of the resamples.

    Returns:
        By label; nothing if the model has no class head.

    Raises:
        InputError: There are no rows of valid to tune on.
    """
    if not has_class_head(predictions):
        return {}
    if config.threshold != TUNED:
        return dict.fromkeys(labels, config.threshold)
    valid = predictions[predictions["split"] == "valid"]
    if valid.empty:
        raise InputError(
            "The predictions have no rows of the split valid, on which thresholds are tuned; make them "
            "again, or set evaluate.threshold to a number."
        )
    valid = with_patients(valid)
    return {label: _tune(valid[valid["label"] == label], config.seed) for label in labels}


def _tune(rows: pd.DataFrame, seed: int) -> float:
    places, patients = pd.factorize(rows["patient_id"])
    counts = draw_patients(len(patients), RESAMPLES, seed)[:, places]
    limits, drawn = resampled_f1(rows, counts)
    _, left_out = resampled_f1(rows, (counts == 0).astype(float))
    known = ~np.isnan(drawn[:, 0]) & ~np.isnan(left_out[:, 0])
    if not known.any():
        return DEFAULT_THRESHOLD
    best = drawn[known].argmax(axis=1)
    tuned = left_out[known, best]
    from_half = int((limits >= DEFAULT_THRESHOLD).sum())
    # From no probability on, nothing is found.
    at_half = left_out[known, from_half - 1] if from_half else 0.0
    if np.mean(tuned - at_half) <= 0:
        return DEFAULT_THRESHOLD
    below = np.append(limits[1:], 0.0)
    return float(np.median((limits + below)[best] / 2))


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
