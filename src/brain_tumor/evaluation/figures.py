"""The figures of one model: how well it finds the labels, and how well its boxes lie."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, precision_recall_fscore_support, roc_auc_score

from brain_tumor.evaluation.table import PREDICTED_BOX, TRUE_BOX, has_box_head, has_class_head
from brain_tumor.geometry import box_iou

Figures = dict[str, float | None]

AVERAGES = ("macro", "micro", "weighted")
DECISION_FIGURES = ("precision", "recall", "f1")
RANKING_FIGURES = ("roc_auc", "average_precision")
BOX_FIGURES = ("mean_iou", "median_iou", "recall_at_50", "recall_at_75", "coordinate_mse", "coordinate_mae")


def figures(predictions: pd.DataFrame, labels: list[str], threshold: float) -> Figures:
    """All figures of one model.

    Args:
        predictions: The rows of one model in the predictions table.
        labels: The label names, in slot order.
        threshold: Probability from which a label counts as predicted.

    Returns:
        `{macro,micro,weighted}_{precision,recall,f1}`, `macro_{roc_auc,average_precision}`,
        `<label>_{precision,recall,f1,roc_auc,average_precision}`, and over the true boxes `mean_iou`,
        `median_iou`, `recall_at_50`, `recall_at_75` (share with an IoU of at least 0.5 and 0.75),
        `coordinate_mse` and `coordinate_mae` (coordinates as fractions of the image's width and height).

        A figure that the model cannot have is None: it lacks the head, there is no true box, or the label is
        present in all slices or in none (ROC AUC, average precision). A ratio whose denominator is 0 is 0.
        The macro ROC AUC and average precision are over the labels that have one.
    """
    return {**_label_figures(predictions, labels, threshold), **_box_figures(predictions)}


def true_box_iou(predictions: pd.DataFrame) -> pd.Series:
    """The IoU of each true box with the predicted one, whatever its probability; indexed by the box's row.

    Args:
        predictions: Rows of the predictions table, of models that have a box head.
    """
    boxes = predictions[predictions["present"]]
    iou = box_iou(boxes[TRUE_BOX].to_numpy(float), boxes[PREDICTED_BOX].to_numpy(float))
    return pd.Series(iou, index=boxes.index)


def _label_figures(predictions: pd.DataFrame, labels: list[str], threshold: float) -> Figures:
    names = [f"{name}_{figure}" for name in (*AVERAGES, *labels) for figure in DECISION_FIGURES]
    names += [f"{name}_{figure}" for name in ("macro", *labels) for figure in RANKING_FIGURES]
    result: Figures = dict.fromkeys(names)
    if not has_class_head(predictions):
        return result

    present = predictions["present"].to_numpy(bool)
    probability = predictions["probability"].to_numpy(float)
    slots = [(predictions["label"] == label).to_numpy() for label in labels]
    # Label by label as a binary problem: scikit-learn takes a table of one label for another kind of problem.
    decisions = np.array([_decision_figures(present[slot], probability[slot] >= threshold) for slot in slots])
    support = np.array([present[slot].sum() for slot in slots])
    rows = {
        **dict(zip(labels, decisions, strict=True)),
        "macro": decisions.mean(axis=0),
        "micro": _decision_figures(present, probability >= threshold),  # all labels' decisions in one pot
        "weighted": support @ decisions / max(support.sum(), 1),
    }
    for name, row in rows.items():
        for figure, value in zip(DECISION_FIGURES, row, strict=True):
            result[f"{name}_{figure}"] = float(value)

    for figure, score in zip(RANKING_FIGURES, (roc_auc_score, average_precision_score), strict=True):
        values = {
            label: float(score(present[slot], probability[slot]))
            for label, slot in zip(labels, slots, strict=True)
            if present[slot].any() and not present[slot].all()
        }
        result |= {f"{label}_{figure}": value for label, value in values.items()}
        if values:
            result[f"macro_{figure}"] = float(np.mean(list(values.values())))
    return result


def _decision_figures(present: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> NDArray[np.float64]:
    scores = precision_recall_fscore_support(present, predicted, average="binary", zero_division=0)
    return np.array(scores[:3])  # the fourth is the support, which has no single value here


def _box_figures(predictions: pd.DataFrame) -> Figures:
    boxes = predictions[predictions["present"]]
    if boxes.empty or not has_box_head(predictions):
        return dict.fromkeys(BOX_FIGURES)
    iou = true_box_iou(boxes)
    size = boxes[["width", "height", "width", "height"]].to_numpy(float)
    error = (boxes[PREDICTED_BOX].to_numpy(float) - boxes[TRUE_BOX].to_numpy(float)) / size
    return {
        "mean_iou": float(iou.mean()),
        "median_iou": float(iou.median()),
        "recall_at_50": float((iou >= 0.5).mean()),
        "recall_at_75": float((iou >= 0.75).mean()),
        "coordinate_mse": float(np.square(error).mean()),
        "coordinate_mae": float(np.abs(error).mean()),
    }
