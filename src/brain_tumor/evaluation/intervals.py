"""How sure a figure is: bootstrap over patients.

Slices of one patient resemble each other, so it is patients that are drawn, each with all of its slices. Most
figures are made of sums over patients: a resample is a weighted sum, and all of them are one matrix product.
Where a patient is unknown, the picture stands for the patient: the copies that Roboflow makes of one are no
more independent than slices are.

Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13 (percentile intervals).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brain_tumor.artifacts.dataset import picture_name
from brain_tumor.artifacts.evaluation import Interval
from brain_tumor.artifacts.predictions import has_box_head, has_class_head
from brain_tumor.config import EvaluateConfig
from brain_tumor.evaluation.coco import resampled_ap50
from brain_tumor.runtime.errors import InputError

Array = NDArray[np.float64]

METRICS = ("macro_f1", "mean_iou", "recall_at_50_any_probability", "box_ap50")
OF_TRUE_BOXES = ("mean_iou", "recall_at_50_any_probability")
FEWEST_PATIENTS = 10


@dataclass(frozen=True)
class _Figure:
    """A figure of one model.

    Attributes:
        patients: Those that it is about.
        who: What they are called.
        of: From how often each patient counts, (resamples, patients), to the figure of each resample.
    """

    patients: pd.Index
    who: str
    of: Callable[[Array], Array]


def interval(predictions: pd.DataFrame, model: str, metric: str, config: EvaluateConfig) -> Interval:
    """The interval of one model's figure.

    Args:
        predictions: The predictions table.
        model: The model's name in it.
        metric: One of `METRICS`.
        config: Threshold (for macro_f1), number of resamples and their seed.
    """
    figure = _figure(predictions, model, metric, config.threshold)
    if figure is None:
        return Interval(value=None, reason=_no_figure(model, metric))
    return _percentile_interval(figure, metric, config)


def difference(
    predictions: pd.DataFrame, model_a: str, model_b: str, metric: str, config: EvaluateConfig
) -> Interval:
    """The interval of a figure's difference, `model_a` minus `model_b`, on the same resamples.

    The arguments are those of `interval`.

    Raises:
        InputError: The two models were not judged on the same patients.
    """
    a, b = (_figure(predictions, model, metric, config.threshold) for model in (model_a, model_b))
    if a is None or b is None:
        return Interval(value=None, reason=_no_figure(model_a if a is None else model_b, metric))
    if not a.patients.equals(b.patients):
        raise InputError(
            f"The models {model_a} and {model_b} were judged on different patients, so they cannot be"
            " compared; make the predictions of both on the same split."
        )

    both = replace(a, of=lambda counts: a.of(counts) - b.of(counts))
    return _percentile_interval(both, metric, config)


def _no_figure(model: str, metric: str) -> str:
    return f"there is no {metric} of the model {model}"


def _percentile_interval(figure: _Figure, metric: str, config: EvaluateConfig) -> Interval:
    patients, statistic = len(figure.patients), figure.of
    value = float(statistic(np.ones((1, patients)))[0])
    if patients < FEWEST_PATIENTS:
        who = (figure.who if patients == 1 else f"{figure.who}s") + (
            " with a true box" if metric in OF_TRUE_BOXES else ""
        )
        reason = f"only {patients} {who}, {FEWEST_PATIENTS} are needed"
        return Interval(value=value, patients=patients, reason=reason)
    rng = np.random.default_rng(config.seed)
    counts = rng.multinomial(patients, np.full(patients, 1 / patients), size=config.bootstrap_samples)
    values = statistic(counts.astype(float))
    if np.isnan(values).all():  # a resample may lack what a figure needs, such as any box of a rare label
        reason = f"no resample shows what {metric} is about"
        return Interval(value=value, patients=patients, reason=reason)
    low, high = np.nanquantile(values, [0.025, 0.975])
    return Interval(value=value, low=float(low), high=float(high), patients=patients)


def _figure(predictions: pd.DataFrame, model: str, metric: str, threshold: float) -> _Figure | None:
    """A model's figure, or None if it has no such figure.

    Means over true boxes are about the patients who have one: the others add nothing to them, and a resample
    of such patients alone would have no figure.
    """
    rows = predictions[predictions["model"] == model]
    needed = has_class_head if metric == "macro_f1" else has_box_head
    if rows.empty or not needed(rows) or not rows["present"].any():
        return None
    who = "image" if rows["patient_id"].isna().any() else "patient"
    if who == "image":
        pictures = "picture " + rows["filename"].map(picture_name)
        rows = rows.assign(patient_id=rows["patient_id"].fillna(pictures))
    if metric == "macro_f1":
        predicted = rows["probability"] >= threshold
        counts = {
            "true_positives": rows["present"] & predicted,
            "false_positives": ~rows["present"] & predicted,
            "false_negatives": rows["present"] & ~predicted,
        }
        grouped = pd.DataFrame(counts).groupby([rows["patient_id"], rows["label"]]).sum()
        return _of_sums(grouped.unstack("label", fill_value=0), who, _macro_f1)
    boxes = rows[rows["present"]]
    if metric == "box_ap50":
        patients = pd.Index(sorted(rows["patient_id"].unique()))
        return _Figure(patients, who, lambda counts: _mean_ap50(rows, patients, counts))
    score = boxes["iou"] if metric == "mean_iou" else (boxes["iou"] >= 0.5).astype(float)
    sums = pd.DataFrame({"score": score, "boxes": 1.0}).groupby(boxes["patient_id"]).sum()
    return _of_sums(sums, who, lambda sums: np.asarray(sums[..., 0] / sums[..., 1]))


def _of_sums(sums: pd.DataFrame | pd.Series, who: str, value: Callable[[Array], Array]) -> _Figure:
    """A figure that is made of sums over patients, one row a patient."""
    table = sums.to_numpy(float)
    return _Figure(sums.index, who, lambda counts: value(counts @ table))


def _macro_f1(sums: Array) -> Array:
    """The mean over the labels that a resample shows."""
    true_positives, false_positives, false_negatives = np.split(sums, 3, axis=-1)
    denominator = 2 * true_positives + false_positives + false_negatives
    shown = true_positives + false_negatives > 0
    f1 = np.divide(2 * true_positives, denominator, out=np.zeros_like(denominator), where=shown)
    return _mean_of_known(f1, shown)


def _mean_ap50(rows: pd.DataFrame, patients: pd.Index, counts: Array) -> Array:
    """The mean over the labels that a resample has boxes of."""
    values = []
    for _, own in rows.groupby("label", sort=False):
        places = patients.get_indexer(pd.Index(own["patient_id"]))
        values.append(resampled_ap50(own, np.take(counts, places, axis=1)))
    table = np.array(values).T
    return _mean_of_known(table, ~np.isnan(table))


def _mean_of_known(values: Array, known: NDArray[np.bool_]) -> Array:
    """Each row's mean of its known values, NaN where it has none."""
    means = np.full(len(values), np.nan)
    total = np.where(known, values, 0).sum(axis=-1)
    np.divide(total, known.sum(axis=-1), out=means, where=known.any(axis=-1))
    return means
