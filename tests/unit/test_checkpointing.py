"""Checkpoints that are written while training continues."""

import logging
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from brain_tumor.config import PhaseConfig
from brain_tumor.runtime.errors import InputError
from brain_tumor.runtime.signals import TERMINATED
from brain_tumor.runtime.tracking import Run
from brain_tumor.training.callbacks import BestEpoch, EpochLog, Preemption, read_variables, write_variables
from brain_tumor.training.checkpointing import Checkpointer
from brain_tumor.training.checkpoints import Checkpoint, Checkpoints

pytestmark = pytest.mark.slow

PATIENT: dict[str, Any] = {"early_stopping_patience": 9, "reduce_rate_patience": 9}
FIGURES = {"val_boxes_iou": 0.5, "val_labels_auc": 0.8}


class Training:
    """A training of a model with two weights.

    Args:
        folder: The folder of its checkpoints.
        scores: The monitored figure of each epoch.
    """

    def __init__(self, folder: Path, scores: list[float]) -> None:
        self.model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        self.model.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss="mse")
        self.model.optimizer.build(self.model.trainable_variables)
        self.checkpoints = Checkpoints(str(folder))
        self.log = EpochLog("phase1", Run())
        self.progress = BestEpoch(PhaseConfig(start="phase0", **PATIENT), self.model.weights)
        self.checkpointer = Checkpointer(self.checkpoints, self.model.weights, self.log, self.progress)
        self.scores = scores
        self.weights: list[list[np.ndarray]] = []
        """After each epoch."""

    def run(self, *others: keras.callbacks.Callback) -> None:
        """Runs the remaining epochs."""
        with self.checkpointer:
            self.model.fit(
                np.ones((6, 1)),
                np.linspace(0, 1, 6),
                batch_size=2,
                initial_epoch=self.log.done,
                epochs=len(self.scores),
                shuffle=False,
                verbose=0,
                callbacks=[*others, Score(self), self.log, self.progress, self.checkpointer],
            )

    @property
    def kept(self) -> list[str]:
        return sorted(path.name for path in self.checkpoints.folder.iterdir())


class Score(keras.callbacks.Callback):
    """Sets an epoch's figure, and stores the weights after it."""

    def __init__(self, training: Training) -> None:
        super().__init__()
        self._training = training

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs |= {"val_boxes_iou": self._training.scores[epoch]}
        self._training.weights.append(read_variables(self.model.weights))


class At(keras.callbacks.Callback):
    """Calls a function before a batch of an epoch, both counted from 1."""

    def __init__(self, epoch: int, batch: int, what: Callable[[], object]) -> None:
        super().__init__()
        self._when, self._what = (epoch, batch), what
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch + 1

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if (self._epoch, batch + 1) == self._when:
            self._what()


def replace_save(
    monkeypatch: pytest.MonkeyPatch, epoch: int, before: Callable[[], object]
) -> list[threading.Thread]:
    """Calls a function before an epoch's checkpoint is written. Returns the threads of all writes."""
    save, threads = Checkpoints.save, []

    def hooked(self: Checkpoints, now: int, checkpoint: Checkpoint) -> None:
        threads.append(threading.current_thread())
        if now == epoch:
            before()
        save(self, now, checkpoint)

    monkeypatch.setattr(Checkpoints, "save", hooked)
    return threads


def fail(error: BaseException) -> Callable[[], None]:
    def raise_it() -> None:
        raise error

    return raise_it


def test_an_epoch_is_trained_while_the_previous_one_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint has the state at the end of its epoch."""
    training, learned = Training(tmp_path, [0.1, 0.2]), threading.Event()
    threads = replace_save(monkeypatch, 1, lambda: learned.wait(60))
    training.run(At(2, 3, learned.set))
    assert learned.is_set() and threading.main_thread() not in threads
    assert training.kept == ["epoch-00001", "epoch-00002"]
    for epoch, weights in enumerate(training.weights, start=1):
        state, arrays = training.checkpoints._read(f"epoch-0000{epoch}")
        assert len(state.epochs) == state.progress.best_epoch == epoch
        for array, weight in zip(arrays["variables"], weights, strict=True):
            np.testing.assert_array_equal(array, weight)


def test_an_epochs_end_waits_for_the_previous_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that only one copy of the arrays is in memory at a time."""
    training, may_write = Training(tmp_path, [0.1, 0.2, 0.3]), threading.Event()
    threads = replace_save(monkeypatch, 1, lambda: may_write.wait(60))
    seen: list[int] = []
    wait = training.checkpointer._wait

    def watch() -> None:
        if len(training.weights) == 2:
            threading.Timer(0.3, lambda: (seen.append(len(threads)), may_write.set())).start()
        wait()
        if len(training.weights) == 2:
            assert training.kept == ["epoch-00001"] and seen == [1]

    monkeypatch.setattr(training.checkpointer, "_wait", watch)
    training.run()
    assert len(threads) == 3 and seen == [1]


