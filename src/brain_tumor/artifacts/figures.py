"""The figures of an evaluation: their names, the same everywhere, and their definitions.

Terminal, reports, dashboard, MLflow and JSON all use these names.
"""

from brain_tumor.config.dataset import AVERAGES

DECISION_FIGURES = ("precision", "recall", "f1")
RANKING_FIGURES = ("roc_auc", "average_precision", "sens_at_90_spec", "calibration_error")
SIZES = ("small", "medium", "large")
SIZE_FIGURES = ("true_boxes", "mean_iou", "recall_at_50", "box_ap50")
# By the figure's name, the allowed number of false boxes per image.
FROC_RATES = {
    "froc_1_8": 1 / 8,
    "froc_1_4": 1 / 4,
    "froc_1_2": 1 / 2,
    "froc_1": 1.0,
    "froc_2": 2.0,
    "froc_4": 4.0,
    "froc_8": 8.0,
}

_LABELS = {
    "precision": "fraction of the images predicted to show the label that show it",
    "recall": "fraction of the images with the label that are predicted to show it (sensitivity)",
    "f1": "harmonic mean of precision and recall",
    "roc_auc": "area under the ROC curve of the label's probability; 0.5 is chance",
    "average_precision": "area under the precision-recall curve of the label's probability",
    "sens_at_90_spec": "highest recall at a specificity of at least 90 %",
    "calibration_error": "expected calibration error: mean gap of probability and frequency in 15 bins",
}
_BOXES = {
    "true_boxes": "number of true boxes",
    "mean_iou": "mean IoU of true and predicted boxes, regardless of the label's probability",
    "median_iou": "median IoU of the same boxes",
    "recall_at_50": "fraction of true boxes with an IoU of at least 0.5, regardless of the probability",
    "recall_at_75": "the same with an IoU of at least 0.75",
    "coordinate_mse": "mean squared error of the coordinates, as fractions of the image's sides",
    "coordinate_mae": "mean absolute error of the coordinates, as fractions of the image's sides",
    "coordinate_mse_px": "mean squared error of the coordinates, in square pixels of the original image",
    "coordinate_mae_px": "mean absolute error of the coordinates, in pixels of the original image",
    "shuffled_iou": "mean IoU with the boxes predicted for other images: that of boxes that ignore the image",
    "center_spread": "spread of predicted centers / spread of true centers; 0: always the same center",
    "box_ap50": "COCO's mAP@0.5, with boxes ranked by their scores; false boxes count",
    "box_ap": "COCO's mAP@0.5:0.95: the mean over IoUs from 0.5 to 0.95",
    **{
        name: f"sensitivity (IoU 0.5) at {name.removeprefix('froc_').replace('_', '/')} false boxes per image"
        for name in FROC_RATES
    },
    "froc_score": "mean of the seven FROC sensitivities",
}
_BY_SIZE = {
    f"{name}_{size}": f"{name} of {size} true boxes, by COCO's area limits (32 x 32 and 96 x 96 pixels)"
    for size in SIZES
    for name in SIZE_FIGURES
}
_HOW = {
    "macro": "mean over the labels of {}",
    "micro": "pooled over all labels: {}",
    "samples": "mean over the images of {} of an image's labels; 0 / 0 counts as 1",
    "weighted": "mean over the labels, weighted by their number of images, of {}",
}

LABEL_FIGURES: dict[str, str] = _LABELS | _BOXES | _BY_SIZE
"""The figures of one label, with their definitions."""
OVERALL_FIGURES: dict[str, str] = {
    **{f"{how}_{name}": _HOW[how].format(name) for how in AVERAGES for name in DECISION_FIGURES},
    **{f"macro_{name}": _HOW["macro"].format(name) for name in RANKING_FIGURES},
    "micro_roc_auc": _HOW["micro"].format("roc_auc"),
    **_BOXES,
    **_BY_SIZE,
}
"""The figures over all labels, with their definitions. Box figures are over all true boxes, except COCO's,
which are means over the labels."""

DASHBOARD = (
    *("macro_f1", "mean_iou", "recall_at_50", "box_ap50"),
    *("macro_precision", "macro_recall", "macro_roc_auc"),
    *("median_iou", "recall_at_75", "box_ap", "froc_score"),
)
"""The final model's figures for a dashboard, along with `VERSUS`."""
VERSUS = {f"vs_constant_{name}": name for name in ("macro_f1", "mean_iou")}
"""Differences between the final model's figures and the constant baseline's, by name."""


def definition(name: str) -> str:
    """A figure's definition, in one line.

    Raises:
        KeyError: There is no such figure.
    """
    if name in VERSUS:
        return f"{VERSUS[name]} minus that of the constant baseline"
    return (OVERALL_FIGURES | LABEL_FIGURES)[name]
