from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from brain_tumor.config import PhaseConfig, from_json
from brain_tumor.runtime.errors import InputError
from brain_tumor.runtime.tracking import Run
from brain_tumor.training.callbacks import BestEpoch, EpochLog, FiniteLoss, write_variables
from brain_tumor.training.checkpointing import Checkpointer
from brain_tumor.training.checkpoints import Checkpoints, ProgressState

pytestmark = pytest.mark.slow


def endless_batches(broken: int) -> tf.data.Dataset:
    """An infinite stream of batches, of which one (counted from 0) has an infinite target."""
    return tf.data.Dataset.counter().map(
        lambda index: (tf.ones([2, 1]), tf.where(index == broken, np.inf, 1.0) * tf.ones([2, 1]))
    )


def test_a_loss_that_is_not_finite_stops_the_training_at_its_batch(tmp_path: Path) -> None:
    """The last good checkpoint is kept."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    metrics = [keras.metrics.MeanSquaredError(name="boxes_iou")]
    model.compile("sgd", loss="mse", metrics=metrics)
    log = EpochLog("phase1_box", Run())
    progress = BestEpoch(PhaseConfig(early_stopping_patience=9, reduce_rate_patience=9), model.weights)
    checkpoints = Checkpoints(str(tmp_path))
    saved = Checkpointer(checkpoints, model.weights, log, progress)
    says = r"phase1_box: the loss is inf at batch 3 of epoch 2 \(step 13\)"
    with pytest.raises(InputError, match=says), saved:
        model.fit(
            endless_batches(12),
            steps_per_epoch=10,
            validation_data=(np.ones((2, 1)), np.ones((2, 1))),
            epochs=4,
            verbose=0,
            shuffle=False,
            callbacks=[FiniteLoss("phase1_box"), log, progress, saved],
        )
    assert [epoch["epoch"] for epoch in log.epochs] == [1]
    checkpoint = checkpoints.load()
    assert checkpoint is not None
    assert all(np.isfinite(array).all() for array in checkpoint.arrays["variables"])


def test_a_figure_that_is_not_finite_stops_the_training() -> None:
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", loss="mse")
    log = EpochLog("phase1_box", Run())
    with pytest.raises(InputError, match="phase1_box: val_loss is not finite after epoch 1"):
        model.fit(
            np.ones((2, 1)),
            np.ones((2, 1)),
            validation_data=(np.ones((2, 1)), np.full((2, 1), np.inf)),
            epochs=3,
            verbose=0,
            callbacks=[log],
        )
    assert log.epochs == []


SCORES = [0.2, 0.1, 0.3, 0.3, 0.25, 0.3, 0.1, 0.2]


@pytest.mark.parametrize("killed_after", range(1, 8))
def test_schedule_and_early_stopping_resume(killed_after: int) -> None:
    """The rate is halved after two epochs without improvement; the training ends after four."""
    phase = PhaseConfig(learning_rate=1.0, reduce_rate_patience=2, early_stopping_patience=4)

    def begin() -> tuple[keras.Model, BestEpoch]:
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(1.0))
        progress = BestEpoch(phase, model.weights)
        progress.set_model(model)
        return model, progress

    def run(model: keras.Model, progress: BestEpoch, epochs: range) -> list[Any]:
        seen = []
        for epoch in epochs:
            write_variables(model.weights, [np.full((1, 1), epoch), np.zeros(1)])
            progress.on_epoch_end(epoch, {phase.monitor: SCORES[epoch]})
            seen.append((float(model.optimizer.learning_rate), progress.best_epoch, progress.finished))
        return seen

    expected = run(*begin(), range(len(SCORES)))
    rates, best, finished = zip(*expected, strict=True)
    assert rates == (1, 1, 1, 1, 0.5, 0.5, 0.25, 0.25)
    assert best == (1, 1, 3, 3, 3, 3, 3, 3)
    assert finished == (False,) * 6 + (True,) * 2

    model, progress = begin()
    seen = run(model, progress, range(killed_after))
    other, resumed = begin()
    other.optimizer.learning_rate = float(model.optimizer.learning_rate)
    resumed.restore(from_json(ProgressState, progress.state().model_dump_json(), "state"), progress.best)
    assert seen + run(other, resumed, range(killed_after, len(SCORES))) == expected
    resumed.restore_best()
    assert other.get_weights()[0] == 2


def a_model() -> keras.Model:
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(1.0))
    return model


@pytest.mark.parametrize("monitor", ["val_boxes_iou", "val_both"])
def test_a_start_model_that_no_epoch_improves_is_the_result(monitor: Any) -> None:
    """Also for a process that resumes after an epoch."""
    phase = PhaseConfig(start="phase0", monitor=monitor, reduce_rate_patience=9, early_stopping_patience=3)
    model = a_model()
    started = model.get_weights()
    progress = BestEpoch(phase, model.weights)
    progress.set_model(model)
    progress.begin({"val_boxes_iou": 0.5, "val_labels_auc": 0.8})
    write_variables(model.weights, [np.ones((1, 1)), np.ones(1)])
    # Equal to the start model is not better, and neither is one better figure if both count.
    progress.on_epoch_end(0, {"val_boxes_iou": 0.5, "val_labels_auc": 0.8})
    other = BestEpoch(phase, model.weights)
    other.set_model(model)
    other.restore(from_json(ProgressState, progress.state().model_dump_json(), "state"), progress.best)
    for epoch in (1, 2):
        assert not other.finished
        other.on_epoch_end(epoch, {"val_boxes_iou": 0.4, "val_labels_auc": 0.89})
    assert other.finished and other.best_epoch == 0
    other.restore_best()
    assert all(np.array_equal(weight, old) for weight, old in zip(model.get_weights(), started, strict=True))


def test_both_figures_have_equal_weight_if_a_phase_monitors_both() -> None:
    phase = PhaseConfig(monitor="val_both")
    assert phase.monitored_value({"val_boxes_iou": 0.5, "val_labels_auc": 0.75, "val_loss": 9.0}) == 0.625
    assert PhaseConfig().monitored_value({"val_boxes_iou": 0.5, "val_labels_auc": 0.75}) == 0.5
