from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from brain_tumor.boxes.measures import area, iou, overlap, present

pytestmark = pytest.mark.slow

# Pairs of boxes, their IoU, and the area of their union.
PAIRS = [
    ([0.25, 0.25, 0.5, 0.5], [0.25, 0.25, 0.5, 0.5], 1.0, 0.0625),
    ([0.0, 0.0, 0.5, 0.5], [0.25, 0.25, 0.75, 0.75], 0.0625 / 0.4375, 0.4375),
    ([0.0, 0.0, 0.5, 0.5], [0.5, 0.0, 1.0, 0.5], 0.0, 0.5),  # side by side
    ([0.0, 0.0, 0.25, 0.25], [0.5, 0.5, 1.0, 1.0], 0.0, 0.3125),  # apart in both directions
    ([0.0, 0.0, 1.0, 1.0], [0.25, 0.25, 0.5, 0.75], 0.125, 1.0),  # inside
    ([0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 0.0, 0.0], 0.0, 0.25),  # corners swapped
    ([0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5], 0.0, 0.0),  # no size
]


def test_overlap_by_hand() -> None:
    a, b, expected, union = (np.array(column) for column in zip(*PAIRS, strict=True))
    shares, unions = overlap(a, b)
    np.testing.assert_allclose(shares, expected, atol=1e-12)
    np.testing.assert_allclose(unions, union, atol=1e-12)
    np.testing.assert_array_equal(iou(b, a), shares)


def test_areas_by_hand() -> None:
    boxes = np.array([[[0.0, 0.25, 0.5, 0.5], [0.5, 0.5, 0.0, 0.75]], [[0.0] * 4, [10, 20, 30, 25]]])
    np.testing.assert_array_equal(area(boxes), [[0.125, 0], [0, 100]])


def test_a_box_is_present_if_any_coordinate_is_nonzero() -> None:
    boxes = np.concatenate([np.zeros((1, 4)), np.eye(4) / 2, np.ones((1, 4))]).reshape(2, 3, 4)
    expected = [[False, True, True], [True, True, True]]
    for kind in (np.asarray, tf.constant, ops.convert_to_tensor):
        np.testing.assert_array_equal(present(kind(boxes)), expected)


@pytest.mark.parametrize(
    ("xp", "kind"), [(ops, ops.convert_to_tensor), (tf, tf.constant)], ids=["keras", "tf"]
)
def test_all_libraries_give_equal_measures(xp: Any, kind: Any) -> None:
    a, b = np.random.default_rng(0).random((2, 20, 3, 4), dtype=np.float32)
    np.testing.assert_array_equal(area(kind(a), xp), area(a))
    if xp is ops:
        np.testing.assert_array_equal(iou(kind(a), kind(b), xp), iou(a, b))
