"""The losses of the two heads."""

from brain_tumor.losses.diou import DIoULoss
from brain_tumor.losses.weighted_binary_crossentropy import WeightedBinaryCrossentropy

__all__ = ["DIoULoss", "WeightedBinaryCrossentropy"]
