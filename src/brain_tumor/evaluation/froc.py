"""FROC: sensitivity for true boxes as a function of the number of false boxes per image.

Bunch et al., "A Free-Response Approach to the Measurement and Characterization of Radiographic-Observer
Performance", 1977; the seven rates and their mean are those of the LUNA16 challenge.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brain_tumor.artifacts.evaluation import Figures
from brain_tumor.artifacts.figures import FROC_RATES

FOUND = 0.5  # the IoU from which a true box is found


def froc_curve(rows: pd.DataFrame, labels: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Computes the FROC curve of one model's boxes; boxes with equal scores make one point.

    Args:
        rows: Rows of the model, `labels` per image, with at least one true box.
        labels: Number of labels in the rows.

    Returns:
        False boxes per image, ascending, and sensitivity; both begin with 0.
    """
    score, hit = rows["score"].to_numpy(float), rows["iou"].to_numpy(float) >= FOUND
    order = np.argsort(-score, kind="stable")
    last = np.append(np.flatnonzero(np.diff(score[order])), len(order) - 1)
    found, wrong = np.cumsum(hit[order])[last], np.cumsum(~hit[order])[last]
    images = len(rows) / labels
    return np.append(0.0, wrong / images), np.append(0.0, found / rows["present"].sum())


def froc_figures(rows: pd.DataFrame, labels: int) -> Figures:
    """Computes the sensitivities at the seven rates, and their mean.

    Args:
        rows: As in `froc_curve`.
        labels: Number of labels in the rows.

    Returns:
        The figures of `FROC_RATES` and `froc_score`; None if there are no true or no predicted boxes.
    """
    if not rows["present"].any() or rows["score"].isna().any():
        return dict.fromkeys((*FROC_RATES, "froc_score"))
    false_boxes, sensitivity = froc_curve(rows, labels)
    found = {name: float(sensitivity[false_boxes <= rate + 1e-9].max()) for name, rate in FROC_RATES.items()}
    return {**found, "froc_score": float(np.mean(list(found.values())))}
