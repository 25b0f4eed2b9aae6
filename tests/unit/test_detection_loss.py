"""The detection loss, compared with its definition in NumPy, and for extreme numbers."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from brain_tumor.losses import BOX_LOSSES, DetectionLoss
from brain_tumor.losses.detection import MAX_POSITIVES, assign_positions, quality_focal_loss
from brain_tumor.model.dense_head import BoxDecoder, cell_centers
from tests.unit.references import Array, cost, gradient, random_boxes, value

pytestmark = pytest.mark.slow

BOX_WEIGHT, SCORE_WEIGHT = 4.0, 2.0


def middles(rows: int, columns: int) -> Array:
    """The cells' centers, (rows, columns, 2), x before y."""
    return np.array([[[(x + 0.5) / columns, (y + 0.5) / rows] for x in range(columns)] for y in range(rows)])


def answers_for(box: Array, rows: int, columns: int) -> Array:
    """Which positions (rows, columns) are assigned to a box, by definition, cell by cell."""
    cells = np.array([columns, rows])
    center = (box[:2] + box[2:]) / 2
    own = np.floor(np.clip(center, 0, 1 - 1e-6) * cells)
    found = np.zeros((rows, columns), bool)
    for y, x in np.ndindex(rows, columns):
        place = (np.array([x, y]) + 0.5) / cells
        inside = (place > box[:2]).all() and (place < box[2:]).all()
        near = (np.abs(place - center) * cells < 1.5).all()
        found[y, x] = (box > 0).any() and ((inside and near) or np.array_equal(own, [x, y]))
    return found


def focal(quality: Array, logits: Array) -> Array:
    probability = np.where(logits > 0, 1, np.exp(-np.abs(logits))) / (1 + np.exp(-np.abs(logits)))
    entropy = np.logaddexp(0, logits) - quality * logits
    return np.asarray((quality - probability) ** 2 * entropy)


def expected_loss(name: str, truth: Array, answers: Array, quality: Array | None = None) -> float:
    """The loss by definition, in double precision; `quality` replaces the scores' targets."""
    truth, answers = truth.astype(np.float64), answers.astype(np.float64)
    images, rows, columns, classes = answers.shape[:4]
    total = 0.0
    for image, slot in np.ndindex(images, classes):
        box, own = truth[image, slot], answers[image, :, :, slot].reshape(-1, 5)
        repeated = np.tile(box, (len(own), 1))
        positive = answers_for(box, rows, columns).ravel()
        if positive.any():
            total += BOX_WEIGHT * cost(name, repeated[positive], own[positive, :4]).mean()
        targets = (1 - cost("iou", repeated, own[:, :4])) * positive
        if quality is not None:
            targets = quality[image, :, :, slot].ravel()
        total += SCORE_WEIGHT * focal(targets, own[:, 4]).sum() / 9
    return float(total / max((truth > 0).any(axis=-1).sum(), 1))


def random_batch(seed: int, images: int, rows: int, columns: int, classes: int) -> tuple[Array, Array]:
    """True boxes, some of them absent, and predictions at all positions, in single precision."""
    rng = np.random.default_rng(seed)
    truth = random_boxes(rng, images * classes).reshape(images, classes, 4).astype(np.float32)
    truth[rng.random((images, classes)) < 0.4] = 0
    distances = rng.exponential(0.2, (images, rows, columns, classes, 4))
    places = middles(rows, columns)[:, :, None]
    logits = rng.normal(0, 3, (images, rows, columns, classes, 1))
    parts = [places - distances[..., :2], places + distances[..., 2:], logits]
    return truth, np.concatenate(parts, axis=-1).astype(np.float32)


def is_decided(truth: Array, rows: int, columns: int) -> bool:
    """Whether the assignment of positions is independent of rounding errors."""
    boxes = truth[(truth > 0).any(axis=-1)].astype(np.float64)
    cells = np.array([columns, rows])
    places, centers = middles(rows, columns).reshape(-1, 1, 2), (boxes[:, :2] + boxes[:, 2:]) / 2
    ties = [
        np.abs(places - centers) * cells - 1.5,
        (places - boxes[:, :2]) * cells,
        (places - boxes[:, 2:]) * cells,
        centers * cells - np.round(centers * cells),
    ]
    return all(np.abs(tie).min(initial=1) > 1e-4 for tie in ties)


sides = st.integers(1, 9) | st.sampled_from([15, 30])


