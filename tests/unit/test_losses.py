import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from brain_tumor.boxes import measures
from brain_tumor.losses import BOX_LOSSES, DIoULoss, GIoULoss, IoULoss, WeightedBinaryCrossentropy
from tests.unit.programs import PROGRAMS
from tests.unit.references import Array, area, cost, gradient, random_boxes, value

pytestmark = pytest.mark.slow

EMPTY = [0.0] * 4
NAMES = list(BOX_LOSSES)


def test_the_references_iou_equals_that_of_the_evaluation() -> None:
    rng = np.random.default_rng(5)
    truth, predicted = random_boxes(rng, 50), random_boxes(rng, 50)
    np.testing.assert_allclose(cost("iou", truth, predicted), 1 - measures.iou(truth, predicted))


@pytest.mark.parametrize(
    ("predicted", "iou", "giou", "diou"),
    [
        ([0.2, 0.2, 0.6, 0.6], 0.0, 0.0, 0.0),
        # A quarter of each box overlaps: IoU 0.04 / 0.28; hull sides of 0.6, centers 0.2 apart in x and y.
        ([0.4, 0.4, 0.8, 0.8], 1 - 0.04 / 0.28, (0.36 - 0.28) / 0.36, 0.08 / 0.72),
        # Side by side: IoU 0, no gap in the hull of 0.8 by 0.4, centers 0.4 apart.
        ([0.6, 0.2, 1.0, 0.6], 1.0, 0.0, 0.16 / 0.8),
        # Inside, with the same center: IoU 0.04 / 0.16.
        ([0.3, 0.3, 0.5, 0.5], 0.75, 0.0, 0.0),
        # Swapped corners: no area, but they extend the hull.
        ([0.6, 0.6, 0.2, 0.2], 1.0, 0.0, 0.0),
    ],
)
def test_box_losses_by_hand(predicted: list[float], iou: float, giou: float, diou: float) -> None:
    boxes = [[[0.2, 0.2, 0.6, 0.6]]], [[predicted]]
    assert value(IoULoss(), *boxes) == pytest.approx(iou, abs=1e-6)
    assert value(GIoULoss(), *boxes) == pytest.approx(iou + giou, abs=1e-6)
    assert value(DIoULoss(), *boxes) == pytest.approx(iou + diou, abs=1e-6)


