import keras
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from brain_tumor.artifacts.predictions import PREDICTED_BOX, TRUE_BOX
from brain_tumor.boxes.measures import iou
from brain_tumor.evaluation.coco import coco_figures
from brain_tumor.metrics import (
    BoxAP50,
    BoxIoU,
    BoxMeanAbsoluteError,
    BoxMeanSquaredError,
    BoxRecall,
    MeanAUC,
)

pytestmark = pytest.mark.slow

# Each metric in NumPy, computed from true and predicted boxes (n, 4).
METRICS = {
    "iou": (BoxIoU, lambda truth, predicted: iou(truth, predicted).mean()),
    "recall": (lambda: BoxRecall(0.3), lambda truth, predicted: (iou(truth, predicted) >= 0.3).mean()),
    "mse": (BoxMeanSquaredError, lambda truth, predicted: ((truth - predicted) ** 2).mean()),
    "mae": (BoxMeanAbsoluteError, lambda truth, predicted: np.abs(truth - predicted).mean()),
}


def boxes_and_answers(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True boxes (count, 3, 4) with absent classes, predictions, and which boxes are present."""
    rng = np.random.default_rng(0)
    boxes = np.sort(rng.random((2, count, 3, 2, 2), dtype=np.float32), axis=3).reshape(2, count, 3, 4)
    there = rng.random((count, 3)) < 0.4
    return boxes[0] * there[..., None], boxes[1], there


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("sizes", [(24,), (8, 8, 8), (1, 20, 3), (23, 1)], ids=str)
def test_every_true_box_counts_once_regardless_of_its_batch(name: str, sizes: tuple[int, ...]) -> None:
    truth, predicted, there = boxes_and_answers(24)
    make, reference = METRICS[name]
    expected = reference(truth[there], predicted[there])
    assert 0.05 < expected < 0.95
    starts = np.cumsum((0, *sizes))
    counts = [there[start : start + size].sum() for start, size in zip(starts, sizes, strict=False)]
    assert len(sizes) == 1 or len(set(counts)) > 1, "otherwise a mean of the batches' means would be equal"

    metric = make()
    for start, size in zip(starts, sizes, strict=False):
        metric.update_state(truth[start : start + size], predicted[start : start + size])

    assert float(metric.result()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", METRICS)
def test_an_image_can_have_a_higher_weight(name: str) -> None:
    truth, predicted, _ = boxes_and_answers(6)
    weighted, repeated = METRICS[name][0](), METRICS[name][0]()
    weighted.update_state(truth, predicted, sample_weight=[2, 1, 1, 1, 0, 1])
    order = [0, 0, 1, 2, 3, 5]
    repeated.update_state(truth[order], predicted[order])
    assert float(weighted.result()) == pytest.approx(float(repeated.result()), rel=1e-5)


def test_a_correct_box_has_1_and_no_box_has_0() -> None:
    metric = BoxIoU()
    assert float(metric.result()) == 0

    box = np.array([[[0.1, 0.2, 0.3, 0.5], [0.0] * 4]], np.float32)
    metric.update_state(np.zeros_like(box), np.full_like(box, 0.5))
    assert float(metric.result()) == 0
    metric.update_state(box, np.concatenate([box[:, :1], np.ones((1, 1, 4))], axis=1))
    assert float(metric.result()) == pytest.approx(1, rel=1e-5)

    metric.reset_state()
    assert float(metric.result()) == 0


def test_a_box_in_the_corner_of_the_image_counts() -> None:
    box = np.array([[[0.0, 0.0, 0.25, 0.5]]], np.float32)
    metric = BoxIoU()
    metric.update_state(box, box / 2)
    assert float(metric.result()) == pytest.approx(0.25, rel=1e-5)


def test_an_iou_of_the_threshold_is_enough_for_recall() -> None:
    truth = np.array([[[0.0, 0.0, 0.5, 0.5]]] * 2, np.float32)
    metric = BoxRecall(0.5)
    metric.update_state(truth, truth * [1, 1, 0.5, 1])
    assert float(metric.result()) == 1
    metric.update_state(truth, truth * [1, 1, 0.499, 1])
    assert float(metric.result()) == 0.5


@pytest.mark.parametrize("name", METRICS)
def test_a_score_after_the_box_is_not_part_of_it(name: str) -> None:
    truth, predicted, _ = boxes_and_answers(6)
    metric, scored = METRICS[name][0](), METRICS[name][0]()
    metric.update_state(truth, predicted)
    scored.update_state(truth, np.concatenate([predicted, np.full((6, 3, 1), 9, np.float32)], axis=-1))
    assert float(scored.result()) == float(metric.result())


@pytest.mark.parametrize("slot", range(3))
def test_only_the_boxes_of_one_label(slot: int) -> None:
    truth, predicted, there = boxes_and_answers(24)
    metric = BoxIoU(slot)
    metric.update_state(truth[:10], predicted[:10])
    metric.update_state(truth[10:], predicted[10:])
    own = there[:, slot]
    expected = iou(truth[own, slot], predicted[own, slot]).mean()
    assert float(metric.result()) == pytest.approx(expected, rel=1e-5)
    metric.reset_state()
    metric.update_state(truth * (np.arange(3) != slot)[:, None], predicted)
    assert float(metric.result()) == 0, "boxes of other labels do not count"


def ranked_boxes(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """True boxes and predictions, with scores that correlate with presence and IoU."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 0.5, (count, 3, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(0.2, 0.5, (count, 3, 2))], axis=-1)
    error = rng.choice([0.01, 0.05, 0.2], (count, 3, 1))
    predicted = boxes + error * rng.normal(size=boxes.shape)
    predicted = np.sort(predicted.reshape(count, 3, 2, 2), axis=2).reshape(boxes.shape)
    there = rng.random((count, 3)) < 0.6
    scores = 2 * there - 4 * error[..., 0] + rng.normal(size=(count, 3)) - 1
    answers = np.concatenate([predicted, scores[..., None]], axis=-1)
    return (boxes * there[..., None]).astype(np.float32), answers.astype(np.float32)


@pytest.mark.parametrize("slot", range(3))
def test_average_precision_is_close_to_that_of_coco(slot: int) -> None:
    truth, answers = ranked_boxes(400)
    metric = BoxAP50(slot)
    for start in range(0, 400, 64):
        metric.update_state(truth[start : start + 64], answers[start : start + 64])
    true, own = truth[:, slot].astype(float), answers[:, slot]
    present = true.any(axis=-1)
    true[~present] = np.nan
    table = pd.DataFrame({"present": present, "score": own[:, 4]})
    table[TRUE_BOX], table[PREDICTED_BOX] = true, own[:, :4]
    expected = coco_figures(table)["box_ap50"]
    assert expected is not None and 0.3 < expected < 0.9
    assert float(metric.result()) == pytest.approx(expected, abs=0.02)


def test_average_precision_by_hand() -> None:
    """By descending score: found, a false box, found; a fourth box is missed."""
    box, aside = [0.2, 0.2, 0.6, 0.6], [0.7, 0.7, 0.9, 0.9]
    truth = np.array([[box], [[0.0] * 4], [box], [box]], np.float32)
    answers = np.array([[[*box, 3]], [[*box, 1]], [[*box, -1]], [[*aside, -2]]], np.float32)
    metric = BoxAP50(0)
    assert float(metric.result()) == 0
    metric.update_state(truth, answers)
    assert float(metric.result()) == pytest.approx((1 + 2 / 3) / 3)
    # If the false box comes last, it costs nothing.
    metric.reset_state()
    answers[1, 0, 4] = -3
    metric.update_state(truth, answers)
    assert float(metric.result()) == pytest.approx((1 + 1) / 3)
    # Beyond the bins all scores are equal: none of the three ranks first.
    metric.reset_state()
    answers[..., 4] = np.array([[1e4], [50], [30], [20]])
    metric.update_state(truth, answers)
    assert float(metric.result()) == pytest.approx(2 * (2 / 4) / 3)


def test_average_precision_applies_image_weights() -> None:
    truth, answers = ranked_boxes(40)
    weighted, repeated = BoxAP50(1), BoxAP50(1)
    weights = np.random.default_rng(2).integers(0, 3, 40)
    weighted.update_state(truth, answers, sample_weight=weights)
    repeated.update_state(truth.repeat(weights, axis=0), answers.repeat(weights, axis=0))
    assert float(weighted.result()) == pytest.approx(float(repeated.result()), rel=1e-5)


def test_mean_auc_equals_scikit_learns_over_labels_that_have_one() -> None:
    rng = np.random.default_rng(0)
    truth = (rng.random((600, 4)) < [0.2, 0.5, 1.0, 0.8]).astype(np.float32)
    assert truth[:, 2].all(), "a label that is always present has no curve"
    logits = (rng.normal(0, 1.5, (600, 4)) + truth * [0.5, 1, 2, 3]).astype(np.float32)
    metric = MeanAUC(4)
    for start in range(0, 600, 128):
        metric.update_state(truth[start : start + 128], logits[start : start + 128])
    areas = [roc_auc_score(truth[:, label], logits[:, label]) for label in (0, 1, 3)]
    assert float(metric.result()) == pytest.approx(np.mean(areas), abs=2e-3)
    assert np.ptp(areas) > 0.1

    metric.reset_state()
    metric.update_state(1 - truth, logits)
    assert float(metric.result()) == pytest.approx(1 - np.mean(areas), abs=2e-3), "nor has one never present"


def test_mean_auc_without_defined_labels_is_that_of_guessing() -> None:
    metric = MeanAUC(2)
    assert float(metric.result()) == 0.5
    metric.update_state(np.array([[1, 0], [1, 0]], np.float32), np.array([[3, -1], [-2, 5]], np.float32))
    assert float(metric.result()) == 0.5
    metric.update_state(np.array([[0, 0]], np.float32), np.array([[-5, 0]], np.float32))
    assert float(metric.result()) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (BoxIoU, {"slot": 2}),
        (BoxIoU, {}),
        (BoxRecall, {"threshold": 0.75}),
        (BoxMeanSquaredError, {}),
        (BoxMeanAbsoluteError, {}),
        (BoxAP50, {"slot": 1}),
        (MeanAUC, {"num_labels": 3}),
    ],
)
def test_keras_can_serialize_and_restore_them(
    kind: type[keras.metrics.Metric], options: dict[str, float]
) -> None:
    metric = kind(name="boxes_figure", **options)
    restored = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(metric))
    assert type(restored) is kind
    assert restored.name == "boxes_figure"
    assert restored.get_config() == metric.get_config()
    assert {key: getattr(restored, key) for key in options} == options