def test_positions_are_the_centers_of_cells() -> None:
    np.testing.assert_allclose(cell_centers(2, 4)[..., 0], [[0.125, 0.375, 0.625, 0.875]] * 2)
    np.testing.assert_allclose(cell_centers(2, 4)[..., 1], [[0.25] * 4, [0.75] * 4])
    np.testing.assert_allclose(cell_centers(15, 8), middles(15, 8), atol=1e-7)


# On a grid of powers of two all of this is exact in single precision, so that ties are resolved equally.
@given(
    corners=st.lists(st.integers(0, 64), min_size=4, max_size=4),
    rows=st.sampled_from([1, 2, 4, 8, 16]),
    columns=st.sampled_from([1, 2, 4, 8, 16]),
)
@example(corners=[0, 0, 64, 64], rows=8, columns=8)
@example(corners=[16, 16, 48, 48], rows=4, columns=4)
@example(corners=[64, 64, 64, 64], rows=4, columns=4)
@example(corners=[0, 0, 0, 0], rows=4, columns=4)
@settings(max_examples=60, deadline=None)
def test_which_positions_are_assigned(corners: list[int], rows: int, columns: int) -> None:
    low, high = np.sort(np.reshape(corners, (2, 2)), axis=0) / 64
    box = np.concatenate([low, high])
    found = assign_positions(tf.constant(box[None, None], tf.float32), cell_centers(rows, columns))
    np.testing.assert_array_equal(found[0, :, :, 0], answers_for(box, rows, columns))
    assert np.sum(found) <= MAX_POSITIVES


@given(seed=st.integers(0, 10**6), rows=sides, columns=sides, size=st.floats(0, 0.99))
@settings(max_examples=40, deadline=None)
def test_a_box_smaller_than_a_cell_has_one_position(seed: int, rows: int, columns: int, size: float) -> None:
    rng = np.random.default_rng(seed)
    cells = np.array([columns, rows])
    half = size / cells / 2
    centers = half + rng.random((20, 1, 2)) * (1 - 2 * half) + 1e-6
    boxes = np.concatenate([centers - half, centers + half], axis=-1)
    found = np.array(assign_positions(tf.constant(boxes, tf.float32), cell_centers(rows, columns)))
    assert (found.sum(axis=(1, 2, 3)) == 1).all()
    own = middles(rows, columns)[np.argwhere(found)[:, 1], np.argwhere(found)[:, 2]]
    assert (np.abs(own - centers[:, 0]) * cells).max() < 0.5001


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ([0.0, 0.0, 1.0, 1.0], [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3), (3, 1), (3, 2), (3, 3)]),
        ([0.0, 0.0, 0.05, 0.05], [(0, 0)]),
        ([0.95, 0.95, 1.0, 1.0], [(4, 4)]),
        ([0.95, 0.0, 1.0, 0.05], [(0, 4)]),
        ([1.0, 1.0, 1.0, 1.0], [(4, 4)]),
        ([0.0, 0.9, 0.0, 1.0], [(4, 0)]),
        ([0.0, 0.0, 0.4, 1.0], [(1, 0), (1, 1), (2, 0), (2, 1), (3, 0), (3, 1)]),
        ([0.0, 0.0, 0.0, 0.0], []),
    ],
)
def test_positions_by_hand(box: list[float], expected: list[tuple[int, int]]) -> None:
    """On five rows and columns: the center is a position, and the edges belong to the outer cells."""
    found = assign_positions(tf.constant([[box]]), cell_centers(5, 5))
    assert [tuple(place) for place in np.argwhere(found[0, :, :, 0]).tolist()] == expected


@given(quality=st.floats(0, 1, width=32), logit=st.floats(-40, 40, width=32))
@example(quality=1.0, logit=30.0)
@example(quality=0.0, logit=-30.0)
@settings(max_examples=100, deadline=None)
def test_the_loss_of_a_score(quality: float, logit: float) -> None:
    found = float(quality_focal_loss(tf.constant(quality), tf.constant(logit)))
    assert found == pytest.approx(float(focal(np.array(quality), np.array(logit))), rel=1e-4, abs=1e-6)


def test_the_loss_of_a_score_by_hand() -> None:
    # At a logit of 0 the score is 0.5 and the cross-entropy ln 2, whatever the target.
    quality = tf.constant([0.0, 0.5, 1.0, 0.8])
    expected = np.log(2) * np.array([0.25, 0, 0.25, 0.09])
    np.testing.assert_allclose(quality_focal_loss(quality, tf.zeros(4)), expected, atol=1e-6)


