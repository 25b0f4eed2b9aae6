"""Keras metrics of the box head."""

from brain_tumor.metrics.iou import BoxIoU

__all__ = ["BoxIoU"]
