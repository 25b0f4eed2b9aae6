"""Thresholds: the probability from which a label counts as predicted, one for all or tuned per label."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brain_tumor.artifacts.predictions import has_class_head
from brain_tumor.config import EvaluateConfig, Threshold
from brain_tumor.config.fields import DEFAULT_THRESHOLD, TUNED
from brain_tumor.evaluation.patients import draw_patients, with_patients
from brain_tumor.evaluation.resampled import resampled_f1
from brain_tumor.runtime.errors import InputError

# Number of resamples of valid's patients on which a threshold is tuned.
RESAMPLES = 200

Thresholds = dict[str, float]
"""The probability from which a label counts as predicted, by label."""


def find_thresholds(predictions: pd.DataFrame, labels: list[str], config: EvaluateConfig) -> Thresholds:
    """Finds the thresholds of one model.

    With `tuned`, each label's threshold maximizes its F1 on valid: the median over resamples of valid's
    patients, each in the middle between two predicted probabilities. It is 0.5 if tuning does not raise the
    F1 of the patients that a resample leaves out, or if too few of valid's patients show the label.

    With few positives the threshold with the highest F1 fits noise: Lin and Lin, "On the Thresholding
    Strategy for Infrequent Labels in Multi-label Classification", 2023. Evaluation on the patients left out:
    Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 17.

    Args:
        predictions: The model's rows in the predictions table; tuning needs rows of valid.
        labels: The label names.
        config: The threshold, a number for every label or `tuned`, and the seed of the resamples.

    Returns:
        Thresholds by label; empty if the model has no class head.

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
            "The predictions have no rows of the split valid, on which thresholds are tuned; make the "
            "predictions again, or set evaluate.threshold to a number."
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
    # If no probability reaches 0.5, nothing is found.
    at_half = left_out[known, from_half - 1] if from_half else 0.0
    if np.mean(tuned - at_half) <= 0:
        return DEFAULT_THRESHOLD
    below = np.append(limits[1:], 0.0)
    return float(np.median((limits + below)[best] / 2))


def with_decisions(predictions: pd.DataFrame, thresholds: dict[str, Thresholds]) -> pd.DataFrame:
    """Adds a column `predicted`: whether the label counts as predicted.

    Args:
        predictions: Rows of the predictions table.
        thresholds: The results of `find_thresholds` by model. A model without thresholds predicts no label.
    """
    pairs = zip(predictions["model"], predictions["label"], strict=True)
    limits = np.array([thresholds[model].get(label, np.inf) for model, label in pairs], float)
    return predictions.assign(predicted=predictions["probability"].to_numpy(float) >= limits)


def decisions(rows: pd.DataFrame, threshold: Threshold) -> NDArray[np.bool_]:
    """Decides whether each row's label counts as predicted; the column `predicted`, if present, is used.

    Args:
        rows: Rows of the predictions table.
        threshold: Used for rows without that column.

    Raises:
        ValueError: The threshold is `tuned` and the column is missing: see `with_decisions`.
    """
    if "predicted" in rows:
        return rows["predicted"].to_numpy(bool)
    if threshold == TUNED:
        raise ValueError("thresholds are tuned by find_thresholds, and applied by with_decisions")
    return rows["probability"].to_numpy(float) >= threshold
