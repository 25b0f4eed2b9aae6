"""Figures of bootstrap resamples that are not functions of sums: ranking figures, and the median.

A resample is given by how often it contains each row. All resamples are computed at once, (resamples, rows).
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Array = NDArray[np.float64]


def resampled_roc_auc(rows: pd.DataFrame, counts: Array) -> Array:
    """Computes the ROC AUC of one label in each resample.

    Args:
        rows: Rows of the predictions table, of one label and one model with a class head.
        counts: How often each resample contains each row, (resamples, rows).

    Returns:
        One value per resample, NaN where the label is present in all rows or in none.
    """
    present, absent = _ranked_sums(rows, counts)
    below = absent.sum(axis=1, keepdims=True) - np.cumsum(absent, axis=1)
    # The AUC is the fraction of correctly ordered pairs; a pair with equal probabilities counts half.
    ordered = (present * (below + absent / 2)).sum(axis=1)
    return _divide(ordered, present.sum(axis=1) * absent.sum(axis=1))


def resampled_average_precision(rows: pd.DataFrame, counts: Array) -> Array:
    """Computes the average precision of one label in each resample, see `resampled_roc_auc`."""
    present, absent = _ranked_sums(rows, counts)
    found, predicted = np.cumsum(present, axis=1), np.cumsum(present + absent, axis=1)
    precision = np.divide(found, predicted, out=np.zeros_like(found), where=predicted > 0)
    values = _divide((present * precision).sum(axis=1), present.sum(axis=1))
    values[absent.sum(axis=1) == 0] = np.nan
    return values


def resampled_f1(rows: pd.DataFrame, counts: Array) -> tuple[Array, Array]:
    """Computes the F1 of one label at every threshold, in each resample.

    Args:
        rows: See `resampled_roc_auc`.
        counts: See `resampled_roc_auc`.

    Returns:
        The distinct probabilities as thresholds, highest first, (values,), and the F1 at each,
        (resamples, values), NaN in a resample without the label.
    """
    present, absent = _ranked_sums(rows, counts)
    found, predicted = np.cumsum(present, axis=1), np.cumsum(present + absent, axis=1)
    support = present.sum(axis=1, keepdims=True)
    total = np.where(support > 0, predicted + support, 0)
    return np.unique(rows["probability"].to_numpy(float))[::-1], _divide(2 * found, total)


def resampled_median(values: Array, counts: Array) -> Array:
    """Computes the median of values (rows,) in each resample, NaN in one without rows."""
    order = np.argsort(values)
    values, reached = values[order], np.cumsum(counts[:, order], axis=1)
    total = reached[:, -1]
    # For an even number of values, the mean of the two in the middle.
    middle = [values[(reached > rank[:, None]).argmax(axis=1)] for rank in ((total - 1) // 2, total // 2)]
    return np.where(total > 0, (middle[0] + middle[1]) / 2, np.nan)


def _ranked_sums(rows: pd.DataFrame, counts: Array) -> tuple[Array, Array]:
    """Counts rows with and without the label per distinct probability, highest first, (resamples, values)."""
    probability = rows["probability"].to_numpy(float)
    order = np.argsort(-probability, kind="stable")
    ranked, present = probability[order], rows["present"].to_numpy(float)[order]
    starts = np.flatnonzero(np.append(True, ranked[1:] != ranked[:-1]))
    counts = counts[:, order]
    with_label, without = (np.add.reduceat(counts * mask, starts, axis=1) for mask in (present, 1 - present))
    return with_label, without


def _divide(values: Array, by: Array) -> Array:
    return np.divide(values, by, out=np.full_like(values, np.nan), where=by > 0)


def mean_of_known(values: Array, known: NDArray[np.bool_]) -> Array:
    """Computes the mean of each row's known values, (rows,), NaN if it has none.

    Args:
        values: (rows, columns).
        known: Which values count, of the same shape.
    """
    means = np.full(len(values), np.nan)
    total = np.where(known, values, 0).sum(axis=-1)
    np.divide(total, known.sum(axis=-1), out=means, where=known.any(axis=-1))
    return means
