from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from brain_tumor.geometry import box_iou
from brain_tumor.losses import DIoULoss, WeightedBinaryCrossentropy

EMPTY = [0.0] * 4


def diou(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """The definition, in NumPy and double precision: one value a pair of boxes (n, 4)."""
    centers = [(boxes[:, :2] + boxes[:, 2:]) / 2 for boxes in (truth, predicted)]
    distance = ((centers[0] - centers[1]) ** 2).sum(axis=1)
    enclosing = np.maximum(truth[:, 2:], predicted[:, 2:]) - np.minimum(truth[:, :2], predicted[:, :2])
    return 1 - box_iou(truth, predicted) + distance / (enclosing**2).sum(axis=1)


def random_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    corners = np.sort(rng.random((count, 2, 2)), axis=1)
    return corners.reshape(count, 4)


def box_loss(truth: object, predicted: object) -> float:
    return float(DIoULoss()(np.array(truth, np.float32), np.array(predicted, np.float32)))


@pytest.mark.parametrize(
    ("predicted", "expected"),
    [
        ([0.2, 0.2, 0.6, 0.6], 0.0),
        # A quarter of each box is common: IoU 0.04 / 0.28; the centers are 0.2 apart each way, the hull 0.6.
        ([0.4, 0.4, 0.8, 0.8], 1 - 0.04 / 0.28 + 0.08 / 0.72),
        # Side by side: IoU 0, centers 0.4 apart, a hull of 0.8 by 0.4.
        ([0.6, 0.2, 1.0, 0.6], 1 + 0.16 / 0.8),
        # Inside, on the same center: IoU 0.04 / 0.16 and no distance.
        ([0.3, 0.3, 0.5, 0.5], 0.75),
    ],
)
def test_box_loss_by_hand(predicted: list[float], expected: float) -> None:
    assert box_loss([[[0.2, 0.2, 0.6, 0.6]]], [[predicted]]) == pytest.approx(expected, abs=1e-6)


def test_box_loss_is_the_mean_over_true_boxes_as_numpy_says() -> None:
    rng = np.random.default_rng(0)
    truth, predicted = random_boxes(rng, 60), random_boxes(rng, 60)
    there = rng.random(60) < 0.4
    expected = diou(truth[there], predicted[there]).mean()

    truth[~there] = 0
    assert box_loss(truth.reshape(20, 3, 4), predicted.reshape(20, 3, 4)) == pytest.approx(expected, rel=1e-5)


def test_box_loss_does_not_depend_on_empty_slots() -> None:
    rng = np.random.default_rng(1)
    truth, predicted = random_boxes(rng, 4).reshape(4, 1, 4), random_boxes(rng, 4).reshape(4, 1, 4)
    alone = box_loss(truth, predicted)

    more_classes = np.concatenate([truth, np.zeros((4, 5, 4))], axis=1)
    more_answers = np.concatenate([predicted, rng.random((4, 5, 4))], axis=1)
    assert box_loss(more_classes, more_answers) == pytest.approx(alone, rel=1e-6)

    more_images = np.concatenate([more_classes, np.zeros((9, 6, 4))])
    assert box_loss(more_images, np.concatenate([more_answers, rng.random((9, 6, 4))])) == pytest.approx(
        alone, rel=1e-6
    )


@pytest.mark.parametrize(
    ("truth", "predicted"),
    [
        ([0.2, 0.2, 0.6, 0.6], [0.2, 0.2, 0.6, 0.6]),
        ([0.1, 0.1, 0.2, 0.2], [0.7, 0.8, 0.9, 0.9]),
        ([0.1, 0.1, 0.5, 0.5], [0.5, 0.1, 0.9, 0.5]),
        ([0.1, 0.1, 0.5, 0.5], [0.2, 0.2, 0.2, 0.2]),
        ([0.2, 0.2, 0.2, 0.2], [0.1, 0.1, 0.5, 0.5]),
        ([0.3, 0.3, 0.3, 0.3], [0.3, 0.3, 0.3, 0.3]),
        ([0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]),
        (EMPTY, [0.1, 0.1, 0.5, 0.5]),
        (EMPTY, EMPTY),
    ],
    ids=[
        "identical",
        "disjoint",
        "touching",
        "predicted without size",
        "true without size",
        "both without size",
        "in the corner",
        "absent",
        "absent, corner",
    ],
)
def test_box_loss_and_its_gradient_are_finite(truth: list[float], predicted: list[float]) -> None:
    variable = tf.Variable([[predicted]], dtype=tf.float32)
    with tf.GradientTape() as tape:
        loss = DIoULoss()(tf.constant([[truth]], tf.float32), variable)
    gradient = tape.gradient(loss, variable).numpy()

    assert 0 <= float(loss) <= 2
    assert np.isfinite(gradient).all()
    if truth == EMPTY:
        assert not gradient.any(), "an absent class must not teach"
    elif truth != predicted:
        assert gradient.any(), "a wrong box must have a way to get better"


def test_a_step_down_the_gradient_brings_a_disjoint_box_nearer() -> None:
    truth = tf.constant([[[0.1, 0.1, 0.2, 0.2]]])
    variable = tf.Variable([[[0.7, 0.8, 0.9, 0.9]]])
    with tf.GradientTape() as tape:
        loss = DIoULoss()(truth, variable)
    after = DIoULoss()(truth, variable - 0.05 * tape.gradient(loss, variable))
    assert float(after) < float(loss) - 1e-3


def test_a_batch_without_any_box_has_no_box_loss() -> None:
    predicted = random_boxes(np.random.default_rng(2), 6).reshape(2, 3, 4)
    assert box_loss(np.zeros((2, 3, 4)), predicted) == 0


def test_class_loss_by_hand() -> None:
    # -(3 ln 0.5 + ln 0.9 + ln 0.8) / 3: the present label 0 counts three times, the absent ones once.
    loss = WeightedBinaryCrossentropy([3.0, 5.0, 7.0])(
        np.array([[1, 0, 0]]), np.array([[0.5, 0.1, 0.2]], np.float32)
    )
    assert float(loss) == pytest.approx(-(3 * np.log(0.5) + np.log(0.9) + np.log(0.8)) / 3, rel=1e-5)


@pytest.mark.parametrize("label", range(3))
def test_a_present_label_weighs_its_class_weight(label: int) -> None:
    weights = [2.0, 0.5, 10.0]
    truth = np.zeros((1, 3), np.float32)
    answers = np.full((1, 3), 0.3, np.float32)
    absent = float(WeightedBinaryCrossentropy(weights)(truth, answers))
    truth[0, label] = 1
    present = float(WeightedBinaryCrossentropy(weights)(truth, answers))
    expected = (-weights[label] * np.log(0.3) + np.log(0.7)) / 3
    assert present - absent == pytest.approx(expected, rel=1e-4)


def test_class_loss_without_weights_is_keras_s() -> None:
    rng = np.random.default_rng(3)
    truth, answers = rng.integers(0, 2, (16, 3)), rng.random((16, 3)).astype(np.float32)
    expected = keras.losses.BinaryCrossentropy()(truth.astype(np.float32), answers)
    assert float(WeightedBinaryCrossentropy([1.0] * 3)(truth, answers)) == pytest.approx(
        float(expected), rel=1e-5
    )


def test_class_loss_is_finite_at_certainty() -> None:
    variable = tf.Variable([[0.0, 1.0, 0.0, 1.0]])
    with tf.GradientTape() as tape:
        loss = WeightedBinaryCrossentropy([20.0] * 4)(tf.constant([[1.0, 0.0, 0.0, 1.0]]), variable)
    assert np.isfinite(float(loss)) and float(loss) > 10
    assert np.isfinite(tape.gradient(loss, variable).numpy()).all()


def test_losses_survive_keras_serialization(tmp_path: Path) -> None:
    image = keras.Input((8,))
    outputs = {
        "labels": keras.layers.Dense(3, activation="sigmoid", name="labels")(image),
        "boxes": keras.layers.Reshape((3, 4), name="boxes")(
            keras.layers.Dense(12, activation="sigmoid")(image)
        ),
    }
    model = keras.Model(image, outputs)
    model.compile("sgd", loss={"labels": WeightedBinaryCrossentropy([7.0, 1.5, 2.5]), "boxes": DIoULoss()})
    rng = np.random.default_rng(4)
    x = rng.random((5, 8), dtype=np.float32)
    y = {"labels": rng.integers(0, 2, (5, 3)), "boxes": random_boxes(rng, 15).reshape(5, 3, 4)}
    expected = model.evaluate(x, y, verbose=0)

    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")

    assert loaded.loss["labels"].class_weights == [7.0, 1.5, 2.5]
    assert isinstance(loaded.loss["boxes"], DIoULoss)
    np.testing.assert_allclose(loaded.evaluate(x, y, verbose=0), expected, rtol=1e-6)
