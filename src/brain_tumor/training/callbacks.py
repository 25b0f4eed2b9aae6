"""What happens between the epochs and batches of a training, as Keras callbacks."""

import itertools
import logging
import math
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

import keras
import numpy as np
from typing_extensions import override

from brain_tumor.artifacts.model import Epoch
from brain_tumor.config import PhaseConfig
from brain_tumor.runtime.errors import InputError
from brain_tumor.runtime.progress import Progress
from brain_tumor.runtime.signals import TERMINATED
from brain_tumor.runtime.tracking import Run
from brain_tumor.training.checkpoints import ProgressState


class EpochLog(keras.callbacks.Callback):
    """Writes a line an epoch, sends its figures to MLflow, and keeps them.

    Attributes:
        epochs: The figures of each epoch so far.
    """

    def __init__(self, name: str, run: Run) -> None:
        super().__init__()
        self.epochs: list[Epoch] = []
        self._name = name
        self._run = run
        self._started = 0.0

    @property
    def run_id(self) -> str:
        """The MLflow run's id."""
        return self._run.id

    def restore(self, epochs: list[Epoch], run_id: str) -> None:
        """Takes over the epochs of a process that was killed, from its MLflow run into this one's."""
        self.epochs = epochs
        self._run.take_over(run_id)
        for figures in epochs:
            self._send(figures)

    @property
    def done(self) -> int:
        """How many epochs are done."""
        return int(self.epochs[-1]["epoch"]) if self.epochs else 0

    def begin(self, figures: Epoch) -> None:
        """Takes the start model's figures as those of epoch 0."""
        shown = "  ".join(f"{key} {value:.4g}" for key, value in sorted(figures.items()))
        logging.info("%s: before the first epoch  %s", self._name, shown)
        self.epochs.append({"epoch": 0, "seconds": 0.0, **figures})
        self._send(self.epochs[-1])

    @override
    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._started = time.perf_counter()

    @override
    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        figures = {key: float(value) for key, value in sorted((logs or {}).items())}
        figures["learning_rate"] = current_rate(self.model.optimizer)
        seconds = time.perf_counter() - self._started
        shown = "  ".join(f"{key} {value:.4g}" for key, value in figures.items())
        logging.info(
            "%s: epoch %d/%d in %.1f s  %s", self._name, epoch + 1, self.params["epochs"], seconds, shown
        )
        broken = [key for key, value in figures.items() if not math.isfinite(value)]
        if broken:
            raise InputError(
                f"{self._name}: {broken[0]} is not finite after epoch {epoch + 1}; lower the learning rate."
            )
        self.epochs.append({"epoch": epoch + 1, "seconds": round(seconds, 3), **figures})
        self._send(self.epochs[-1])

    def _send(self, figures: Epoch) -> None:
        metrics = {key: value for key, value in figures.items() if key not in ("epoch", "seconds")}
        self._run.log_metrics(metrics, step=int(figures["epoch"]))


class FiniteLoss(keras.callbacks.Callback):
    """Stops a training at the batch whose loss is not finite.

    Keras's own callback for it would make the device wait for Python after each batch. This one says that it
    may be called in another thread, where Keras reads the losses while the next batches are computed.
    """

    async_safe = True

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name
        self._epoch = 0
        self._losses: dict[int, float] = {}
        self._broken = False

    @override
    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch, self._losses = epoch, {}

    @override
    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        # Keras's figure is the mean of the epoch so far: once it is not finite, it stays so.
        self._losses[batch] = (logs or {})["loss"]
        self._broken = self._broken or not math.isfinite(self._losses[batch])

    @override
    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._check()

    @override
    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._check()

    def _check(self) -> None:
        if not self._broken:
            return
        for batch in itertools.count():
            while batch not in self._losses:  # its thread is still to come
                time.sleep(0.001)
            if not math.isfinite(self._losses[batch]):
                step = int(self.params["steps"]) * self._epoch + batch + 1
                raise InputError(
                    f"{self._name}: the loss is {self._losses[batch]} at batch {batch + 1} of epoch "
                    f"{self._epoch + 1} (step {step}); lower the learning rate or set clip_norm. The last "
                    "checkpoint is the one before this epoch."
                )


