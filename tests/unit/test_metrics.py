import keras
import numpy as np
import pytest

from brain_tumor.boxes.measures import iou
from brain_tumor.metrics import BoxIoU, BoxMeanAbsoluteError, BoxMeanSquaredError, BoxRecall

# What each metric is, in NumPy: from true and predicted boxes (n, 4).
METRICS = {
    "iou": (BoxIoU, lambda truth, predicted: iou(truth, predicted).mean()),
    "recall": (lambda: BoxRecall(0.3), lambda truth, predicted: (iou(truth, predicted) >= 0.3).mean()),
    "mse": (BoxMeanSquaredError, lambda truth, predicted: ((truth - predicted) ** 2).mean()),
    "mae": (BoxMeanAbsoluteError, lambda truth, predicted: np.abs(truth - predicted).mean()),
}


def boxes_and_answers(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True boxes (count, 3, 4) with absent classes, answers, and which are there."""
    rng = np.random.default_rng(0)
    boxes = np.sort(rng.random((2, count, 3, 2, 2), dtype=np.float32), axis=3).reshape(2, count, 3, 4)
    there = rng.random((count, 3)) < 0.4
    return boxes[0] * there[..., None], boxes[1], there


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("sizes", [(24,), (8, 8, 8), (1, 20, 3), (23, 1)], ids=str)
def test_every_true_box_counts_once_whatever_its_batch(name: str, sizes: tuple[int, ...]) -> None:
    truth, predicted, there = boxes_and_answers(24)
    make, reference = METRICS[name]
    expected = reference(truth[there], predicted[there])
    assert 0.05 < expected < 0.95
    starts = np.cumsum((0, *sizes))
    counts = [there[start : start + size].sum() for start, size in zip(starts, sizes, strict=False)]
    assert len(sizes) == 1 or len(set(counts)) > 1, "a mean of the batches' means would be the same"

    metric = make()
    for start, size in zip(starts, sizes, strict=False):
        metric.update_state(truth[start : start + size], predicted[start : start + size])

    assert float(metric.result()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", METRICS)
def test_an_image_can_weigh_more(name: str) -> None:
    truth, predicted, _ = boxes_and_answers(6)
    weighted, repeated = METRICS[name][0](), METRICS[name][0]()
    weighted.update_state(truth, predicted, sample_weight=[2, 1, 1, 1, 0, 1])
    order = [0, 0, 1, 2, 3, 5]
    repeated.update_state(truth[order], predicted[order])
    assert float(weighted.result()) == pytest.approx(float(repeated.result()), rel=1e-5)


def test_a_right_box_has_1_and_no_box_has_0() -> None:
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
def test_keras_can_name_and_restore_them(name: str) -> None:
    kind = type(METRICS[name][0]())
    options = {"threshold": 0.75} if kind is BoxRecall else {}
    metric = kind(name="boxes_figure", **options)
    restored = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(metric))
    assert type(restored) is kind
    assert restored.name == "boxes_figure"
    assert getattr(restored, "threshold", None) == options.get("threshold")
