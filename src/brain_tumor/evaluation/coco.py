"""COCO average precision of the boxes, ranked by score; it penalizes false positives.

Each image has one predicted box per label: a true positive if its IoU reaches the IoU threshold.
https://cocodataset.org/#detection-eval
"""

import io
from contextlib import redirect_stdout
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from brain_tumor.artifacts.evaluation import Figures
from brain_tumor.artifacts.predictions import PREDICTED_BOX, TRUE_BOX

# Areas of true boxes in square pixels: lower limit inclusive, upper limit exclusive.
SIZE_LIMITS = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, np.inf)}
COCO_FIGURES = ("box_ap50", "box_ap", *(f"box_ap50_{size}" for size in SIZE_LIMITS))
RECALL_LEVELS = np.linspace(0, 1, 101)
IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)


def coco_figures(rows: pd.DataFrame) -> Figures:
    """Computes the COCO figures of one model and label.

    Args:
        rows: The label's rows of one model in the predictions table.

    Returns:
        `box_ap50`, the average precision at IoU 0.5; `box_ap`, its mean over IoUs from 0.5 to 0.95 (COCO's
        AP50 and AP); and AP50 by size (`box_ap50_small` etc.), where false positives of other sizes are
        ignored. None if there are no true boxes (of that size) or no predicted ones.
    """
    if not rows["present"].any() or rows["score"].isna().any():
        return dict.fromkeys(COCO_FIGURES)
    images = list(range(len(rows)))
    truth = [
        {"id": index + 1, **_box(index, box), "iscrowd": 0}
        for index, box in zip(images, rows[TRUE_BOX].to_numpy(float), strict=True)
        if not np.isnan(box[0])
    ]
    detections = [
        {**_box(index, box), "score": float(score)}
        for index, box, score in zip(images, rows[PREDICTED_BOX].to_numpy(float), rows["score"], strict=True)
    ]
    with redirect_stdout(io.StringIO()):  # pycocotools prints, and has no option not to
        coco = COCO()
        coco.dataset = {
            "images": [{"id": index} for index in images],
            "annotations": truth,
            "categories": [{"id": 1}],
        }
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(detections), "bbox")
        # The run time grows with the number of sizes and with maxDets.
        areas = np.array([box["area"] for box in truth])
        sizes = [size for size, (low, high) in SIZE_LIMITS.items() if ((areas >= low) & (areas < high)).any()]
        limits = [SIZE_LIMITS[size] for size in sizes]
        # pycocotools includes both limits of a range, and its largest area is 1e10.
        evaluation.params.areaRng = [[0, 1e10], *([low, min(high, 1e10) - 1e-6] for low, high in limits)]
        evaluation.params.areaRngLbl = ["all", *sizes]
        evaluation.params.maxDets = [1]
        evaluation.evaluate()
        evaluation.accumulate()
    # Axes: IoU, recall, label, size, maxDets.
    precision = evaluation.eval["precision"][:, :, 0, :, 0]
    by_size = zip(sizes, precision[0, :, 1:].T, strict=True)
    return {
        **dict.fromkeys(COCO_FIGURES),
        "box_ap50": float(precision[0, :, 0].mean()),
        "box_ap": float(precision[:, :, 0].mean()),
        **{f"box_ap50_{size}": float(values.mean()) for size, values in by_size},
    }


def _box(image: int, corners: NDArray[np.float64]) -> dict[str, Any]:
    xmin, ymin, xmax, ymax = map(float, corners)
    size = [xmax - xmin, ymax - ymin]
    return {"image_id": image, "category_id": 1, "bbox": [xmin, ymin, *size], "area": size[0] * size[1]}


def resampled_ap50(rows: pd.DataFrame, counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Computes `box_ap50` of each bootstrap resample.

    Args:
        rows: As in `coco_figures`.
        counts: How often each resample contains each row, (resamples, rows).

    Returns:
        One value per resample, NaN for one without true boxes.
    """
    return _resampled(rows, counts, [0.5])


def resampled_ap(rows: pd.DataFrame, counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Computes `box_ap` of each bootstrap resample, see `resampled_ap50`."""
    return _resampled(rows, counts, list(IOU_THRESHOLDS))


def _resampled(
    rows: pd.DataFrame, counts: NDArray[np.float64], thresholds: list[float]
) -> NDArray[np.float64]:
    order = np.argsort(-rows["score"].to_numpy(float), kind="stable")
    counts = counts[:, order]
    iou = rows["iou"].to_numpy(float)[order]
    boxes = counts @ rows["present"].to_numpy(float)[order]
    predicted = np.cumsum(counts, axis=1)
    values = np.full((len(thresholds), len(counts)), np.nan)
    for row, threshold in enumerate(thresholds):
        # Recall grows only at true positives; between them precision falls.
        hits = np.flatnonzero(iou >= threshold)
        found = np.cumsum(counts[:, hits], axis=1)
        precision = np.divide(found, predicted[:, hits], out=np.zeros_like(found), where=found > 0)
        # Interpolated precision: the highest precision at this or any higher recall.
        precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        for index in np.flatnonzero(boxes > 0):
            # Rounding errors of the division must not move a recall past one of the 101 recall levels.
            levels = np.searchsorted(found[index] / boxes[index] + 1e-12, RECALL_LEVELS)
            values[row, index] = np.append(precision[index], 0.0)[levels].mean()
    means: NDArray[np.float64] = values.mean(axis=0)
    return means
