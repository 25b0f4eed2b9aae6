"""Keras metrics of the two heads."""

from brain_tumor.metrics.boxes import BoxAP50, BoxIoU, BoxMeanAbsoluteError, BoxMeanSquaredError, BoxRecall
from brain_tumor.metrics.labels import MeanAUC

__all__ = ["BoxAP50", "BoxIoU", "BoxMeanAbsoluteError", "BoxMeanSquaredError", "BoxRecall", "MeanAUC"]
