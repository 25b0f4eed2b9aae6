"""95 % confidence intervals of figures: cluster bootstrap over patients, percentile intervals.

Slices of one patient are correlated, so patients are resampled, each with all of its slices. Most figures are
functions of sums over patients: a resample is a weighted sum, and all resamples are one matrix product.

Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.
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
# Figures of a label that are not functions of sums; over all labels, they are the mean.
MEANS: dict[str, Callable[[pd.DataFrame, Array], Array]] = {
    "macro_roc_auc": resampled_roc_auc,
    "macro_average_precision": resampled_average_precision,
    "box_ap50": resampled_ap50,
    "box_ap": resampled_ap,
}
BOX_METRICS: dict[str, Callable[[pd.DataFrame], pd.Series]] = {
    "mean_iou": lambda boxes: boxes["iou"],
    "median_iou": lambda boxes: boxes["iou"],
    "recall_at_50": lambda boxes: (boxes["iou"] >= 0.5).astype(float),
    "recall_at_75": lambda boxes: (boxes["iou"] >= 0.75).astype(float),
    "coordinate_mse": lambda boxes: np.square(_errors(boxes)).mean(axis=1),
    "coordinate_mae": lambda boxes: _errors(boxes).abs().mean(axis=1),
}
FIGURES = (*DECISIONS, *MEANS, *BOX_METRICS)
CLASS_METRICS = (*DECISIONS, "macro_roc_auc", "macro_average_precision")
# The figures for which an evaluation has intervals; `Bootstrap` can compute intervals for all `FIGURES`.
METRICS = (
    *("macro_f1", "micro_f1", "weighted_f1", "macro_roc_auc"),
    *("mean_iou", "recall_at_50", "recall_at_75", "box_ap50"),
)
LABEL_METRICS = {"f1": "macro_f1", "roc_auc": "macro_roc_auc"} | {
    name: name for name in ("mean_iou", "recall_at_50", "recall_at_75", "box_ap50")
}
"""The figures with an interval per label, each with the one of `METRICS` that is computed on its rows."""
# Mean IoU minus the mean IoU with the boxes predicted for other images.
FROM_IMAGE = "iou_from_image"
MIN_PATIENTS = 10


@dataclass(frozen=True)
class _Figure:
    """A figure of one model.

    Attributes:
        patients: The patients that it is computed from.
        unit: What is resampled: `patient`, or `image` if patients are unknown.
        compute: Computes the figure of each resample, (resamples,), from how often each resample contains
            each patient, (resamples, patients).
    """

    patients: pd.Index
    unit: str
    compute: Callable[[Array], Array]


class Bootstrap:
    """Confidence intervals of figures, all computed on the same resamples.

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
        # Cached: a model is compared with several others, and means over labels use the labels' figures.
        self._figures: dict[tuple[str, str, str], _Figure | None] = {}
        self._values: dict[tuple[str, str, str], Array] = {}

    def interval(self, model: str, metric: str, label: str = ALL) -> Interval:
        """Computes the confidence interval of a model's figure.

        Args:
            model: The model's name in the table.
            metric: One of `FIGURES`, or `FROM_IMAGE`.
            label: A label, or `ALL`.

        Returns:
            The figure with its interval, or with the reason why it has none.
        """
        figure = self._figure(model, metric, label)
        if figure is None:
            return Interval(value=None, reason=_no_figure(model, metric))
        return self._interval(figure, metric, lambda: self._resampled(model, metric, label))

    def difference(self, model_a: str, model_b: str, metric: str, label: str = ALL) -> Interval:
        """Computes the confidence interval of a figure's paired difference, `model_a` minus `model_b`.

        Raises:
            InputError: The two models were not evaluated on the same patients.
        """
        a, b = (self._figure(model, metric, label) for model in (model_a, model_b))
        if a is None or b is None:
            return Interval(value=None, reason=_no_figure(model_a if a is None else model_b, metric))
        if not a.patients.equals(b.patients):
            raise InputError(
                f"The models {model_a} and {model_b} were evaluated on different patients, so they cannot be"
                " compared; evaluate both on the same split."
            )
        return self._interval(
            a,
            metric,
            lambda: self._resampled(model_a, metric, label) - self._resampled(model_b, metric, label),
        )

    def _interval(self, figure: _Figure, metric: str, resampled: Callable[[], Array]) -> Interval:
        """The interval of a figure; resamples are computed only if there are enough patients."""
        patients = len(figure.patients)
        if patients < MIN_PATIENTS:
            self._counts[patients] = np.ones((1, patients))
        value, *values = resampled().tolist()
        if np.isnan(value):
            return Interval(value=None, patients=patients, reason=f"{metric} is undefined")
        if patients < MIN_PATIENTS:
            units = figure.unit if patients == 1 else f"{figure.unit}s"
            suffix = " with a true box" if metric in (*BOX_METRICS, FROM_IMAGE) else ""
            reason = f"only {patients} {units}{suffix}, {MIN_PATIENTS} are needed"
            return Interval(value=value, patients=patients, reason=reason)
        if np.isnan(values).all():  # a resample may lack boxes of a rare label
            reason = f"{metric} is undefined in all resamples"
            return Interval(value=value, patients=patients, reason=reason)
        low, high = np.nanquantile(values, [0.025, 0.975])
        return Interval(value=value, low=float(low), high=float(high), patients=patients)

    def _resampled(self, model: str, metric: str, label: str) -> Array:
        """The figure on the original sample, then on each resample, (1 + resamples,)."""
        key = (model, metric, label)
        if key not in self._values:
            figure = self._figure(*key)
            assert figure is not None
            self._values[key] = figure.compute(self._draw(len(figure.patients)))
        return self._values[key]

    def _draw(self, patients: int) -> Array:
        """How often each patient is drawn, (1 + resamples, patients); row 0 is the original sample."""
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
        """A model's figure, or None if it does not have it.

        Means over true boxes use only patients with a true box: other patients contribute nothing, and the
        figure of a resample without true boxes would be undefined.
        """
        labels = list(rows["label"].unique())
        rows = rows if label == ALL else rows[rows["label"] == label]
        needed = has_class_head if metric in CLASS_METRICS else has_box_head
        if rows.empty or not needed(rows) or not rows["present"].any():
            return None
        unit = "image" if rows["patient_unknown"].any() else "patient"
        if metric in DECISIONS:
            if (model, label) not in self._sums:
                self._sums[model, label] = _decision_sums(rows, self._config)
            return _of_sums(self._sums[model, label], unit, lambda sums: _decision(sums, *metric.split("_")))
        if metric in MEANS:
            patients = pd.Index(sorted(rows["patient_id"].unique()))
            if label == ALL:
                return _Figure(patients, unit, lambda counts: self._mean(model, metric, labels, len(counts)))
            indices = patients.get_indexer(pd.Index(rows["patient_id"]))
            values = MEANS[metric]
            return _Figure(patients, unit, lambda counts: values(rows, np.take(counts, indices, axis=1)))
        return _true_box_figure(rows[rows["present"]], unit, metric)

    def _mean(self, model: str, metric: str, labels: list[str], resamples: int) -> Array:
        """The mean over the labels for which a resample has the figure."""
        known = [label for label in labels if self._figure(model, metric, label) is not None]
        values = [self._resampled(model, metric, label) for label in known]
        table = np.array(values).T if values else np.full((resamples, 1), np.nan)
        return mean_of_known(table, ~np.isnan(table))


