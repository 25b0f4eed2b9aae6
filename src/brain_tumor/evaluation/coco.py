"""The COCO figures of boxes: average precision over ranked boxes, in which a false box costs something.

Every image has one box of each label, and its score says how it is ranked; a true box is found if the IoU is
high enough. https://cocodataset.org/#detection-eval
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

# True boxes of these areas, in square pixels, lower border included.
SIZE_LIMITS = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, np.inf)}
COCO_FIGURES = ("box_ap50", "box_ap", *(f"box_ap50_{size}" for size in SIZE_LIMITS))
RECALLS = np.linspace(0, 1, 101)
FOUND = 0.5
IOUS = np.linspace(0.5, 0.95, 10)


def coco_figures(rows: pd.DataFrame) -> Figures:
    """The COCO figures of one model and label.

    Args:
        rows: The label's rows of one model in the predictions table.

    Returns:
        `box_ap50`, the average precision at an IoU of 0.5, and `box_ap`, its mean over IoUs from 0.5 to 0.95
        (AP50 and AP of COCO); and `box_ap50_small` and so on, AP50 of true boxes of a size, beside which a
        false box of another size costs nothing. None if there is no true box (of that size) or no predicted
        one.
    """
    if not rows["present"].any() or rows["score"].isna().any():
        return dict.fromkeys(COCO_FIGURES)
    images = list(range(len(rows)))
    truth = [
        {"id": index + 1, **_box(index, box), "iscrowd": 0}
        for index, box in zip(images, rows[TRUE_BOX].to_numpy(float), strict=True)
        if not np.isnan(box[0])
    ]
    answers = [
        {**_box(index, box), "score": float(score)}
        for index, box, score in zip(images, rows[PREDICTED_BOX].to_numpy(float), rows["score"], strict=True)
    ]
    with redirect_stdout(io.StringIO()):  # it has no other way to be quiet
        known = COCO()
        known.dataset = {
            "images": [{"id": index} for index in images],
            "annotations": truth,
            "categories": [{"id": 1}],
        }
        known.createIndex()
        evaluation = COCOeval(known, known.loadRes(answers), "bbox")
        # Its time goes with the sizes that it looks at, and with the numbers of boxes an image.
        areas = np.array([box["area"] for box in truth])
        sizes = [size for size, (low, high) in SIZE_LIMITS.items() if ((areas >= low) & (areas < high)).any()]
        limits = [SIZE_LIMITS[size] for size in sizes]
        # It takes both borders for the size's own, and has no larger number than 1e10.
        evaluation.params.areaRng = [[0, 1e10], *([low, min(high, 1e10) - 1e-6] for low, high in limits)]
        evaluation.params.areaRngLbl = ["all", *sizes]
        evaluation.params.maxDets = [1]
        evaluation.evaluate()
        evaluation.accumulate()
    # Over IoU, recall, label, size of boxes and number of boxes an image.
    precision = evaluation.eval["precision"][:, :, 0, :, 0]
    by_size = zip(sizes, precision[0, :, 1:].T, strict=True)
    return {
        **dict.fromkeys(COCO_FIGURES),
        "box_ap50": float(precision[0, :, 0].mean()),
        "box_ap": float(precision[:, :, 0].mean()),
        **{f"box_ap50_{size}": float(own.mean()) for size, own in by_size},
    }


def _box(image: int, corners: NDArray[np.float64]) -> dict[str, Any]:
    xmin, ymin, xmax, ymax = map(float, corners)
    size = [xmax - xmin, ymax - ymin]
    return {"image_id": image, "category_id": 1, "bbox": [xmin, ymin, *size], "area": size[0] * size[1]}


def resampled_ap50(rows: pd.DataFrame, counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """`box_ap50` of resamples, in which rows count more than once or not at all.

    Args:
        rows: As in `coco_figures`.
        counts: How often each row counts, (resamples, rows).

    Returns:
        A value a resample, NaN where it has no true box.
    """
    return _resampled(rows, counts, [FOUND])


def resampled_ap(rows: pd.DataFrame, counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """`box_ap` of resamples, likewise."""
    return _resampled(rows, counts, list(IOUS))


def _resampled(rows: pd.DataFrame, counts: NDArray[np.float64], ious: list[float]) -> NDArray[np.float64]:
    order = np.argsort(-rows["score"].to_numpy(float), kind="stable")
    counts = counts[:, order]
    iou = rows["iou"].to_numpy(float)[order]
    boxes = counts @ rows["present"].to_numpy(float)[order]
    shown = np.cumsum(counts, axis=1)
    values = np.full((len(ious), len(counts)), np.nan)
    for place, least in enumerate(ious):
        # Only where a box is found does recall grow; between these places precision falls.
        hits = np.flatnonzero(iou >= least)
        found = np.cumsum(counts[:, hits], axis=1)
        precision = np.divide(found, shown[:, hits], out=np.zeros_like(found), where=found > 0)
        # A precision is the best one at this recall or a higher one.
        precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        for index in np.flatnonzero(boxes > 0):
            # Rounding errors of the division must not move a recall past one of the 101.
            at = np.searchsorted(found[index] / boxes[index] + 1e-12, RECALLS)
            values[place, index] = np.append(precision[index], 0.0)[at].mean()
    means: NDArray[np.float64] = values.mean(axis=0)
    return means
