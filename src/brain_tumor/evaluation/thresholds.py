"""Decision thresholds on the probabilities: one for all labels, or tuned per label."""

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
"""The probability from which a label counts as predicted (inclusive), by label."""


def find_thresholds(predictions: pd.DataFrame, labels: list[str], config: EvaluateConfig) -> Thresholds:
    """Finds the thresholds of one model.

    With `tuned`, each label's threshold maximizes F1 on valid: the median of the best thresholds of bootstrap
    resamples of valid's patients, each halfway between two predicted probabilities. It is 0.5 if tuning does
    not improve the F1 of the out-of-bag patients, or if too few of valid's patients have the label.

    With few positives, the threshold with the highest F1 overfits: Lin and Lin, "On the Thresholding
    Strategy for Infrequent Labels in Multi-label Classification", 2023. Out-of-bag evaluation: Efron and
    Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 17.

    Args:
        predictions: The model's rows in the predictions table; tuning needs rows of valid.
        labels: The label names.
        config: The threshold (a number for all labels, or `tuned`), and the seed of the resamples.

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
    indices, patients = pd.factorize(rows["patient_id"])
    counts = draw_patients(len(patients), RESAMPLES, seed)[:, indices]
    thresholds, in_bag = resampled_f1(rows, counts)
    _, out_of_bag = resampled_f1(rows, (counts == 0).astype(float))
    known = ~np.isnan(in_bag[:, 0]) & ~np.isnan(out_of_bag[:, 0])
    if not known.any():
        return DEFAULT_THRESHOLD
    best = in_bag[known].argmax(axis=1)
    tuned = out_of_bag[known, best]
    positives = int((thresholds >= DEFAULT_THRESHOLD).sum())
    # If no probability reaches the default threshold, nothing is predicted and F1 is 0.
    untuned = out_of_bag[known, positives - 1] if positives else 0.0
    if np.mean(tuned - untuned) <= 0:
        return DEFAULT_THRESHOLD
    below = np.append(thresholds[1:], 0.0)
    return float(np.median((thresholds + below)[best] / 2))


def with_decisions(predictions: pd.DataFrame, thresholds: dict[str, Thresholds]) -> pd.DataFrame:
    """Adds a column `predicted`: whether the label's probability reaches its threshold.

    Args:
        predictions: Rows of the predictions table.
        thresholds: The results of `find_thresholds` by model. A model without thresholds predicts no label.
    """
    pairs = zip(predictions["model"], predictions["label"], strict=True)
    own = np.array([thresholds[model].get(label, np.inf) for model, label in pairs], float)
    return predictions.assign(predicted=predictions["probability"].to_numpy(float) >= own)


def decisions(rows: pd.DataFrame, threshold: Threshold) -> NDArray[np.bool_]:
    """Whether each row's label counts as predicted, (rows,).

    Args:
        rows: Rows of the predictions table. Their column `predicted` is used if there is one.
        threshold: Used if there is not.

    Raises:
        ValueError: The threshold is `tuned` and the column is missing: see `with_decisions`.
    """
    if "predicted" in rows:
        return rows["predicted"].to_numpy(bool)
    if threshold == TUNED:
        raise ValueError("tuned thresholds must be found by find_thresholds and applied by with_decisions")
    return rows["probability"].to_numpy(float) >= threshold
