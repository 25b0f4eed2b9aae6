"""FROC: sensitivity as a function of the number of false positive boxes per image.

Bunch et al., "A Free-Response Approach to the Measurement and Characterization of Radiographic-Observer
Performance", 1977. The seven operating points and their mean are those of the LUNA16 challenge.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brain_tumor.artifacts.evaluation import Figures
from brain_tumor.artifacts.figures import FROC_RATES

IOU_THRESHOLD = 0.5  # from this IoU, a box is a true positive


def froc_curve(rows: pd.DataFrame, labels: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Computes the FROC curve of one model's boxes, one point per distinct score.

    Args:
        rows: Rows of the model, `labels` per image, with at least one true box.
        labels: Number of labels in the rows.

    Returns:
        False positives per image, ascending, and sensitivity, (points,) each; both begin with 0.
    """
    score, hit = rows["score"].to_numpy(float), rows["iou"].to_numpy(float) >= IOU_THRESHOLD
    order = np.argsort(-score, kind="stable")
    last = np.append(np.flatnonzero(np.diff(score[order])), len(order) - 1)
    true_positives, false_positives = np.cumsum(hit[order])[last], np.cumsum(~hit[order])[last]
    images = len(rows) / labels
    return np.append(0.0, false_positives / images), np.append(0.0, true_positives / rows["present"].sum())


def froc_figures(rows: pd.DataFrame, labels: int) -> Figures:
    """Computes the sensitivity at seven rates of false positives per image, and the mean.

    Args:
        rows: As in `froc_curve`.
        labels: Number of labels in the rows.

    Returns:
        The figures of `FROC_RATES` and `froc_score`; None if there are no true or no predicted boxes.
    """
    if not rows["present"].any() or rows["score"].isna().any():
        return dict.fromkeys((*FROC_RATES, "froc_score"))
    rates, sensitivity = froc_curve(rows, labels)
    found = {name: float(sensitivity[rates <= rate + 1e-9].max()) for name, rate in FROC_RATES.items()}
    return {**found, "froc_score": float(np.mean(list(found.values())))}
