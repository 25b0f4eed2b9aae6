"""Keras metrics of the box head."""

from brain_tumor.metrics.boxes import BoxIoU, BoxMeanAbsoluteError, BoxMeanSquaredError, BoxRecall

__all__ = ["BoxIoU", "BoxMeanAbsoluteError", "BoxMeanSquaredError", "BoxRecall"]
