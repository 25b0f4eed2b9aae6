"""How sure a figure is: bootstrap over patients.

Slices of one patient resemble each other, so it is patients that are drawn, each with all of its slices. A
figure is made of sums over patients, so a resample is a weighted sum and all of them are one matrix product.

Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13 (percentile intervals).
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brain_tumor.artifacts.evaluation import Interval
from brain_tumor.artifacts.predictions import has_box_head, has_class_head
from brain_tumor.config import EvaluateConfig
from brain_tumor.runtime.errors import InputError

Array = NDArray[np.float64]

METRICS = ("macro_f1", "mean_iou", "recall_at_50")
FEWEST_PATIENTS = 10


def interval(predictions: pd.DataFrame, model: str, metric: str, config: EvaluateConfig) -> Interval:
    """The interval of one model's figure.

    Args:
        predictions: The predictions table.
        model: The model's name in it.
        metric: One of `METRICS`.
        config: Threshold (for macro_f1), number of resamples and their seed.
    """
    sums = _patient_sums(predictions, model, metric, config.threshold)
    if sums is None:
        return Interval(value=None, reason=_no_figure(model, metric))
    table = sums.to_numpy(float)
    return _percentile_interval(lambda counts: _value(metric, counts @ table), len(table), metric, config)


def difference(
    predictions: pd.DataFrame, model_a: str, model_b: str, metric: str, config: EvaluateConfig
) -> Interval:
    """The interval of a figure's difference, `model_a` minus `model_b`, on the same resamples.

    The arguments are those of `interval`.

    Raises:
        InputError: The two models were not judged on the same patients.
    """
    sums_a = _patient_sums(predictions, model_a, metric, config.threshold)
    sums_b = _patient_sums(predictions, model_b, metric, config.threshold)
    if sums_a is None or sums_b is None:
        return Interval(value=None, reason=_no_figure(model_a if sums_a is None else model_b, metric))
    if not sums_a.index.equals(sums_b.index):
        raise InputError(
            f"The models {model_a} and {model_b} were judged on different patients, so they cannot be"
            " compared; make the predictions of both on the same split."
        )
    table_a, table_b = sums_a.to_numpy(float), sums_b.to_numpy(float)

    def statistic(counts: Array) -> Array:
        return _value(metric, counts @ table_a) - _value(metric, counts @ table_b)

    return _percentile_interval(statistic, len(table_a), metric, config)


def _no_figure(model: str, metric: str) -> str:
    return f"there is no {metric} of the model {model}"


def _percentile_interval(
    statistic: Callable[[Array], Array], patients: int, metric: str, config: EvaluateConfig
) -> Interval:
    """`statistic` takes how often each patient counts, (..., patients), and gives the figure, (...)."""
    value = float(statistic(np.ones(patients)))
    if patients < FEWEST_PATIENTS:
        who = ("patient" if patients == 1 else "patients") + (
            "" if metric == "macro_f1" else " with a true box"
        )
        reason = f"only {patients} {who}, {FEWEST_PATIENTS} are needed"
        return Interval(value=value, patients=patients, reason=reason)
    rng = np.random.default_rng(config.seed)
    counts = rng.multinomial(patients, np.full(patients, 1 / patients), size=config.bootstrap_samples)
    low, high = np.quantile(statistic(counts.astype(float)), [0.025, 0.975])
    return Interval(value=value, low=float(low), high=float(high), patients=patients)


def _patient_sums(
    predictions: pd.DataFrame, model: str, metric: str, threshold: float
) -> pd.DataFrame | pd.Series | None:
    """What `_value` makes the figure from, one row a patient; None if the model has no such figure.

    The figures of boxes are about the patients who have one: the others add nothing to them, and a resample
    of such patients alone would have no figure.
    """
    rows = predictions[predictions["model"] == model]
    if metric == "macro_f1":
        if rows.empty or not has_class_head(rows):
            return None
        predicted = rows["probability"] >= threshold
        counts = {
            "true_positives": rows["present"] & predicted,
            "false_positives": ~rows["present"] & predicted,
            "false_negatives": rows["present"] & ~predicted,
        }
        table = pd.DataFrame(counts).groupby([rows["patient_id"], rows["label"]]).sum()
        return table.unstack("label", fill_value=0)
    boxes = rows[rows["present"]]
    if boxes.empty or not has_box_head(rows):
        return None
    score = boxes["iou"] if metric == "mean_iou" else (boxes["iou"] >= 0.5).astype(float)
    return pd.DataFrame({"score": score, "boxes": 1.0}).groupby(boxes["patient_id"]).sum()


def _value(metric: str, sums: Array) -> Array:
    """The figure from its sums, (..., columns of `_patient_sums`) to (...)."""
    if metric == "macro_f1":
        true_positives, false_positives, false_negatives = np.split(sums, 3, axis=-1)
        denominator = 2 * true_positives + false_positives + false_negatives
        f1 = np.divide(2 * true_positives, denominator, out=np.zeros_like(denominator), where=denominator > 0)
        return np.asarray(f1.mean(axis=-1))
    return np.asarray(sums[..., 0] / sums[..., 1])
