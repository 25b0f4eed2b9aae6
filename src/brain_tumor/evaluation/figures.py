"""The figures of one model: classification of the labels and quality of the boxes."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import (
    average_precision_score,
    precision_recall_fscore_support,
    roc_auc_score,
    roc_curve,
)

from brain_tumor.artifacts.evaluation import Figures
from brain_tumor.artifacts.figures import DECISION_FIGURES, RANKING_FIGURES, SIZES
from brain_tumor.artifacts.predictions import PREDICTED_BOX, TRUE_BOX, has_box_head, has_class_head
from brain_tumor.boxes.measures import area, iou
from brain_tumor.config import Threshold
from brain_tumor.config.dataset import AVERAGES
from brain_tumor.evaluation.coco import COCO_FIGURES, SIZE_LIMITS, coco_figures
from brain_tumor.evaluation.curves import calibration_bins
from brain_tumor.evaluation.froc import froc_figures
from brain_tumor.evaluation.image_dependence import DEPENDENCE_FIGURES, dependence_figures
from brain_tumor.evaluation.thresholds import decisions

SPECIFICITY = 0.9
BOX_FIGURES = (
    *("mean_iou", "median_iou", "recall_at_50", "recall_at_75"),
    *("coordinate_mse", "coordinate_mae", "coordinate_mse_px", "coordinate_mae_px"),
)
FIGURES_BY_SIZE = ("mean_iou", "recall_at_50")


def with_iou(predictions: pd.DataFrame) -> pd.DataFrame:
    """Adds the column `iou` to the rows of a predictions table.

    It is the IoU of the true and the predicted box, whatever the label's probability; NaN if either box is
    missing.
    """
    true, predicted = (predictions[names].to_numpy(float) for names in (TRUE_BOX, PREDICTED_BOX))
    return predictions.assign(iou=iou(true, predicted))


def label_figures(predictions: pd.DataFrame, labels: list[str], threshold: Threshold) -> dict[str, Figures]:
    """Computes the figures of each label.

    Args:
        predictions: The rows of one model in the predictions table.
        labels: The label names, in slot order.
        threshold: The decision threshold; ignored if the rows have a column `predicted`, see
            `with_decisions`.

    Returns:
        All of `LABEL_FIGURES` by label. A figure is None if it is undefined: the model lacks the head, or the
        label is present in no slice, or (ranking figures) in all slices. Precision without positive
        predictions is 0.
    """
    # Each label is a binary problem: scikit-learn does not treat a single column as multi-label.
    return {label: _label_figures(predictions[predictions["label"] == label], threshold) for label in labels}


def _label_figures(rows: pd.DataFrame, threshold: Threshold) -> Figures:
    found = _box_figures(rows) | coco_figures(rows) | froc_figures(rows, 1)
    if not has_class_head(rows) or not rows["present"].any():
        return {**dict.fromkeys((*DECISION_FIGURES, *RANKING_FIGURES)), **found}
    return {**_binary_figures(rows, threshold), **found}


def overall_figures(predictions: pd.DataFrame, labels: dict[str, Figures], threshold: Threshold) -> Figures:
    """Computes the figures over all labels, and over all true boxes.

    Args:
        predictions: The rows of one model.
        labels: The result of `label_figures` for these rows.
        threshold: See `label_figures`.

    Returns:
        All of `OVERALL_FIGURES`. A figure is None if it is undefined: the model lacks the head, or no label
        is present in any slice. Means over labels skip labels for which the figure is undefined.
    """
    return {
        **_average_figures(predictions, labels, threshold),
        **_box_figures(predictions),
        **{name: _mean(labels, name) for name in COCO_FIGURES},
        **froc_figures(predictions, len(labels)),
    }


def _mean(labels: dict[str, Figures], name: str) -> float | None:
    """The mean of a figure over the labels that have it."""
    values = [value for own in labels.values() if (value := own[name]) is not None]
    return float(np.mean(values)) if values else None


def _binary_figures(rows: pd.DataFrame, threshold: Threshold) -> Figures:
    present = rows["present"].to_numpy(bool)
    found = dict(zip(DECISION_FIGURES, _decisions(present, decisions(rows, threshold)), strict=True))
    return found | _ranking_figures(rows)


def _ranking_figures(rows: pd.DataFrame) -> Figures:
    """The `RANKING_FIGURES`; None if the label is present in all of the rows or in none."""
    present, probability = rows["present"].to_numpy(bool), rows["probability"].to_numpy(float)
    if present.all() or not present.any():
        return dict.fromkeys(RANKING_FIGURES)
    false_rate, true_rate, _ = roc_curve(present, probability, drop_intermediate=False)
    weight, mean, share = calibration_bins(rows)
    return {
        "roc_auc": float(roc_auc_score(present, probability)),
        "average_precision": float(average_precision_score(present, probability)),
        "sens_at_90_spec": float(true_rate[false_rate <= 1 - SPECIFICITY + 1e-9].max()),
        "calibration_error": float((weight * np.abs(mean - share)).sum()),
    }


def _decisions(present: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> list[float | None]:
    """The `DECISION_FIGURES`."""
    scores = precision_recall_fscore_support(present, predicted, average="binary", zero_division=0)
    return [float(score) for score in scores[:3]]  # the fourth is the support, which has no single value here


def _sample_decisions(predictions: pd.DataFrame, predicted: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The `DECISION_FIGURES` averaged over images: 1 where a figure's denominator is 0."""
    present = predictions["present"].to_numpy(bool)
    table = pd.DataFrame({"correct": present & predicted, "predicted": predicted, "present": present})
    counts = table.groupby(predictions["source_id"].to_numpy(), sort=False).sum().to_numpy(float)
    correct, positives, support = counts.T
    # Of precision, recall and F1.
    denominators = np.array([positives, support, (positives + support) / 2])
    values = np.divide(correct, denominators, out=np.ones_like(denominators), where=denominators > 0)
    means: NDArray[np.float64] = values.mean(axis=1)
    return means


