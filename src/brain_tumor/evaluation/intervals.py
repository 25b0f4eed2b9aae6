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
from brain_tumor.artifacts.predictions import PREDICTED_BOX, TRUE_BOX, has_box_head, has_class_head
from brain_tumor.config import EvaluateConfig
from brain_tumor.config.dataset import AVERAGES
from brain_tumor.evaluation.coco import resampled_ap, resampled_ap50
from brain_tumor.evaluation.resampled import (
    resampled_average_precision,
    resampled_median,
    resampled_roc_auc,
)
from brain_tumor.runtime.errors import InputError

Array = NDArray[np.float64]

# What an evaluation gives intervals of. The others of `overall_figures` can have one too.
METRICS = ("macro_f1", "mean_iou", "recall_at_50_any_probability", "box_ap50")
DECISIONS = tuple(f"{average}_{figure}" for average in AVERAGES for figure in ("precision", "recall", "f1"))
# Means over labels of what is no sum.
MEANS: dict[str, Callable[[pd.DataFrame, Array], Array]] = {
    "macro_roc_auc": resampled_roc_auc,
    "macro_average_precision": resampled_average_precision,
    "box_ap50": resampled_ap50,
    "box_ap": resampled_ap,
}
OF_TRUE_BOXES: dict[str, Callable[[pd.DataFrame], pd.Series]] = {
    "mean_iou": lambda boxes: boxes["iou"],
    "median_iou": lambda boxes: boxes["iou"],
    "recall_at_50_any_probability": lambda boxes: (boxes["iou"] >= 0.5).astype(float),
    "recall_at_75_any_probability": lambda boxes: (boxes["iou"] >= 0.75).astype(float),
    "coordinate_mse": lambda boxes: np.square(_errors(boxes)).mean(axis=1),
    "coordinate_mae": lambda boxes: _errors(boxes).abs().mean(axis=1),
}
FIGURES = (*DECISIONS, *MEANS, *OF_TRUE_BOXES)
OF_LABELS = (*DECISIONS, "macro_roc_auc", "macro_average_precision")
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
        metric: One of `FIGURES`.
        config: Threshold (for precision, recall and F1), number of resamples and their seed.
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
    if np.isnan(value):  # such as a ranking of labels that are in all slices
        return Interval(value=None, patients=patients, reason=f"there is no {metric}")
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
    needed = has_class_head if metric in OF_LABELS else has_box_head
    if rows.empty or not needed(rows) or not rows["present"].any():
        return None
    who = "image" if rows["patient_id"].isna().any() else "patient"
    if who == "image":
        pictures = "picture " + rows["filename"].map(picture_name)
        rows = rows.assign(patient_id=rows["patient_id"].fillna(pictures))
    if metric in DECISIONS:
        return _decision_figure(rows, who, metric, threshold)
    if metric in MEANS:
        patients = pd.Index(sorted(rows["patient_id"].unique()))
        return _Figure(patients, who, lambda counts: _mean_over_labels(MEANS[metric], rows, patients, counts))
    return _true_box_figure(rows[rows["present"]], who, metric)


def _decision_figure(rows: pd.DataFrame, who: str, metric: str, threshold: float) -> _Figure:
    predicted = rows["probability"] >= threshold
    counts = {
        "true_positives": rows["present"] & predicted,
        "false_positives": ~rows["present"] & predicted,
        "false_negatives": rows["present"] & ~predicted,
    }
    grouped = pd.DataFrame(counts).groupby([rows["patient_id"], rows["label"]]).sum()
    sums = grouped.unstack("label", fill_value=0)
    return _of_sums(sums, who, lambda sums: _decision(sums, *metric.split("_")))


def _true_box_figure(boxes: pd.DataFrame, who: str, metric: str) -> _Figure:
    score = OF_TRUE_BOXES[metric](boxes)
    sums = pd.DataFrame({"score": score, "boxes": 1.0}).groupby(boxes["patient_id"]).sum()
    if metric != "median_iou":
        return _of_sums(sums, who, lambda sums: np.asarray(sums[..., 0] / sums[..., 1]))
    places, values = sums.index.get_indexer(pd.Index(boxes["patient_id"])), score.to_numpy(float)
    return _Figure(sums.index, who, lambda counts: resampled_median(values, np.take(counts, places, axis=1)))


def _errors(boxes: pd.DataFrame) -> pd.DataFrame:
    """How far predicted coordinates are off, as fractions of the image's width and height."""
    size = boxes[["width", "height", "width", "height"]].to_numpy(float)
    off = boxes[PREDICTED_BOX].to_numpy(float) - boxes[TRUE_BOX].to_numpy(float)
    return pd.DataFrame(off / size, index=boxes.index)


def _of_sums(sums: pd.DataFrame | pd.Series, who: str, value: Callable[[Array], Array]) -> _Figure:
    """A figure that is made of sums over patients, one row a patient."""
    table = sums.to_numpy(float)
    return _Figure(sums.index, who, lambda counts: value(counts @ table))


def _decision(sums: Array, average: str, figure: str) -> Array:
    """Precision, recall or F1: the mean over the labels that a resample shows, or (`micro`) of their sum."""
    true_positives, false_positives, false_negatives = np.split(sums, 3, axis=-1)
    support = true_positives + false_negatives
    if average == "micro":
        true_positives, false_positives, false_negatives = (
            part.sum(axis=-1, keepdims=True) for part in (true_positives, false_positives, false_negatives)
        )
        support = support.sum(axis=-1, keepdims=True)
    wrong = {
        "precision": false_positives,
        "recall": false_negatives,
        "f1": (false_positives + false_negatives) / 2,
    }
    denominator = true_positives + wrong[figure]
    values = np.divide(true_positives, denominator, out=np.zeros_like(denominator), where=denominator > 0)
    weights = support if average == "weighted" else (support > 0).astype(float)
    total = weights.sum(axis=-1)
    means = np.full(len(values), np.nan)
    np.divide((values * weights).sum(axis=-1), total, out=means, where=total > 0)
    return means


def _mean_over_labels(
    value: Callable[[pd.DataFrame, Array], Array], rows: pd.DataFrame, patients: pd.Index, counts: Array
) -> Array:
    """The mean over the labels that have the figure in a resample."""
    values = []
    for _, own in rows.groupby("label", sort=False):
        places = patients.get_indexer(pd.Index(own["patient_id"]))
        values.append(value(own, np.take(counts, places, axis=1)))
    table = np.array(values).T
    return _mean_of_known(table, ~np.isnan(table))


def _mean_of_known(values: Array, known: NDArray[np.bool_]) -> Array:
    """Each row's mean of its known values, NaN where it has none."""
    means = np.full(len(values), np.nan)
    total = np.where(known, values, 0).sum(axis=-1)
    np.divide(total, known.sum(axis=-1), out=means, where=known.any(axis=-1))
    return means