@pytest.mark.parametrize("name", BOX_LOSSES)
@given(
    seed=st.integers(0, 10**6), images=st.integers(1, 3), rows=sides, columns=sides, classes=st.integers(1, 3)
)
@settings(max_examples=15, deadline=None)
def test_the_loss_equals_its_definition(
    name: str, seed: int, images: int, rows: int, columns: int, classes: int
) -> None:
    truth, answers = random_batch(seed, images, rows, columns, classes)
    assume(is_decided(truth, rows, columns))
    found = value(DetectionLoss(name, BOX_WEIGHT, SCORE_WEIGHT), truth, answers)
    assert found == pytest.approx(expected_loss(name, truth, answers), rel=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_the_gradient_is_that_of_the_definition(seed: int) -> None:
    """The scores' targets, the IoUs, are treated as constants."""
    rows, columns, classes = 3, 4, 2
    truth, answers = random_batch(seed, 2, rows, columns, classes)
    truth[0, 0] = [0.1, 0.05, 0.93, 0.88]
    assert is_decided(truth, rows, columns)
    found = gradient(DetectionLoss("diou", BOX_WEIGHT, SCORE_WEIGHT), truth, answers)

    quality = np.zeros(answers.shape[:4])
    for image, slot in np.ndindex(2, classes):
        own = answers[image, :, :, slot, :4].reshape(-1, 4)
        overlap = 1 - cost("iou", np.tile(truth[image, slot], (len(own), 1)), own)
        positive = answers_for(truth[image, slot], rows, columns)
        quality[image, :, :, slot] = overlap.reshape(rows, columns) * positive
    exact, step = answers.astype(np.float64), 1e-6
    expected = np.zeros(answers.shape)
    for place in np.ndindex(answers.shape):
        moved = [exact.copy(), exact.copy()]
        moved[0][place] += step
        moved[1][place] -= step
        after, before = (expected_loss("diou", truth, each, quality) for each in moved)
        expected[place] = (after - before) / (2 * step)
    assert np.abs(expected[..., :4]).max() > 0.1 and np.abs(expected[..., 4]).max() > 0.01
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_two_classes_at_one_position_learn_independently() -> None:
    """The same box, predicted well in one slot and badly in the other."""
    box = [0.2, 0.2, 0.7, 0.8]
    answers = random_batch(0, 1, 5, 5, 2)[1]
    answers[..., 0, :4] = box
    answers[..., 1, :4] = [0.6, 0.1, 0.9, 0.3]
    both = np.array([[box, box]], np.float32)
    found = np.array(assign_positions(tf.constant(both), cell_centers(5, 5)))
    np.testing.assert_array_equal(found[..., 0], found[..., 1])
    assert found[..., 0].sum() > 1

    loss = DetectionLoss("diou", BOX_WEIGHT, SCORE_WEIGHT)
    gradients = 2 * gradient(loss, both, answers)  # the loss is a mean over two boxes
    for slot in (0, 1):
        alone, other = both.copy(), answers.copy()
        alone[:, 1 - slot] = 0
        other[..., 1 - slot, :] = 7.0
        expected = gradient(loss, alone, other)[..., slot, :]
        np.testing.assert_allclose(gradients[..., slot, :], expected, rtol=1e-4, atol=1e-7)
    # At a logit of 0, a score of 0.5: the good box's score should rise, the bad one's fall.
    answers[..., 4] = 0
    scores = gradient(loss, both, answers)[..., 4]
    assert (scores[found[..., 0], 0] < 0).all() and (scores[found[..., 1], 1] > 0).all()


def test_a_batch_without_boxes_trains_only_scores() -> None:
    answers = random_batch(1, 2, 4, 6, 3)[1]
    truth = np.zeros((2, 3, 4), np.float32)
    loss = DetectionLoss("ciou", BOX_WEIGHT, SCORE_WEIGHT)
    assert value(loss, truth, answers) == pytest.approx(expected_loss("ciou", truth, answers), rel=1e-5)
    gradients = gradient(loss, truth, answers)
    assert np.isfinite(gradients).all()
    assert not gradients[..., :4].any()
    assert (gradients[..., 4] > 0).all(), "all scores should fall"


@pytest.mark.parametrize("name", BOX_LOSSES)
def test_the_loss_and_its_gradient_are_finite_at_extremes(name: str) -> None:
    """For numbers that the head's last convolutions may reach."""
    rng = np.random.default_rng(3)
    shape = (3, 4, 4, 2)
    scores = tf.Variable(rng.choice([-1e4, -30.0, 0.0, 30.0, 1e4], shape), dtype=tf.float32)
    numbers = rng.choice([-1e3, -30.0, 0.0, 3.0, 30.0, 1e3], (*shape[:3], 2 * 4))
    numbers = tf.Variable(numbers, dtype=tf.float32)
    truth = tf.constant([[[0, 0, 1, 1], [0.3, 0.3, 0.31, 0.31]], [[0, 0, 0, 0], [1, 1, 1, 1]], [[0] * 4] * 2])
    loss, layer = DetectionLoss(name), BoxDecoder(2)

    def step() -> list[Any]:
        with tf.GradientTape() as tape:
            result = loss(truth, layer([scores, numbers]))
        return [result, *tape.gradient(result, [scores, numbers])]

    for function in (step, tf.function(step, jit_compile=True)):
        result, of_scores, of_numbers = map(np.asarray, function())
        assert np.isfinite(result) and result > 0
        assert np.isfinite(of_scores).all() and np.isfinite(of_numbers).all()
        assert of_numbers.any()


@pytest.mark.parametrize("logit", [30.0, 1e4])
def test_a_confident_error_still_has_a_gradient(logit: float) -> None:
    truth = np.array([[[0.1, 0.1, 0.9, 0.9]]], np.float32)
    answers = np.zeros((1, 5, 5, 1, 5), np.float32)
    answers[..., :4] = truth[0, 0]
    positive = answers_for(truth[0, 0], 5, 5)
    answers[0, ..., 0, 4] = np.where(positive, -logit, logit)
    scores = gradient(DetectionLoss("ciou", 4.0, 9.0), truth, answers)[0, ..., 0, 4]
    # The slope of the cross-entropy for a confident error, with weight 9 over nine positions.
    np.testing.assert_allclose(scores, np.where(positive, -1.0, 1.0), rtol=1e-4)


@pytest.mark.parametrize("name", BOX_LOSSES)
def test_parts_of_a_batch_sum_up_to_the_whole(name: str) -> None:
    """Needed for several devices: each has a part, and all divide by the boxes of the whole batch."""
    truth, answers = random_batch(4, 6, 4, 5, 3)
    truth[4] = 0
    boxes = truth.any(axis=-1).sum()
    assert boxes > 4
    loss = DetectionLoss(name, reduction="sum")

    parts = [
        float(loss(truth[part], answers[part], sample_weight=np.full(len(truth[part]), 1 / boxes)))
        for part in (slice(0, 4), slice(4, 5), slice(5, 6))
    ]

    assert parts[1] > 0, "an image without boxes trains scores"
    assert sum(parts) == pytest.approx(value(DetectionLoss(name), truth, answers), rel=1e-6)


@pytest.mark.parametrize("name", BOX_LOSSES)
def test_xla_gives_the_same_value_and_gradient(name: str) -> None:
    truth, answers = random_batch(5, 3, 7, 4, 2)
    answers[0, :2, ..., :4] = truth[
        0
    ]  # a perfect prediction, at which the gradient of a minimum is ambiguous
    loss, variable = DetectionLoss(name), tf.Variable(answers)

    @tf.function(jit_compile=True)
    def compiled() -> Any:
        with tf.GradientTape() as tape:
            result = loss(tf.constant(truth), variable)
        return result, tape.gradient(result, variable)

    result, gradients = compiled()
    assert float(result) == pytest.approx(value(loss, truth, answers), rel=1e-5)
    np.testing.assert_allclose(gradients, gradient(loss, truth, answers), rtol=1e-3, atol=1e-5)


def test_boxes_and_scores_have_separate_weights() -> None:
    truth, answers = random_batch(6, 2, 5, 5, 2)
    boxes, scores = (value(DetectionLoss("giou", *weights), truth, answers) for weights in ((1, 0), (0, 1)))
    assert boxes > 0 and scores > 0
    weighted = value(DetectionLoss("giou", 3, 0.5), truth, answers)
    assert weighted == pytest.approx(3 * boxes + 0.5 * scores, rel=1e-5)


@pytest.mark.parametrize("name", BOX_LOSSES)
def test_it_survives_keras_serialization(name: str) -> None:
    loss = DetectionLoss(name, 3.0, 0.5, reduction="sum", name="of_positions")
    restored = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert type(restored) is DetectionLoss
    assert restored.get_config() == loss.get_config()
    assert (restored.name, restored.reduction) == ("of_positions", "sum")
    truth, answers = random_batch(7, 2, 3, 3, 2)
    assert value(restored, truth, answers) == value(loss, truth, answers)
