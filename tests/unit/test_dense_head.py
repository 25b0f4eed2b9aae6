"""The dense box head: the predictions at its positions, and the choice of a position."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from brain_tumor.boxes import measures
from brain_tumor.model.dense_head import (
    PRIOR,
    BoxDecoder,
    BoxVoting,
    cell_centers,
    dense_box_head,
    feature_pyramid,
)
from tests.unit.models import check_boxes

pytestmark = pytest.mark.slow

CLASSES = 3


def head_on(sizes: tuple[int, ...], channels: int = 6) -> keras.Model:
    """A head with random weights on feature maps of these sizes, finest first: its map and predictions."""
    keras.utils.set_random_seed(0)
    inputs = [keras.Input((size, size, channels)) for size in sizes]
    answers = dense_box_head(feature_pyramid(inputs, 16), CLASSES, 16)
    return keras.Model(inputs, {"map": answers, "best": BoxVoting(name="boxes_best")(answers)})


def maps_of(sizes: tuple[int, ...], count: int = 2, channels: int = 6) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=(count, size, size, channels)).astype(np.float32) for size in sizes]


def answer(head: keras.Model, maps: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    answers = head(maps, training=False)
    return np.array(answers["map"]), np.array(answers["best"])


@pytest.mark.parametrize("scale", [1, 100, 10_000])
def test_boxes_are_valid_for_any_numbers(scale: int) -> None:
    rng = np.random.default_rng(scale)
    scores = rng.normal(0, scale, (20, 4, 7, CLASSES)).astype(np.float32)
    sides = rng.normal(0, scale, (20, 4, 7, CLASSES * 4)).astype(np.float32)
    best = np.array(BoxVoting()(BoxDecoder(CLASSES)([scores, sides])))
    assert best.shape == (20, CLASSES, 5)
    check_boxes(best[..., :4])
    np.testing.assert_array_equal(best[..., 4], scores.max(axis=(1, 2)))


@given(seed=st.integers(0, 10**6), rows=st.integers(1, 9), columns=st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_a_box_contains_its_position(seed: int, rows: int, columns: int) -> None:
    """Before it is clipped to the image, beyond which it may extend."""
    rng = np.random.default_rng(seed)
    sides = rng.uniform(-15, 15, (2, rows, columns, CLASSES * 4)).astype(np.float32)
    answers = np.array(BoxDecoder(CLASSES)([np.zeros((2, rows, columns, CLASSES), np.float32), sides]))
    places = np.array(cell_centers(rows, columns))[:, :, None]
    assert (answers[..., :2] <= places).all() and (answers[..., 2:4] >= places).all()
    wide = sides.reshape(2, rows, columns, CLASSES, 4) > -10
    distances = np.concatenate([places - answers[..., :2], answers[..., 2:4] - places], axis=-1)
    assert (distances[wide] > 0).all()
    assert distances.max() > 1, "it extends beyond the image"


def test_distances_by_hand() -> None:
    """An eighth of the side times an exponential, which is linear above 3."""
    numbers = [-2.0, 0.0, 3.0, 5.0]
    sides = np.tile(np.array(numbers, np.float32), (1, 2, 4, 1))
    answers = np.array(BoxDecoder(1)([np.zeros((1, 2, 4, 1), np.float32), sides]))
    left, upper, right, lower = np.exp([-2, 0, 3, 3]) / 8 * [1, 1, 1, 3]
    x, y = np.array([0.125, 0.375, 0.625, 0.875]), np.array([0.25, 0.75])
    np.testing.assert_allclose(answers[0, :, :, 0, 0], np.tile(x - left, (2, 1)), rtol=1e-5)
    np.testing.assert_allclose(answers[0, :, :, 0, 1], np.tile(y - upper, (4, 1)).T, rtol=1e-5)
    np.testing.assert_allclose(answers[0, :, :, 0, 2], np.tile(x + right, (2, 1)), rtol=1e-5)
    np.testing.assert_allclose(answers[0, :, :, 0, 3], np.tile(y + lower, (4, 1)).T, rtol=1e-5)


def test_a_larger_number_gives_a_larger_distance_and_a_gradient() -> None:
    numbers = tf.Variable(np.linspace(-8, 40, 200, dtype=np.float32).reshape(1, 1, 200, 1) * np.ones(4))
    numbers = tf.Variable(tf.cast(numbers, tf.float32))
    with tf.GradientTape() as tape:
        answers = BoxDecoder(1)([tf.zeros((1, 1, 200, 1)), numbers])
        width = answers[..., 2] - answers[..., 0]
    assert (np.diff(np.ravel(width)) > 0).all()
    gradients = np.array(tape.gradient(width, numbers))[..., [0, 2]]
    assert np.isfinite(gradients).all() and (gradients > 0).all()


def test_the_position_with_the_highest_score_is_chosen() -> None:
    rows, columns = 2, 5
    sides = np.zeros((1, rows, columns, CLASSES * 4), np.float32)  # an eighth on all sides
    scores = np.full((1, rows, columns, CLASSES), -3, np.float32)
    for slot, (row, column) in enumerate([(0, 0), (0, 3), (1, 4)]):
        scores[0, row, column, slot] = slot

    best = np.array(BoxVoting()(BoxDecoder(CLASSES)([scores, sides])))[0]

    # The centers of these cells: (0.1, 0.25), (0.7, 0.25) and (0.9, 0.75). The first box is clipped at the
    # left, the last one at the right.
    expected = [[0, 0.125, 0.225, 0.375], [0.575, 0.125, 0.825, 0.375], [0.775, 0.625, 1, 0.875]]
    np.testing.assert_allclose(best[:, :4], expected, atol=1e-6)
    np.testing.assert_array_equal(best[:, 4], [0, 1, 2])


def test_images_are_independent() -> None:
    answers = np.random.default_rng(0).normal(size=(6, 3, 4, CLASSES, 5)).astype(np.float32)
    answers[..., 2:4] += answers[..., :2] + 2
    best = np.array(BoxVoting()(answers))
    for image, slot in np.ndindex(6, CLASSES):
        own = answers[image, :, :, slot].reshape(-1, 5)
        chosen = own[np.argmax(own[:, 4])]
        boxes = np.clip(own[:, :4], 0, 1)
        votes = (own == chosen).all(axis=1) | (measures.iou(boxes, np.clip(chosen[:4], 0, 1)) >= 0.7)
        expected = np.average(boxes, axis=0, weights=votes / (1 + np.exp(-own[:, 4])))
        np.testing.assert_allclose(best[image, slot], [*expected, chosen[4]], atol=1e-6)


def test_boxes_that_agree_with_the_best_one_refine_it() -> None:
    """By hand: one with an IoU of 9/11 is weighted by its score, one with 2/3 is ignored."""
    best, near, far = [0.2, 0.2, 0.6, 0.6], [0.2, 0.24, 0.6, 0.64], [0.2, 0.28, 0.6, 0.68]
    answers = np.array([[*best, 0.0], [*near, -np.log(3)], [*far, -0.1]], np.float32)
    found = np.array(BoxVoting()(answers.reshape(1, 1, 3, 1, 5)))[0, 0]
    # The sigmoids of 0 and -log 3 are 1/2 and 1/4.
    np.testing.assert_allclose(found, [*(2 * np.array(best) + np.array(near)) / 3, 0], atol=1e-6)


def test_a_box_without_area_is_not_changed() -> None:
    answers = np.tile(np.array([0.3, 0.3, 0.3, 0.8, -200.0], np.float32), (1, 2, 2, 1, 1))
    np.testing.assert_allclose(np.array(BoxVoting()(answers))[0, 0], answers[0, 0, 0, 0], atol=1e-6)


def test_without_features_nothing_is_found_and_boxes_have_a_quarter_of_the_side() -> None:
    sizes = (8, 4, 2, 1)
    answers, _ = answer(head_on(sizes), [np.zeros_like(values) for values in maps_of(sizes)])
    np.testing.assert_allclose(1 / (1 + np.exp(-answers[..., 4])), PRIOR, rtol=1e-5)
    np.testing.assert_allclose(answers[..., 2:4] - answers[..., :2], 0.25, rtol=1e-5)


def test_shifted_features_give_shifted_boxes() -> None:
    """Features shifted right by a quarter of the image give the same scores, and boxes shifted as far."""
    sizes = (32, 16, 8, 4)
    head = head_on(sizes)
    maps, moved = ([np.zeros((1, size, size, 6), np.float32) for size in sizes] for _ in range(2))
    for level, size in enumerate(sizes):
        quarter = size // 4
        thing = np.random.default_rng(level).normal(size=(quarter, quarter, 6))
        maps[level][0, quarter : 2 * quarter, quarter : 2 * quarter] = thing
        moved[level][0, quarter : 2 * quarter, 2 * quarter : 3 * quarter] = thing
    (before, best), (after, best_after) = answer(head, maps), answer(head, moved)
    expected = before + np.array([0.25, 0, 0.25, 0, 0], np.float32)
    np.testing.assert_allclose(after[:, :, 8:], expected[:, :, :-8], atol=1e-5)
    assert np.ptp(before[..., 4]) > 0.1 and np.ptp(before[..., 2] - before[..., 0]) > 1e-3
    inside = ((best[..., :4] > 0) & (best[..., 2:3] < 0.75)).all(axis=-1)
    assert inside.any(), "at least one box is not clipped"
    np.testing.assert_allclose((best_after - best)[inside], [[0.25, 0, 0.25, 0, 0]] * inside.sum(), atol=1e-5)


@pytest.mark.parametrize("level", range(4))
def test_every_level_of_the_backbone_is_used(level: int) -> None:
    sizes = (8, 4, 2, 1)
    head, maps = head_on(sizes), maps_of(sizes)
    before, _ = answer(head, maps)
    maps[level] = maps[level] + 1
    after, _ = answer(head, maps)
    assert (np.abs(after - before)[..., 4].max(axis=(1, 2)) > 1e-4).all()


@pytest.mark.parametrize("sizes", [(30, 15, 8, 4), (9, 5, 3, 2), (12, 6, 3, 2), (8, 4, 2, 1), (1, 1, 1, 1)])
def test_maps_of_odd_sizes(sizes: tuple[int, ...]) -> None:
    head, maps = head_on(sizes), maps_of(sizes)
    answers, best = answer(head, maps)
    assert answers.shape == (2, sizes[0], sizes[0], CLASSES, 5)
    assert np.isfinite(answers).all()
    check_boxes(best[..., :4])
    assert len(np.unique(answers[..., 4])) > answers[..., 4].size // 2, "positions have different predictions"


def test_a_saved_head_predicts_as_before(tmp_path: Path) -> None:
    sizes = (9, 5, 3, 2)
    head, maps = head_on(sizes), maps_of(sizes)
    head.save(tmp_path / "head.keras")
    loaded: Any = keras.saving.load_model(tmp_path / "head.keras")
    for expected, found in zip(answer(head, maps), answer(loaded, maps), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert loaded.get_layer("boxes_map").num_classes == CLASSES