def interval(predictions: pd.DataFrame, model: str, metric: str, config: EvaluateConfig) -> Interval:
    """Computes the confidence interval of one model's figure, see `Bootstrap`.

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
    """Computes the confidence interval of a figure's paired difference, `model_a` minus `model_b`.

    The arguments are those of `interval`.

    Raises:
        InputError: The two models were not evaluated on the same patients.
    """
    return Bootstrap(predictions, config).difference(model_a, model_b, metric)


def _decision_sums(rows: pd.DataFrame, config: EvaluateConfig) -> pd.DataFrame:
    """True positives, false positives and false negatives, (patients, 3 * labels)."""
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


def _true_box_figure(boxes: pd.DataFrame, unit: str, metric: str) -> _Figure | None:
    score = boxes["iou"] - shuffled_iou(boxes) if metric == FROM_IMAGE else BOX_METRICS[metric](boxes)
    if score.isna().any():
        return None
    sums = pd.DataFrame({"score": score, "boxes": 1.0}).groupby(boxes["patient_id"]).sum()
    if metric != "median_iou":
        return _of_sums(sums, unit, lambda sums: np.asarray(sums[..., 0] / sums[..., 1]))
    indices, values = sums.index.get_indexer(pd.Index(boxes["patient_id"])), score.to_numpy(float)
    return _Figure(
        sums.index, unit, lambda counts: resampled_median(values, np.take(counts, indices, axis=1))
    )


def _errors(boxes: pd.DataFrame) -> pd.DataFrame:
    """Errors of the predicted coordinates, as fractions of the image's width and height."""
    size = boxes[["width", "height", "width", "height"]].to_numpy(float)
    errors = boxes[PREDICTED_BOX].to_numpy(float) - boxes[TRUE_BOX].to_numpy(float)
    return pd.DataFrame(errors / size, index=boxes.index)


def _of_sums(sums: pd.DataFrame, unit: str, value: Callable[[Array], Array]) -> _Figure:
    """A figure that is a function of sums over patients; the table has one row per patient."""
    table = sums.to_numpy(float)
    return _Figure(sums.index, unit, lambda counts: value(counts @ table))


def _decision(sums: Array, average: str, figure: str) -> Array:
    """Precision, recall or F1 of each resample: averaged over its labels, or (`micro`) from their sums."""
    true_positives, false_positives, false_negatives = np.split(sums, 3, axis=-1)
    support = true_positives + false_negatives
    if average == "micro":
        true_positives, false_positives, false_negatives = (
            part.sum(axis=-1, keepdims=True) for part in (true_positives, false_positives, false_negatives)
        )
        support = support.sum(axis=-1, keepdims=True)
    errors = {
        "precision": false_positives,
        "recall": false_negatives,
        "f1": (false_positives + false_negatives) / 2,
    }
    denominator = true_positives + errors[figure]
    values = np.divide(true_positives, denominator, out=np.zeros_like(denominator), where=denominator > 0)
    weights = support if average == "weighted" else (support > 0).astype(float)
    total = weights.sum(axis=-1)
    means = np.full(len(values), np.nan)
    np.divide((values * weights).sum(axis=-1), total, out=means, where=total > 0)
    return means


def _no_figure(model: str, metric: str) -> str:
    return f"the model {model} has no {metric}"
