"""The losses of the two heads."""

from brain_tumor.losses.detection import DetectionLoss
from brain_tumor.losses.iou import BOX_LOSSES, BoxLoss, CIoULoss, DIoULoss, GIoULoss, IoULoss
from brain_tumor.losses.weighted_binary_crossentropy import WeightedBinaryCrossentropy

__all__ = [
    "BOX_LOSSES",
    "BoxLoss",
    "CIoULoss",
    "DIoULoss",
    "DetectionLoss",
    "GIoULoss",
    "IoULoss",
    "WeightedBinaryCrossentropy",
]