def _average_figures(predictions: pd.DataFrame, labels: dict[str, Figures], threshold: Threshold) -> Figures:
    names = [f"{average}_{figure}" for average in AVERAGES for figure in DECISION_FIGURES]
    found: Figures = dict.fromkeys([*names, *(f"macro_{figure}" for figure in RANKING_FIGURES)])
    found["micro_roc_auc"] = None
    if not has_class_head(predictions) or not predictions["present"].any():
        return found

    present = predictions["present"].to_numpy(bool)
    known = [label for label, figures in labels.items() if figures["f1"] is not None]
    table = np.array([[labels[label][figure] for figure in DECISION_FIGURES] for label in known], float)
    support = np.array([present[(predictions["label"] == label).to_numpy()].sum() for label in known])
    averages = {
        "macro": table.mean(axis=0),
        # Micro average over all labels, including false positives of labels that are in no slice.
        "micro": _decisions(present, decisions(predictions, threshold)),
        "weighted": support @ table / support.sum(),
        "samples": _sample_decisions(predictions, decisions(predictions, threshold)),
    }
    for average in AVERAGES:
        for figure, value in zip(DECISION_FIGURES, averages[average], strict=True):
            found[f"{average}_{figure}"] = float(value)
    found |= {f"macro_{figure}": _mean(labels, figure) for figure in RANKING_FIGURES}
    return found | {"micro_roc_auc": _ranking_figures(predictions)["roc_auc"]}


def _box_figures(predictions: pd.DataFrame) -> Figures:
    by_size = [f"{figure}_{size}" for size in SIZES for figure in FIGURES_BY_SIZE]
    counts = ("true_boxes", *(f"true_boxes_{size}" for size in SIZES))
    boxes = predictions[predictions["present"]]
    if boxes.empty or not has_box_head(predictions):
        return dict.fromkeys((*counts, *BOX_FIGURES, *DEPENDENCE_FIGURES, *by_size))
    size = boxes[["width", "height", "width", "height"]].to_numpy(float)
    pixels = boxes[PREDICTED_BOX].to_numpy(float) - boxes[TRUE_BOX].to_numpy(float)
    error = pixels / size
    found: Figures = {
        "true_boxes": float(len(boxes)),
        **_iou_figures(boxes["iou"]),
        "coordinate_mse": float(np.square(error).mean()),
        "coordinate_mae": float(np.abs(error).mean()),
        "coordinate_mse_px": float(np.square(pixels).mean()),
        "coordinate_mae_px": float(np.abs(pixels).mean()),
        **dependence_figures(predictions),
    }
    areas = area(boxes[TRUE_BOX].to_numpy(float))
    for name in SIZES:
        low, high = SIZE_LIMITS[name]
        own = boxes["iou"][(areas >= low) & (areas < high)]
        found[f"true_boxes_{name}"] = float(len(own))
        found |= {f"{figure}_{name}": _iou_figures(own)[figure] for figure in FIGURES_BY_SIZE}
    return found


def _iou_figures(ious: pd.Series) -> Figures:
    """The figures that depend only on the IoU; None if there are no boxes."""
    if ious.empty:
        return dict.fromkeys(("mean_iou", "median_iou", "recall_at_50", "recall_at_75"))
    return {
        "mean_iou": float(ious.mean()),
        "median_iou": float(ious.median()),
        "recall_at_50": float((ious >= 0.5).mean()),
        "recall_at_75": float((ious >= 0.75).mean()),
    }