def test_ciou_by_hand() -> None:
    # A square and a box twice as wide as high, with the same center: IoU 0.5, angles 45 and 63.43 degrees.
    v = 4 / math.pi**2 * (math.atan(2) - math.atan(1)) ** 2
    boxes = [[[0.3, 0.3, 0.5, 0.5]]], [[[0.2, 0.3, 0.6, 0.5]]]
    assert value(BOX_LOSSES["ciou"](), *boxes) == pytest.approx(0.5 + v * v / (0.5 + v), abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_box_loss_equals_the_numpy_mean_over_true_boxes(name: str) -> None:
    rng = np.random.default_rng(0)
    truth, predicted = random_boxes(rng, 60), random_boxes(rng, 60)
    there = rng.random(60) < 0.4
    expected = cost(name, truth[there], predicted[there]).mean()

    truth[~there] = 0
    loss = BOX_LOSSES[name]()
    assert value(loss, truth.reshape(20, 3, 4), predicted.reshape(20, 3, 4)) == pytest.approx(
        expected, rel=1e-5
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_box_loss_does_not_depend_on_empty_slots(name: str) -> None:
    rng = np.random.default_rng(1)
    truth, predicted = random_boxes(rng, 4).reshape(4, 1, 4), random_boxes(rng, 4).reshape(4, 1, 4)
    loss = BOX_LOSSES[name]()
    alone = value(loss, truth, predicted)
    taught = gradient(loss, truth, predicted)

    truth = np.concatenate([truth, np.zeros((4, 5, 4))], axis=1)
    predicted = np.concatenate([predicted, rng.random((4, 5, 4))], axis=1)
    assert value(loss, truth, predicted) == pytest.approx(alone, rel=1e-6)

    truth = np.concatenate([truth, np.zeros((9, 6, 4))])
    predicted = np.concatenate([predicted, rng.random((9, 6, 4))])
    assert value(loss, truth, predicted) == pytest.approx(alone, rel=1e-6)
    gradients = gradient(loss, truth, predicted)
    np.testing.assert_allclose(gradients[:4, :1], taught, rtol=1e-5)
    assert not gradients[4:].any() and not gradients[:, 1:].any(), "an absent class must have no gradient"


@pytest.mark.parametrize("name", NAMES)
def test_parts_of_a_batch_sum_up_to_the_whole(name: str) -> None:
    """Needed for several devices: each has a part, and all divide by the boxes of the whole batch."""
    rng = np.random.default_rng(6)
    truth, predicted = random_boxes(rng, 18).reshape(6, 3, 4), random_boxes(rng, 18).reshape(6, 3, 4)
    truth[rng.random((6, 3)) < 0.5] = 0
    truth[4] = 0
    boxes = truth.any(axis=-1).sum()
    loss = BOX_LOSSES[name](reduction="sum")

    parts = [
        float(loss(truth[part], predicted[part], sample_weight=np.full(len(truth[part]), 1 / boxes)))
        for part in (slice(0, 4), slice(4, 5), slice(5, 6))
    ]

    assert parts[1] == 0
    assert sum(parts) == pytest.approx(value(BOX_LOSSES[name](), truth, predicted), rel=1e-6)


# Multiples of 1/256 are exact in single precision, and so are their sums; few of them, so that sides often
# coincide, vanish or swap.
GRID = st.integers(0, 256).map(lambda number: number / 256) | st.sampled_from([0.0, 0.25, 0.5, 1.0])
# Any coordinate up to ten times the image, down to the smallest number in single precision.
ANYWHERE = st.floats(-10, 10, width=32) | st.sampled_from([0.0, 1e-30, 1e-9, 1e-4, 0.5, 1.0])
NOTED = [
    ([0.25, 0.25, 0.5, 0.5], [0.25, 0.25, 0.5, 0.5]),  # identical
    ([0.125, 0.125, 0.25, 0.25], [0.75, 0.75, 0.875, 1.0]),  # disjoint
    ([0.125, 0.125, 0.5, 0.5], [0.5, 0.125, 0.875, 0.5]),  # touching at a side
    ([0.125, 0.125, 0.5, 0.5], [0.5, 0.5, 0.875, 0.75]),  # touching at a corner
    ([0.125, 0.125, 0.5, 0.5], [0.25, 0.25, 0.25, 0.25]),  # predicted without size
    ([0.25, 0.25, 0.25, 0.25], [0.125, 0.125, 0.5, 0.5]),  # true without size
    ([0.25, 0.25, 0.25, 0.25], [0.25, 0.25, 0.25, 0.25]),  # both without size
    ([0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]),  # in the corner
    ([0.125, 0.125, 0.5, 0.5], [0.5, 0.5, 0.125, 0.125]),  # swapped
    ([0.5, 0.5, 0.5, 0.5], [1.0, 1.0, 0.0, 0.0]),  # swapped around a point
    ([0.0, 0.5, 1.0, 0.50390625], [0.5, 0.0, 0.50390625, 1.0]),  # a cross of two lines
    (EMPTY, [0.125, 0.125, 0.5, 0.5]),  # absent
    (EMPTY, EMPTY),  # absent, and nothing predicted
]


def box(coordinates: st.SearchStrategy[float]) -> st.SearchStrategy[list[float]]:
    return st.lists(coordinates, min_size=4, max_size=4)


def noted(test: Any) -> Any:
    for truth, predicted in NOTED:
        test = example(truth=truth, predicted=predicted)(test)
    return test


@pytest.mark.parametrize("name", NAMES)
@noted
@given(truth=box(GRID), predicted=box(GRID))
@settings(max_examples=100, deadline=None)
def test_a_box_loss_equals_numpys_for_every_pair(
    name: str, truth: list[float], predicted: list[float]
) -> None:
    expected = cost(name, np.array([truth]), np.array([predicted]))[0] if any(truth) else 0.0
    assert value(BOX_LOSSES[name](), [[truth]], [[predicted]]) == pytest.approx(expected, abs=1e-5)


UPPER = {"iou": 1, "giou": 2, "diou": 2, "ciou": 3}


@pytest.mark.parametrize("name", NAMES)
@noted
@given(truth=box(ANYWHERE), predicted=box(ANYWHERE))
@settings(max_examples=100, deadline=None)
def test_a_box_loss_and_its_gradient_are_finite_for_every_pair(
    name: str, truth: list[float], predicted: list[float]
) -> None:
    loss = BOX_LOSSES[name]()
    assert -1e-5 <= value(loss, [[truth]], [[predicted]]) <= UPPER[name] + 1e-5
    gradients = gradient(BOX_LOSSES[name](), np.array([[truth]]), np.array([[predicted]]))
    assert np.isfinite(gradients).all()


@pytest.mark.parametrize("name", ["iou", "giou", "diou"])  # a term of CIoU has no gradient by design
@given(seed=st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_a_gradient_equals_that_of_the_definition(name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, predicted = random_boxes(rng, 1), random_boxes(rng, 1)
    coordinates = np.concatenate([truth, predicted]).reshape(4, 2)
    # At a kink, a difference quotient is not a gradient.
    assume(np.diff(np.sort(coordinates, axis=0), axis=0).min() > 0.01)
    assume(min(area(truth)[0], area(predicted)[0]) > 0.01)
    step = 1e-5
    expected = [
        (cost(name, truth, predicted + step * unit) - cost(name, truth, predicted - step * unit))[0]
        / (2 * step)
        for unit in np.eye(4)
    ]
    gradients = gradient(BOX_LOSSES[name](), truth[None], predicted[None])[0, 0]
    np.testing.assert_allclose(gradients, expected, rtol=1e-3, atol=1e-3)


def test_jax_gives_the_same_values_and_gradients(tmp_path: Path) -> None:
    """On the listed pairs and similar ones; on arbitrary pairs both must be finite."""
    rng = np.random.default_rng(7)
    grid = rng.choice(np.arange(0, 257, 32) / 256, (2, 500, 4))
    anywhere = rng.choice([0, 1e-30, 1e-9, 1e-4, 0.5, 1, 10], (2, 500, 4)) * rng.choice([-1, 1], (2, 500, 4))
    truth, predicted = np.concatenate(
        [np.array(NOTED).swapaxes(0, 1), grid, anywhere], axis=1, dtype=np.float32
    )
    compared = slice(0, len(NOTED) + 500)
    np.savez(tmp_path / "boxes.npz", truth=truth, predicted=predicted)

    script = [
        sys.executable,
        str(PROGRAMS / "losses_on_jax.py"),
        str(tmp_path / "boxes.npz"),
        str(tmp_path / "results.npz"),
    ]
    done = subprocess.run(script, capture_output=True, text=True, env={**os.environ, "KERAS_BACKEND": "jax"})
    assert done.returncode == 0, done.stderr

    results = np.load(tmp_path / "results.npz")
    for name in NAMES:
        assert np.isfinite(results[name]).all() and np.isfinite(results[f"{name}_gradient"]).all()
        there = truth[compared].any(axis=-1)
        expected = np.where(there, cost(name, truth[compared], predicted[compared]), 0)
        np.testing.assert_allclose(results[name][compared], expected, atol=1e-5)
        loss = BOX_LOSSES[name](reduction="sum")
        gradients = gradient(loss, truth[:, None], predicted[:, None])[:, 0]
        assert np.isfinite(gradients).all()
        away = distinct(truth[compared], predicted[compared])
        assert away.sum() > 20
        np.testing.assert_allclose(
            results[f"{name}_gradient"][compared][away], gradients[compared][away], rtol=1e-3, atol=1e-4
        )


def distinct(truth: Array, predicted: Array) -> Array:
    """Which pairs share no coordinate and have no empty side: otherwise gradients are ambiguous."""
    x, y = (np.sort(np.hstack([truth[:, k::2], predicted[:, k::2]]), axis=1) for k in (0, 1))
    return np.logical_and((np.diff(x, axis=1) > 0).all(axis=1), (np.diff(y, axis=1) > 0).all(axis=1))


@pytest.mark.parametrize("name", ["giou", "diou", "ciou"])
def test_a_gradient_step_moves_a_disjoint_box_closer(name: str) -> None:
    truth, predicted = np.array([[[0.1, 0.1, 0.2, 0.2]]]), np.array([[[0.7, 0.8, 0.9, 0.9]]])
    loss = BOX_LOSSES[name]()
    after = predicted - 0.05 * gradient(loss, truth, predicted)
    assert value(loss, truth, after) < value(loss, truth, predicted) - 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_without_boxes_has_no_box_loss(name: str) -> None:
    predicted = random_boxes(np.random.default_rng(2), 6).reshape(2, 3, 4)
    assert value(BOX_LOSSES[name](), np.zeros((2, 3, 4)), predicted) == 0
    assert not gradient(BOX_LOSSES[name](), np.zeros((2, 3, 4)), predicted).any()


def logits(probabilities: object) -> Array:
    odds = np.asarray(probabilities, float)
    return np.log(odds / (1 - odds)).astype(np.float32)


def test_class_loss_by_hand() -> None:
    # -(3 ln 0.5 + ln 0.9 + ln 0.8) / 3: the present label 0 counts three times, the absent ones once.
    loss = WeightedBinaryCrossentropy([3.0, 5.0, 7.0])(np.array([[1, 0, 0]]), logits([[0.5, 0.1, 0.2]]))
    assert float(loss) == pytest.approx(-(3 * np.log(0.5) + np.log(0.9) + np.log(0.8)) / 3, rel=1e-5)


@pytest.mark.parametrize("label", range(3))
def test_a_present_label_has_its_class_weight(label: int) -> None:
    weights = [2.0, 0.5, 10.0]
    truth = np.zeros((1, 3), np.float32)
    answers = logits(np.full((1, 3), 0.3))
    absent = float(WeightedBinaryCrossentropy(weights)(truth, answers))
    truth[0, label] = 1
    present = float(WeightedBinaryCrossentropy(weights)(truth, answers))
    expected = (-weights[label] * np.log(0.3) + np.log(0.7)) / 3
    assert present - absent == pytest.approx(expected, rel=1e-4)


def test_class_loss_without_weights_equals_that_of_keras() -> None:
    rng = np.random.default_rng(3)
    truth, answers = rng.integers(0, 2, (16, 3)), rng.normal(0, 3, (16, 3)).astype(np.float32)
    expected = keras.losses.BinaryCrossentropy(from_logits=True)(truth.astype(np.float32), answers)
    assert float(WeightedBinaryCrossentropy([1.0] * 3)(truth, answers)) == pytest.approx(
        float(expected), rel=1e-5
    )


@pytest.mark.parametrize("certainty", [30.0, 1e4])
def test_a_confident_error_costs_its_logit_and_has_a_gradient(certainty: float) -> None:
    """A probability would be rounded to 0 or 1 (infinite logarithm) or clipped (no gradient)."""
    truth, answers = np.array([[1.0, 0.0, 0.0, 1.0]]), certainty * np.array([[-1.0, 1.0, -1.0, 1.0]])
    loss = WeightedBinaryCrossentropy([20.0] * 4)
    assert value(loss, truth, answers) == pytest.approx((20 + 1) * certainty / 4, rel=1e-5)
    np.testing.assert_allclose(gradient(loss, truth, answers), [[-20 / 4, 1 / 4, 0, 0]], atol=1e-5)


def test_parts_of_a_batch_sum_up_to_the_whole_class_loss() -> None:
    rng = np.random.default_rng(6)
    truth, answers = rng.integers(0, 2, (6, 3)), rng.normal(size=(6, 3)).astype(np.float32)
    loss = WeightedBinaryCrossentropy([1.0, 2.0, 3.0], reduction="sum")
    parts = [
        float(loss(truth[part], answers[part], sample_weight=np.full(len(truth[part]), 1 / 6)))
        for part in (slice(0, 4), slice(4, 6))
    ]
    whole = WeightedBinaryCrossentropy([1.0, 2.0, 3.0])(truth, answers)
    assert sum(parts) == pytest.approx(float(whole), rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_losses_survive_keras_serialization(name: str, tmp_path: Path) -> None:
    image = keras.Input((8,))
    outputs = {
        "labels": keras.layers.Dense(3, name="labels")(image),
        "boxes": keras.layers.Reshape((3, 4), name="boxes")(
            keras.layers.Dense(12, activation="sigmoid")(image)
        ),
    }
    model = keras.Model(image, outputs)
    losses = {
        "labels": WeightedBinaryCrossentropy([7.0, 1.5, 2.5]),
        "boxes": BOX_LOSSES[name](reduction="sum"),
    }
    model.compile("sgd", loss=losses)
    rng = np.random.default_rng(4)
    x = rng.random((5, 8), dtype=np.float32)
    y = {"labels": rng.integers(0, 2, (5, 3)), "boxes": random_boxes(rng, 15).reshape(5, 3, 4)}
    expected = model.evaluate(x, y, verbose=0)

    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")

    assert loaded.loss["labels"].class_weights == [7.0, 1.5, 2.5]
    boxes = loaded.loss["boxes"]
    assert type(boxes) is BOX_LOSSES[name]
    assert boxes.reduction == "sum"
    np.testing.assert_allclose(loaded.evaluate(x, y, verbose=0), expected, rtol=1e-6)
