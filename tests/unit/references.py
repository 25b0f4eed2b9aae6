"""Shared by tests of losses: reference definitions in NumPy with double precision, and helpers."""

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

Array = NDArray[Any]

SMALLEST = 1e-7  # the lower limit of an area or squared length in a denominator


def cost(name: str, truth: Array, predicted: Array) -> Array:
    """The loss of pairs of boxes (n, 4) as defined in the papers: one value per pair."""
    truth, predicted = truth.astype(np.float64), predicted.astype(np.float64)
    corners = np.concatenate([truth.reshape(-1, 2, 2), predicted.reshape(-1, 2, 2)], axis=1)
    low, high = corners.min(axis=1), corners.max(axis=1)
    overlap = np.hstack(
        [np.maximum(truth[:, :2], predicted[:, :2]), np.minimum(truth[:, 2:], predicted[:, 2:])]
    )
    union = area(truth) + area(predicted) - area(overlap)
    iou = area(overlap) / np.maximum(union, SMALLEST)
    result = 1 - iou
    if name == "giou":
        hull = (high - low).prod(axis=1)
        result += (hull - union) / np.maximum(hull, SMALLEST)
    if name in ("diou", "ciou"):
        centers = [(boxes[:, :2] + boxes[:, 2:]) / 2 for boxes in (truth, predicted)]
        distance = ((centers[0] - centers[1]) ** 2).sum(axis=1)
        result += distance / np.maximum(((high - low) ** 2).sum(axis=1), SMALLEST)
    if name == "ciou":
        angles = []
        for boxes in (truth, predicted):
            sides = np.maximum(boxes[:, 2:] - boxes[:, :2], SMALLEST)
            angles.append(np.arctan(sides[:, 0] / sides[:, 1]))
        v = 4 / math.pi**2 * (angles[0] - angles[1]) ** 2
        result += v**2 / np.maximum(1 - iou + v, SMALLEST)
    return result


def area(boxes: Array) -> Array:
    return np.maximum(boxes[:, 2:] - boxes[:, :2], 0).prod(axis=1)


def random_boxes(rng: np.random.Generator, count: int) -> Array:
    corners = np.sort(rng.random((count, 2, 2)), axis=1)
    return corners.reshape(count, 4)


def value(loss: keras.losses.Loss, truth: object, predicted: object) -> float:
    return float(loss(np.array(truth, np.float32), np.array(predicted, np.float32)))


def gradient(loss: keras.losses.Loss, truth: Array, predicted: Array) -> Array:
    """The gradient of a loss with respect to the predictions."""
    variable = tf.Variable(predicted, dtype=tf.float32)
    with tf.GradientTape() as tape:
        result = loss(tf.constant(truth, tf.float32), variable)
    return np.array(tape.gradient(result, variable))
