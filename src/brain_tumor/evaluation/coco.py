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

COCO_FIGURES = ("box_ap50", "box_ap")
RECALLS = np.linspace(0, 1, 101)
FOUND = 0.5
IOUS = np.linspace(0.5, 0.95, 10)


def coco_figures(rows: pd.DataFrame) -> Figures:
    """The COCO figures of one model and label.

    Args:
        rows: The label's rows of one model in the predictions table.

    Returns:
        `box_ap50`, the average precision at an IoU of 0.5, and `box_ap`, its mean over IoUs from 0.5 to 0.95
        (AP50 and AP of COCO). None if there is no true box or no predicted one.
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
        evaluation.evaluate()
        evaluation.accumulate()
    # Over IoU, recall, label, size of boxes and number of boxes an image.
    precision = evaluation.eval["precision"][:, :, 0, 0, -1]
    return {"box_ap50": float(precision[0].mean()), "box_ap": float(precision.mean())}


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
