"""Measures whether predicted boxes depend on the image: a constant mean box also has an IoU above 0."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brain_tumor.artifacts.evaluation import Figures
from brain_tumor.artifacts.predictions import PREDICTED_BOX, TRUE_BOX
from brain_tumor.boxes.measures import iou

DEPENDENCE_FIGURES = ("shuffled_iou", "center_spread")
SHUFFLES = 16


def shuffled_iou(boxes: pd.DataFrame) -> NDArray[np.float64]:
    """Computes the IoU of each true box with the boxes predicted for the same label in other images.

    Args:
        boxes: Rows of the predictions table, of one model that has a box head, each with a true box.

    Returns:
        For each row, (rows,), the mean over up to 16 other images; NaN for a label's only box. The other
        images are far away in the table, since those of one patient are adjacent.
    """
    sides = boxes[["width", "height", "width", "height"]].to_numpy(float)
    true, predicted = (boxes[names].to_numpy(float) / sides for names in (TRUE_BOX, PREDICTED_BOX))
    found = np.full(len(boxes), np.nan)
    for places in boxes.groupby("label", sort=False).indices.values():
        count = len(places)
        if count > 1:
            steps = np.unique(np.linspace(1, count - 1, min(SHUFFLES, count - 1) + 2).round().astype(int))
            steps = steps[1:-1] if len(steps) > 2 else steps  # neighbors are often of the same patient
            others = [iou(true[places], predicted[np.roll(places, step)]) for step in steps]
            found[places] = np.mean(others, axis=0)
    return found


def dependence_figures(predictions: pd.DataFrame) -> Figures:
    """Computes the mean of `shuffled_iou`, and the spread of predicted centers relative to true ones.

    Args:
        predictions: Rows of one model that has a box head, with at least one true box.

    Returns:
        `shuffled_iou`, and `center_spread`, a ratio of standard deviations around the label's mean (as
        fractions of the image's sides). `shuffled_iou` is None if each label has only one true box;
        `center_spread` is None if the true boxes of each label have the same center.
    """
    boxes = predictions[predictions["present"]]
    shuffled = shuffled_iou(boxes)
    known = shuffled[~np.isnan(shuffled)]
    true, predicted = (_spread(boxes, names) for names in (TRUE_BOX, PREDICTED_BOX))
    return {
        "shuffled_iou": float(known.mean()) if len(known) else None,
        "center_spread": predicted / true if true > 1e-9 else None,
    }


def _spread(boxes: pd.DataFrame, names: list[str]) -> float:
    corners = boxes[names].to_numpy(float)
    sides = boxes[["width", "height"]].to_numpy(float)
    centers: Any = pd.DataFrame((corners[:, :2] + corners[:, 2:]) / 2 / sides, index=boxes.index)
    means = centers.groupby(boxes["label"]).transform("mean")
    return float(np.sqrt(np.square(centers - means).to_numpy().mean()))