@pytest.mark.parametrize("error", [OSError("No space left on device"), InputError("no credentials")])
@pytest.mark.parametrize(("failing", "ends_after"), [(1, 2), (3, 3)], ids=["next epoch", "end"])
def test_an_error_while_writing_ends_the_training(
    error: Exception, failing: int, ends_after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = Training(tmp_path, [0.1, 0.2, 0.3])
    replace_save(monkeypatch, failing, fail(error))
    with pytest.raises(type(error), match=str(error)):
        training.run()
    assert len(training.weights) == ends_after
    assert training.kept == ([] if failing == 1 else ["epoch-00001", "epoch-00002"])


def test_a_write_error_in_addition_to_another_error_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    training = Training(tmp_path, [0.1, 0.2])
    replace_save(monkeypatch, 1, fail(OSError("disk full")))
    with pytest.raises(KeyboardInterrupt):
        training.run(At(2, 2, fail(KeyboardInterrupt())))
    [record] = [each for each in caplog.records if each.levelname == "ERROR"]
    assert record.getMessage() == "The last checkpoint could not be written: disk full"


def test_the_error_that_ended_the_training_is_not_logged_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    training = Training(tmp_path, [0.1, 0.2])
    replace_save(monkeypatch, 1, fail(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        training.run()
    assert not [each for each in caplog.records if each.levelname == "ERROR"]


def test_sigterm_waits_for_a_write_in_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training, asked = Training(tmp_path, [0.1, 0.2, 0.3]), threading.Event()

    def write_late() -> None:
        assert asked.wait(60)
        threading.Event().wait(0.5)

    replace_save(monkeypatch, 1, write_late)
    with pytest.raises(SystemExit) as ended, Preemption() as preemption:
        training.run(preemption, At(2, 2, lambda: os.kill(os.getpid(), signal.SIGTERM)), At(2, 2, asked.set))
    assert ended.value.code == TERMINATED
    assert len(training.weights) == 1 and training.kept == ["epoch-00001"]


def test_a_training_resumes_bit_identically(tmp_path: Path) -> None:
    """Weights, optimizer, and the best epoch's weights, which only its own checkpoint contains."""
    scores = [0.2, 0.5, 0.4, 0.3, 0.1]
    whole = Training(tmp_path / "whole", scores)
    started = read_variables(whole.model.weights)
    whole.run()
    assert whole.kept == ["epoch-00002", "epoch-00004", "epoch-00005"]

    for done in range(1, 5):
        killed = Training(tmp_path / f"{done}", scores[:done])
        write_variables(killed.model.weights, started)
        killed.run()
        resumed = Training(tmp_path / f"{done}", scores)
        resumed.checkpointer.restore(resumed.model.optimizer)
        assert resumed.log.done == done
        resumed.run()
        pairs = [
            (whole.model.weights, resumed.model.weights),
            (whole.model.optimizer.variables, resumed.model.optimizer.variables),
        ]
        for expected, found in pairs:
            for one, other in zip(read_variables(expected), read_variables(found), strict=True):
                np.testing.assert_array_equal(one, other)
        resumed.progress.restore_best()
        for one, other in zip(whole.weights[1], read_variables(resumed.model.weights), strict=True):
            np.testing.assert_array_equal(one, other)


def test_the_start_models_figures_do_not_count_as_an_epoch(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They are logged and stored as epoch 0, and a resumed training counts from the last finished epoch.

    Checkpoints do not contain the start model's weights, since a resumed process also starts with them.
    """
    with caplog.at_level(logging.INFO):
        for done in (0, 1, 2):
            training = Training(tmp_path, [0.4] * (done + 1))
            write_variables(training.model.weights, [np.full((1, 1), 7.0), np.zeros(1)])
            training.checkpointer.restore(training.model.optimizer)
            assert training.log.done == done
            if not done:
                training.log.begin(FIGURES)
                training.progress.begin(FIGURES)
                assert training.log.done == 0
                assert "phase1: before the first epoch  val_boxes_iou 0.5  val_labels_auc 0.8" in caplog.text
            else:
                assert f"Resumes after epoch {done} from" in caplog.messages[-1]
                assert not np.array_equal(training.model.get_weights()[0], [[7]])
            training.run()
    assert [epoch["epoch"] for epoch in training.log.epochs] == [0, 1, 2, 3]
    assert training.progress.best_epoch == 0
    training.progress.restore_best()
    np.testing.assert_array_equal(training.model.get_weights()[0], [[7]])
    names = {path.name for path in tmp_path.rglob("*.npz")}
    assert names == {"variables.npz", "optimizer.npz"}
