"""Figures of many resamples at once, in which rows or patients count more than once or not at all."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Array = NDArray[np.float64]


def macro_f1(sums: Array) -> Array:
    """The mean over the labels that a resample shows.

    Args:
        sums: True positives of each label, then false positives, then false negatives, (resamples, 3 labels).

    Returns:
        (resamples,); NaN where no label is shown.
    """
    true_positives, false_positives, false_negatives = np.split(sums, 3, axis=-1)
    shown = true_positives + false_negatives > 0
    return mean_of_known(_f1(true_positives, false_positives, false_negatives), shown)


def micro_f1(sums: Array) -> Array:
    """F1 of all labels' decisions in one pot; the arguments are those of `macro_f1`."""
    parts = np.split(sums, 3, axis=-1)
    values = _f1(*(part.sum(axis=-1) for part in parts))
    return np.where((parts[0] + parts[2]).sum(axis=-1) > 0, values, np.nan)


def weighted_f1(sums: Array) -> Array:
    """The mean over labels, weighted by their true rows; the arguments are those of `macro_f1`."""
    true_positives, false_positives, false_negatives = np.split(sums, 3, axis=-1)
    weight = true_positives + false_negatives
    total = weight.sum(axis=-1)
    values = (weight * _f1(true_positives, false_positives, false_negatives)).sum(axis=-1)
    return _ratio(values, total, np.nan)


def _f1(true_positives: Array, false_positives: Array, false_negatives: Array) -> Array:
    denominator = 2 * true_positives + false_positives + false_negatives
    return _ratio(2 * true_positives, denominator, 0.0)


def _ratio(numerator: Array, denominator: Array, otherwise: float) -> Array:
    """Their quotients, and another value where the denominator is 0."""
    values = np.full(denominator.shape, otherwise)
    np.divide(numerator, denominator, out=values, where=denominator > 0)
    return values


def resampled_roc_auc(rows: pd.DataFrame, counts: Array) -> Array:
    """`roc_auc` of resamples.

    Args:
        rows: The label's rows of one model in the predictions table.
        counts: How often each row counts, (resamples, rows).

    Returns:
        A value a resample, NaN where all of it shows the label or nothing does.
    """
    probability = rows["probability"].to_numpy(float)
    order = np.argsort(probability, kind="stable")
    starts = np.append(0, np.flatnonzero(np.diff(probability[order])) + 1)  # of equal probabilities
    present = rows["present"].to_numpy(bool)[order]
    counts = counts[:, order]
    positive = np.add.reduceat(counts * present, starts, axis=1)
    negative = np.add.reduceat(counts * ~present, starts, axis=1)
    # A pair of equals counts half.
    won = (positive * (np.cumsum(negative, axis=1) - negative / 2)).sum(axis=1)
    pairs = positive.sum(axis=1) * negative.sum(axis=1)
    return _ratio(won, pairs, np.nan)


def mean_of_known(values: Array, known: NDArray[np.bool_]) -> Array:
    """Each row's mean of its known values, NaN where it has none."""
    means = np.full(len(values), np.nan)
    total = np.where(known, values, 0).sum(axis=-1)
    np.divide(total, known.sum(axis=-1), out=means, where=known.any(axis=-1))
    return means
