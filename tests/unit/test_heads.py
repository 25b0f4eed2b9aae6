import keras
import numpy as np
import pytest
from models import check_boxes

from brain_tumor.model.heads import BOX_HEADS, BoxFromPlaceAndSize, BoxVotes


@pytest.mark.parametrize("scale", [1, 100, 10_000])
def test_boxes_are_valid_whatever_the_votes(scale: int) -> None:
    votes = np.random.default_rng(scale).normal(0, scale, (20, 4, 7, 3 * 5)).astype(np.float32)
    boxes = np.array(BoxVotes(3)(votes))
    assert boxes.shape == (20, 3, 4)
    check_boxes(boxes)


@pytest.mark.parametrize("scale", [1, 100, 10_000])
def test_boxes_are_valid_whatever_the_dense_layers_say(scale: int) -> None:
    numbers = np.random.default_rng(scale).normal(0, scale, (200, 3 * 4)).astype(np.float32)
    boxes = np.array(BoxFromPlaceAndSize(3)(numbers))
    assert boxes.shape == (200, 3, 4)
    check_boxes(boxes)


def test_every_valid_box_has_its_four_numbers() -> None:
    rng = np.random.default_rng(0)
    boxes = np.sort(rng.uniform(0.01, 0.99, (50, 2, 2)), axis=1).reshape(50, 4)
    size = boxes[:, 2:] - boxes[:, :2]
    shares = np.hstack([boxes[:, :2] / (1 - size), size])
    numbers = np.log(shares / (1 - shares)).astype(np.float32)  # the sigmoid's inverse
    np.testing.assert_allclose(BoxFromPlaceAndSize(1)(numbers)[:, 0], boxes, atol=1e-5)


@pytest.mark.parametrize("name", BOX_HEADS)
def test_what_moves_the_boxes(name: str) -> None:
    """Features that change places change a spatial head's boxes, and no pooled head's."""
    rng = np.random.default_rng(0)
    maps = [rng.random((1, size, size, 8), dtype=np.float32) for size in (8, 4, 2)]
    inputs = [keras.Input(values.shape[1:]) for values in maps]
    keras.utils.set_random_seed(0)
    head = keras.Model(inputs, BOX_HEADS[name](inputs, 3, 16))
    before, after = np.array(head(maps)), np.array(head([values[:, :, ::-1] for values in maps]))
    assert np.allclose(before, after, atol=1e-6) == (name == "pooled")


def test_a_vote_comes_from_where_it_stands() -> None:
    rows, columns, classes = 2, 5, 3
    votes = np.zeros((1, rows, columns, classes, 5), np.float32)
    votes[..., 1:] = -BoxVotes.INITIAL_DISTANCE  # each side half of the way to the image's edge
    for slot, (row, column) in enumerate([(0, 0), (0, 4), (1, 3)]):
        votes[0, row, column, slot, 0] = 100

    boxes = np.array(BoxVotes(classes)(votes.reshape(1, rows, columns, -1)))[0]

    # The centers of these positions: (0.1, 0.25), (0.9, 0.25) and (0.7, 0.75).
    expected = [[0.05, 0.125, 0.55, 0.625], [0.45, 0.125, 0.95, 0.625], [0.35, 0.375, 0.85, 0.875]]
    np.testing.assert_allclose(boxes, expected, atol=1e-6)
