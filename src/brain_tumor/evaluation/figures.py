"""The figures of one model: how well it finds the labels, and how well its boxes lie."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, precision_recall_fscore_support, roc_auc_score

from brain_tumor.artifacts.evaluation import Figures
from brain_tumor.artifacts.predictions import PREDICTED_BOX, TRUE_BOX, has_box_head, has_class_head
from brain_tumor.boxes.measures import iou
from brain_tumor.config.dataset import AVERAGES
from brain_tumor.evaluation.coco import COCO_FIGURES, coco_figures

DECISION_FIGURES = ("precision", "recall", "f1")
RANKING_FIGURES = {"roc_auc": roc_auc_score, "average_precision": average_precision_score}
BOX_FIGURES = (
    *("mean_iou", "median_iou", "recall_at_50_any_probability", "recall_at_75_any_probability"),
    *("coordinate_mse", "coordinate_mae"),
)


def with_iou(predictions: pd.DataFrame) -> pd.DataFrame:
    """The rows of a predictions table with one more column, `iou`.

    It is the IoU of the true box and the predicted one, whatever the label's probability; missing where one
    of the two is.
    """
    true, predicted = (predictions[names].to_numpy(float) for names in (TRUE_BOX, PREDICTED_BOX))
    return predictions.assign(iou=iou(true, predicted))


def label_figures(predictions: pd.DataFrame, labels: list[str], threshold: float) -> dict[str, Figures]:
    """The figures of each label.

    Args:
        predictions: The rows of one model in the predictions table.
        labels: The label names, in slot order.
        threshold: Probability from which a label counts as predicted.

    Returns:
        By label `precision`, `recall`, `f1`, `roc_auc` and `average_precision` of its presence; and those of
        its boxes, as in `overall_figures`.

        A figure that the model cannot have is None: it lacks the head, or the label is present in no slice,
        or (ROC AUC, average precision) in all of them. A precision without any answer is 0.
    """
    # Label by label as a binary problem: scikit-learn takes a table of one label for another kind of problem.
    return {label: _label_figures(predictions[predictions["label"] == label], threshold) for label in labels}


def _label_figures(rows: pd.DataFrame, threshold: float) -> Figures:
    found = _box_figures(rows) | coco_figures(rows)
    if not has_class_head(rows) or not rows["present"].any():
        return {**dict.fromkeys((*DECISION_FIGURES, *RANKING_FIGURES)), **found}
    return {**_binary_figures(rows, threshold), **found}


def overall_figures(predictions: pd.DataFrame, labels: dict[str, Figures], threshold: float) -> Figures:
    """The figures over all labels, and over all true boxes.

    Args:
        predictions: The rows of one model.
        labels: What `label_figures` found of them.
        threshold: Probability from which a label counts as predicted.

    Returns:
        `{macro,micro,weighted}_{precision,recall,f1}`, `macro_{roc_auc,average_precision}`, and over the true
        boxes, whatever their labels' probability, `mean_iou`, `median_iou`, `recall_at_50_any_probability`,
        `recall_at_75_any_probability` (share with an IoU of at least 0.5 and 0.75), `coordinate_mse` and
        `coordinate_mae` (coordinates as fractions of the image's width and height); and the labels' means of
        `box_ap50` and `box_ap`.

        A figure that the model cannot have is None: it lacks the head, or no label is present in any slice.
        A mean over labels is over those that have the figure: a label that no slice shows is left out.
    """
    return {
        **_average_figures(predictions, labels, threshold),
        **_box_figures(predictions),
        **{name: _mean(labels, name) for name in COCO_FIGURES},
    }


def _mean(labels: dict[str, Figures], name: str) -> float | None:
    """The mean of a figure over the labels that have it."""
    values = [value for own in labels.values() if (value := own[name]) is not None]
    return float(np.mean(values)) if values else None


def _binary_figures(rows: pd.DataFrame, threshold: float) -> Figures:
    present, probability = rows["present"].to_numpy(bool), rows["probability"].to_numpy(float)
    found: Figures = dict(zip(DECISION_FIGURES, _decisions(present, probability >= threshold), strict=True))
    both = present.any() and not present.all()
    return found | {
        name: float(score(present, probability)) if both else None for name, score in RANKING_FIGURES.items()
    }


def _decisions(present: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> list[float]:
    """The `DECISION_FIGURES`."""
    scores = precision_recall_fscore_support(present, predicted, average="binary", zero_division=0)
    return [float(score) for score in scores[:3]]  # the fourth is the support, which has no single value here


def _average_figures(predictions: pd.DataFrame, labels: dict[str, Figures], threshold: float) -> Figures:
    names = [f"{average}_{figure}" for average in AVERAGES for figure in DECISION_FIGURES]
    found: Figures = dict.fromkeys([*names, *(f"macro_{figure}" for figure in RANKING_FIGURES)])
    if not has_class_head(predictions) or not predictions["present"].any():
        return found

    present = predictions["present"].to_numpy(bool)
    predicted = predictions["probability"].to_numpy(float) >= threshold
    shown = [label for label, own in labels.items() if own["f1"] is not None]
    decisions = np.array([[labels[label][figure] for figure in DECISION_FIGURES] for label in shown], float)
    support = np.array([present[(predictions["label"] == label).to_numpy()].sum() for label in shown])
    averages = {
        "macro": decisions.mean(axis=0),
        # All labels' decisions in one pot, false alarms of a label that no slice shows too.
        "micro": _decisions(present, predicted),
        "weighted": support @ decisions / support.sum(),
    }
    for average in AVERAGES:
        for figure, value in zip(DECISION_FIGURES, averages[average], strict=True):
            found[f"{average}_{figure}"] = float(value)
    return found | {f"macro_{figure}": _mean(labels, figure) for figure in RANKING_FIGURES}


def _box_figures(predictions: pd.DataFrame) -> Figures:
    boxes = predictions[predictions["present"]]
    if boxes.empty or not has_box_head(predictions):
        return dict.fromkeys(BOX_FIGURES)
    size = boxes[["width", "height", "width", "height"]].to_numpy(float)
    error = (boxes[PREDICTED_BOX].to_numpy(float) - boxes[TRUE_BOX].to_numpy(float)) / size
    return {
        "mean_iou": float(boxes["iou"].mean()),
        "median_iou": float(boxes["iou"].median()),
        "recall_at_50_any_probability": float((boxes["iou"] >= 0.5).mean()),
        "recall_at_75_any_probability": float((boxes["iou"] >= 0.75).mean()),
        "coordinate_mse": float(np.square(error).mean()),
        "coordinate_mae": float(np.abs(error).mean()),
    }
