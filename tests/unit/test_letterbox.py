import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from brain_tumor.boxes.letterbox import box_from_letterbox, box_to_letterbox, letterbox

pytestmark = pytest.mark.slow

SIDES = st.integers(1, 2000)
SQUARES = st.integers(8, 640)
COORDINATES = st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4)


def as_box(values: list[float]) -> list[np.float32]:
    """Four numbers as a valid box, with the precision of boxes in a record."""
    (xmin, xmax), (ymin, ymax) = sorted(values[:2]), sorted(values[2:])
    return [np.float32(value) for value in (xmin, ymin, xmax, ymax)]


@pytest.mark.parametrize(
    ("height", "width", "size", "expected"),
    [
        (64, 64, 64, (0, 0, 64, 64)),
        (100, 50, 64, (0, 16, 64, 32)),
        (50, 100, 64, (16, 0, 32, 64)),
        (30, 40, 80, (10, 0, 60, 80)),  # enlarged
        (174, 139, 64, (0, 6, 64, 51)),  # 51.1 columns; 13 of padding, the odd one on the right
        (2000, 1, 8, (0, 3, 8, 1)),  # at least one pixel
    ],
)
def test_letterbox_by_hand(height: int, width: int, size: int, expected: tuple[int, ...]) -> None:
    assert letterbox(height, width, size) == expected


def test_boxes_by_hand() -> None:
    placement = letterbox(100, 50, 64)

    assert box_to_letterbox((0.0, 0.0, 1.0, 1.0), placement, 64) == (0.25, 0.0, 0.75, 1.0)
    assert box_to_letterbox((0.5, 0.25, 0.75, 0.5), placement, 64) == (0.5, 0.25, 0.625, 0.5)
    assert box_from_letterbox((0.5, 0.25, 0.625, 0.5), 100, 50, 64) == (25.0, 25.0, 37.5, 50.0)
    # The padding is outside the image, so coordinates there are outside 0..1.
    assert box_from_letterbox((0.0, 0.0, 1.0, 1.0), 100, 50, 64) == (-25.0, 0.0, 75.0, 100.0)


@given(SIDES, SIDES, SQUARES)
def test_an_image_fills_the_square_and_keeps_its_shape(height: int, width: int, size: int) -> None:
    top, left, new_height, new_width = letterbox(height, width, size)

    assert max(new_height, new_width) == size
    for original, new, start in ((height, new_height, top), (width, new_width, left)):
        assert new == 1 or abs(new - original * size / max(height, width)) <= 0.5
        assert 0 <= size - new - 2 * start <= 1  # centered, the odd pixel at the end


@given(SIDES, SIDES, SQUARES, COORDINATES)
def test_a_box_survives_the_round_trip_and_stays_inside(
    height: int, width: int, size: int, values: list[float]
) -> None:
    box = as_box(values)
    top, left, new_height, new_width = letterbox(height, width, size)

    moved = box_to_letterbox(box, (top, left, new_height, new_width), size)
    back = box_from_letterbox(moved, height, width, size)

    xmin, ymin, xmax, ymax = moved
    assert left / size - 1e-6 <= xmin <= xmax <= (left + new_width) / size + 1e-6
    assert top / size - 1e-6 <= ymin <= ymax <= (top + new_height) / size + 1e-6
    pixels = np.array(box) * [width, height, width, height]
    np.testing.assert_allclose(back, pixels, rtol=0, atol=0.01)


def test_tensorflow_and_numpy_agree() -> None:
    rng = np.random.default_rng(0)
    heights, widths = rng.integers(1, 700, (2, 500), dtype=np.int32)
    boxes = np.sort(rng.random((2, 2, 500), dtype=np.float32), axis=0).reshape(4, 500)

    for size in (32, 240):
        numbers = [letterbox(int(h), int(w), size) for h, w in zip(heights, widths, strict=True)]
        arrays = letterbox(heights, widths, size)
        tensors = letterbox(tf.constant(heights), tf.constant(widths), size)
        np.testing.assert_array_equal(np.stack(arrays, axis=1), numbers)
        np.testing.assert_array_equal(tf.stack(tensors, axis=1), numbers)

        moved = box_to_letterbox(boxes, arrays, size)
        moved_by_tf = box_to_letterbox(tf.unstack(boxes), [tf.cast(t, tf.float32) for t in tensors], size)
        np.testing.assert_allclose(np.stack(moved_by_tf), np.stack(moved), rtol=0, atol=1e-6)