class BatchCount(keras.callbacks.Callback):
    """Shows how far an epoch is, where epochs are long.

    It may be called in another thread, like `FiniteLoss`.
    """

    async_safe = True

    def __init__(self) -> None:
        super().__init__()
        self._shown: Progress | None = None

    @override
    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        what = f"epoch {epoch + 1}/{self.params['epochs']}"
        self._shown = Progress(what, self.params["steps"], "batches")

    @override
    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        assert self._shown, "an epoch has begun"
        self._shown.update()

    @override
    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        assert self._shown, "an epoch has begun"
        self._shown.close()


class BestEpoch(keras.callbacks.Callback):
    """Follows the monitored figure: keeps the best epoch's weights, lowers the rate, ends the training.

    Keras has a callback for each, but none whose state can be saved and restored.

    Args:
        phase: The phase.
        variables: What the training changes.

    Attributes:
        best_epoch: The epoch with the highest figure so far, from 1; 0 where that is the start model.
        best: The values of the variables after it.
    """

    def __init__(self, phase: PhaseConfig, variables: list[keras.Variable]) -> None:
        super().__init__()
        self.best_epoch = 0
        self.best: list[np.ndarray] = []
        self._phase = phase
        self._variables = variables
        self._score = -math.inf
        self._waited = 0
        self._rate_waited = 0

    def begin(self, figures: Epoch) -> None:
        """Takes the model as it is for the best so far."""
        self._score, self.best = self._phase.judge(figures), read(self._variables)

    @override
    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        score = float(self._phase.judge(logs or {}))
        if score > self._score:
            self.best_epoch, self._score = epoch + 1, score
            self.best = read(self._variables)
            self._waited = self._rate_waited = 0
            return
        self._waited += 1
        self._rate_waited += 1
        if self._phase.schedule == "plateau" and self._rate_waited >= self._phase.reduce_rate_patience:
            self.model.optimizer.learning_rate = current_rate(self.model.optimizer) / 2
            self._rate_waited = 0
        self.model.stop_training = self.finished

    @property
    def finished(self) -> bool:
        """Whether there was no better epoch for so long that the training is over."""
        return 0 < self._waited >= self._phase.early_stopping_patience

    def state(self) -> ProgressState:
        """What `restore` needs beside the best weights."""
        return ProgressState(
            best_epoch=self.best_epoch,
            score=self._score,
            waited=self._waited,
            rate_waited=self._rate_waited,
        )

    def restore(self, state: ProgressState, best: list[np.ndarray]) -> None:
        """Goes on where another process's `state` was."""
        self.best_epoch, self._score = state.best_epoch, state.score
        self._waited, self._rate_waited = state.waited, state.rate_waited
        self.best = best

    def restore_best(self) -> None:
        """Gives the variables their values after the best epoch."""
        write(self._variables, self.best)


class Preemption(keras.callbacks.Callback):
    """Ends the process at SIGTERM with exit code 143, which a pod gets some seconds before it is killed.

    Between the first and the last batch it waits for the batch in hand; before and after them it ends at
    once. A checkpoint that is being written is still waited for, by `Checkpointer`. What is written by
    renaming stays whole or absent.
    """

    def __init__(self) -> None:
        super().__init__()
        self._received = False
        self._batches = 0
        self._previous: Any = None

    def __enter__(self) -> "Preemption":
        # Python delivers signals to its main thread, and lets no other one ask for them.
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGTERM, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)

    @override
    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._batches += 1
        self._end_if_asked()

    @override
    def on_test_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._end_if_asked()

    @override
    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._batches = 0
        self._end_if_asked()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        logging.warning("SIGTERM: the training ends; started again, it goes on from its last checkpoint.")
        self._received = True
        # The first batch takes long, since its graph is made.
        if self._batches < 2:
            raise SystemExit(TERMINATED)

    def _end_if_asked(self) -> None:
        if self._received:
            raise SystemExit(TERMINATED)


def current_rate(optimizer: keras.optimizers.Optimizer) -> float:
    """The learning rate of the next step."""
    return float(keras.ops.convert_to_numpy(optimizer.learning_rate))


def read(variables: list[keras.Variable]) -> list[np.ndarray]:
    """The values of variables, as arrays that later changes do not reach."""
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def write(variables: list[keras.Variable], values: list[np.ndarray]) -> None:
    """Gives variables their values."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
