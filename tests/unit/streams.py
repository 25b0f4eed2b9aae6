"""Shared by tests of batches: reading and comparing streams of batches."""

import itertools
from collections.abc import Iterable

import numpy as np
import tensorflow as tf

SIZE = 32
STEPS = 4  # batches of 8 in the 32 training images of `tiny_records`


def take(batches: tf.data.Dataset, count: int = STEPS, skip: int = 0) -> list[list[np.ndarray]]:
    """Some batches, each as its images and its targets in the order of the heads' names."""
    return [
        [images, *(targets[head] for head in sorted(targets))]
        for images, targets in itertools.islice(batches.as_numpy_iterator(), skip, skip + count)
    ]


def order(batches: Iterable[list[np.ndarray]]) -> list[bytes]:
    """Each image by its pixels."""
    return [image.tobytes() for images, *_ in batches for image in images]


def assert_same(batches: list[list[np.ndarray]], others: list[list[np.ndarray]]) -> None:
    for batch, other in zip(batches, others, strict=True):
        for array, same in zip(batch, other, strict=True):
            np.testing.assert_array_equal(array, same)
