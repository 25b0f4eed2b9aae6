"""Confidence intervals of figures: bootstrap over patients.

Slices of one patient are correlated, so patients are resampled, each with all of its slices. Most figures are
functions of sums over patients: a resample is a weighted sum, and all resamples are one matrix product.

Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13 (percentile intervals).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from brain_tumor.artifacts.evaluation import ALL, Interval
from brain_tumor.artifacts.figures import DECISION_FIGURES
from brain_tumor.artifacts.predictions import PREDICTED_BOX, TRUE_BOX, has_box_head, has_class_head
from brain_tumor.config import EvaluateConfig
from brain_tumor.evaluation.coco import resampled_ap, resampled_ap50
from brain_tumor.evaluation.image_dependence import shuffled_iou
from brain_tumor.evaluation.patients import draw_patients, with_patients
from brain_tumor.evaluation.resampled import (
    Array,
    mean_of_known,
    resampled_average_precision,
    resampled_median,
    resampled_roc_auc,
)
from brain_tumor.evaluation.thresholds import decisions
from brain_tumor.runtime.errors import InputError

DECISIONS = tuple(
    f"{average}_{figure}" for average in ("macro", "micro", "weighted") for figure in DECISION_FIGURES
)
# Means over labels of figures that are not functions of sums.
MEANS: dict[str, Callable[[pd.DataFrame, Array], Array]] = {
    "macro_roc_auc": resampled_roc_auc,
    "macro_average_precision": resampled_average_precision,
    "box_ap50": resampled_ap50,
    "box_ap": resampled_ap,
}
OF_TRUE_BOXES: dict[str, Callable[[pd.DataFrame], pd.Series]] = {
    "mean_iou": lambda boxes: boxes["iou"],
    "median_iou": lambda boxes: boxes["iou"],
    "recall_at_50": lambda boxes: (boxes["iou"] >= 0.5).astype(float),
    "recall_at_75": lambda boxes: (boxes["iou"] >= 0.75).astype(float),
    "coordinate_mse": lambda boxes: np.square(_errors(boxes)).mean(axis=1),
    "coordinate_mae": lambda boxes: _errors(boxes).abs().mean(axis=1),
}
FIGURES = (*DECISIONS, *MEANS, *OF_TRUE_BOXES)
OF_LABELS = (*DECISIONS, "macro_roc_auc", "macro_average_precision")
# The figures that an evaluation has intervals for; `Bootstrap` can compute those of all `FIGURES`.
METRICS = (
    *("macro_f1", "micro_f1", "weighted_f1", "macro_roc_auc"),
    *("mean_iou", "recall_at_50", "recall_at_75", "box_ap50"),
)
LABEL_METRICS = {"f1": "macro_f1", "roc_auc": "macro_roc_auc"} | {
    name: name for name in ("mean_iou", "recall_at_50", "recall_at_75", "box_ap50")
}
"""The figures with an interval per label, and the one of `METRICS` that is computed for the label alone."""
# Mean IoU minus the mean IoU of boxes predicted for other images.
FROM_IMAGE = "iou_from_image"
FEWEST_PATIENTS = 10


@dataclass(frozen=True)
class _Figure:
    """A figure of one model.

    Attributes:
        patients: The patients that it is computed from.
        who: The singular noun for them.
        of: Computes the figure of each resample from how often each patient counts, (resamples, patients).
    """

    patients: pd.Index
    who: str
    of: Callable[[Array], Array]


class Bootstrap:
    """Intervals of figures, all on the same resamples.

    Args:
        predictions: The predictions table, or some of its rows.
        config: Threshold (for rows without a column `predicted`, see `decisions`), number of resamples and
            their seed.
    """

    def __init__(self, predictions: pd.DataFrame, config: EvaluateConfig) -> None:
        self._config = config
        self._models = {
            str(name): with_patients(rows) for name, rows in predictions.groupby("model", sort=False)
        }
        self._counts: dict[int, Array] = {}
        self._sums: dict[tuple[str, str], pd.DataFrame] = {}
        # Caches: a model is compared with several others, and labels are also part of means over labels.
        self._figures: dict[tuple[str, str, str], _Figure | None] = {}
        self._values: dict[tuple[str, str, str], Array] = {}

    def interval(self, model: str, metric: str, label: str = ALL) -> Interval:
        """Computes the interval of a model's figure.

        Args:
            model: The model's name in the table.
            metric: One of `FIGURES`, or `FROM_IMAGE`.
            label: A label, or `ALL` for all of them.
        """
        figure = self._figure(model, metric, label)
        if figure is None:
            return Interval(value=None, reason=_no_figure(model, metric))
        return self._interval(figure, metric, lambda: self._resampled(model, metric, label))

    def difference(self, model_a: str, model_b: str, metric: str, label: str = ALL) -> Interval:
        """Computes the interval of a figure's difference, `model_a` minus `model_b`.

        Raises:
            InputError: The two models were not evaluated on the same patients.
        """
        a, b = (self._figure(model, metric, label) for model in (model_a, model_b))
        if a is None or b is None:
            return Interval(value=None, reason=_no_figure(model_a if a is None else model_b, metric))
        if not a.patients.equals(b.patients):
            raise InputError(
                f"The models {model_a} and {model_b} were evaluated on different patients, so they cannot be"
                " compared; predict with both on the same split."
            )
        return self._interval(
            a,
            metric,
            lambda: self._resampled(model_a, metric, label) - self._resampled(model_b, metric, label),
        )

    def _interval(self, figure: _Figure, metric: str, resampled: Callable[[], Array]) -> Interval:
        """The interval of a figure; resamples are computed only if there are enough patients."""
        patients = len(figure.patients)
        if patients < FEWEST_PATIENTS:
            self._counts[patients] = np.ones((1, patients))
        value, *values = resampled().tolist()
        if np.isnan(value):
            return Interval(value=None, patients=patients, reason=f"there is no {metric}")
        if patients < FEWEST_PATIENTS:
            of_boxes = metric in (*OF_TRUE_BOXES, FROM_IMAGE)
            who = (figure.who if patients == 1 else f"{figure.who}s") + (
                " with a true box" if of_boxes else ""
            )
            reason = f"only {patients} {who}, {FEWEST_PATIENTS} are needed"
            return Interval(value=value, patients=patients, reason=reason)
        if np.isnan(values).all():  # a resample may lack boxes of a rare label
            reason = f"{metric} is undefined in all resamples"
            return Interval(value=value, patients=patients, reason=reason)
        low, high = np.nanquantile(values, [0.025, 0.975])
        return Interval(value=value, low=float(low), high=float(high), patients=patients)

    def _resampled(self, model: str, metric: str, label: str) -> Array:
        """The figure itself, then its resamples."""
        key = (model, metric, label)
        if key not in self._values:
            figure = self._figure(*key)
            assert figure is not None
            self._values[key] = figure.of(self._draw(len(figure.patients)))
        return self._values[key]

    def _draw(self, patients: int) -> Array:
        """How often each patient counts, (1 + resamples, patients): once in row 0, then as drawn."""
        if patients not in self._counts:
            drawn = draw_patients(patients, self._config.bootstrap_samples, self._config.seed)
            self._counts[patients] = np.vstack([np.ones(patients), drawn])
        return self._counts[patients]

    def _figure(self, model: str, metric: str, label: str) -> _Figure | None:
        key = (model, metric, label)
        if key not in self._figures:
            rows = self._models.get(model)
            self._figures[key] = None if rows is None else self._find_figure(rows, *key)
        return self._figures[key]

    def _find_figure(self, rows: pd.DataFrame, model: str, metric: str, label: str) -> _Figure | None:
        """A model's figure, or None if it has no such figure.

        Means over true boxes use only patients who have one: others add nothing, and a resample of such
        patients alone would have no figure.
        """
        labels = list(rows["label"].unique())
        rows = rows if label == ALL else rows[rows["label"] == label]
        needed = has_class_head if metric in OF_LABELS else has_box_head
        if rows.empty or not needed(rows) or not rows["present"].any():
            return None
        who = "image" if rows["patient_unknown"].any() else "patient"
        if metric in DECISIONS:
            if (model, label) not in self._sums:
                self._sums[model, label] = _decision_sums(rows, self._config)
            return _of_sums(self._sums[model, label], who, lambda sums: _decision(sums, *metric.split("_")))
        if metric in MEANS:
            patients = pd.Index(sorted(rows["patient_id"].unique()))
            if label == ALL:
                return _Figure(patients, who, lambda counts: self._mean(model, metric, labels, len(counts)))
            places = patients.get_indexer(pd.Index(rows["patient_id"]))
            values = MEANS[metric]
            return _Figure(patients, who, lambda counts: values(rows, np.take(counts, places, axis=1)))
        return _true_box_figure(rows[rows["present"]], who, metric)

    def _mean(self, model: str, metric: str, labels: list[str], resamples: int) -> Array:
        """The mean over the labels for which a resample has the figure."""
        known = [label for label in labels if self._figure(model, metric, label) is not None]
        values = [self._resampled(model, metric, label) for label in known]
        table = np.array(values).T if values else np.full((resamples, 1), np.nan)
        return mean_of_known(table, ~np.isnan(table))


def interval(predictions: pd.DataFrame, model: str, metric: str, config: EvaluateConfig) -> Interval:
    """Computes the interval of one model's figure, see `Bootstrap`.

    Args:
        predictions: The predictions table.
        model: The model's name in it.
        metric: One of `FIGURES`.
        config: Threshold, number of resamples and their seed.
    """
    return Bootstrap(predictions, config).interval(model, metric)


def difference(
    predictions: pd.DataFrame, model_a: str, model_b: str, metric: str, config: EvaluateConfig
) -> Interval:
    """Computes the interval of a figure's difference, `model_a` minus `model_b`, on the same resamples.

    The arguments are those of `interval`.

    Raises:
        InputError: The two models were not evaluated on the same patients.
    """
    return Bootstrap(predictions, config).difference(model_a, model_b, metric)


def _decision_sums(rows: pd.DataFrame, config: EvaluateConfig) -> pd.DataFrame:
    """True positives, false positives and false negatives of each label by patient."""
    predicted = decisions(rows, config.threshold)
    counts = {
        "true_positives": rows["present"] & predicted,
        "false_positives": ~rows["present"] & predicted,
        "false_negatives": rows["present"] & ~predicted,
    }
    grouped = pd.DataFrame(counts).groupby([rows["patient_id"], rows["label"]]).sum()
    table = grouped.unstack("label", fill_value=0)
    assert isinstance(table, pd.DataFrame)
    return table


def _true_box_figure(boxes: pd.DataFrame, who: str, metric: str) -> _Figure | None:
    score = boxes["iou"] - shuffled_iou(boxes) if metric == FROM_IMAGE else OF_TRUE_BOXES[metric](boxes)
    if score.isna().any():
        return None
    sums = pd.DataFrame({"score": score, "boxes": 1.0}).groupby(boxes["patient_id"]).sum()
    if metric != "median_iou":
        return _of_sums(sums, who, lambda sums: np.asarray(sums[..., 0] / sums[..., 1]))
    places, values = sums.index.get_indexer(pd.Index(boxes["patient_id"])), score.to_numpy(float)
    return _Figure(sums.index, who, lambda counts: resampled_median(values, np.take(counts, places, axis=1)))


def _errors(boxes: pd.DataFrame) -> pd.DataFrame:
    """Errors of the predicted coordinates, as fractions of the image's width and height."""
    size = boxes[["width", "height", "width", "height"]].to_numpy(float)
    off = boxes[PREDICTED_BOX].to_numpy(float) - boxes[TRUE_BOX].to_numpy(float)
    return pd.DataFrame(off / size, index=boxes.index)


def _of_sums(sums: pd.DataFrame, who: str, value: Callable[[Array], Array]) -> _Figure:
    """A figure computed from sums over patients, one row per patient."""
    table = sums.to_numpy(float)
    return _Figure(sums.index, who, lambda counts: value(counts @ table))


def _decision(sums: Array, average: str, figure: str) -> Array:
    """Precision, recall or F1: averaged over the labels in a resample, or (`micro`) of their sums."""
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


def _no_figure(model: str, metric: str) -> str:
    return f"the model {model} has no {metric}"
