"""ROC curves and confusion matrices, in the plain numbers that a dashboard takes."""

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix, roc_curve

from brain_tumor.artifacts.evaluation import LabelCurves, RocCurve

MOST_POINTS = 100


def label_curves(rows: pd.DataFrame, threshold: float) -> LabelCurves:
    """The curves of one label and model.

    Args:
        rows: The label's rows of one model, which has a class head, in the predictions table.
        threshold: Probability from which the label counts as predicted (confusion matrix).
    """
    present, probability = rows["present"].to_numpy(bool), rows["probability"].to_numpy(float)
    matrix = confusion_matrix(present, probability >= threshold, labels=[False, True]).tolist()
    if present.all() or not present.any():
        return LabelCurves(roc=None, confusion_matrix=matrix)
    fpr, tpr, thresholds = roc_curve(present, probability)
    kept = np.unique(np.linspace(0, len(fpr) - 1, MOST_POINTS).round().astype(int))
    thresholds = np.minimum(thresholds, 1.0)
    roc = RocCurve(fpr=fpr[kept].tolist(), tpr=tpr[kept].tolist(), thresholds=thresholds[kept].tolist())
    return LabelCurves(roc=roc, confusion_matrix=matrix)
