"""Keras callbacks for training."""

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
    """Logs each epoch's metrics, sends them to MLflow, and keeps them.

    Attributes:
        epochs: The metrics of each epoch so far.
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
        """Restores the epochs of a killed process, and sends their metrics to this MLflow run."""
        self.epochs = epochs
        self._run.resume_from(run_id)
        for metrics in epochs:
            self._send(metrics)

    @property
    def done(self) -> int:
        """The number of finished epochs."""
        return int(self.epochs[-1]["epoch"]) if self.epochs else 0

    def begin(self, metrics: Epoch) -> None:
        """Records the start model's metrics as epoch 0."""
        shown = "  ".join(f"{key} {value:.4g}" for key, value in sorted(metrics.items()))
        logging.info("%s: before the first epoch  %s", self._name, shown)
        self.epochs.append({"epoch": 0, "seconds": 0.0, **metrics})
        self._send(self.epochs[-1])

    @override
    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._started = time.perf_counter()

    @override
    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        metrics = {key: float(value) for key, value in sorted((logs or {}).items())}
        metrics["learning_rate"] = current_learning_rate(self.model.optimizer)
        seconds = time.perf_counter() - self._started
        shown = "  ".join(f"{key} {value:.4g}" for key, value in metrics.items())
        logging.info(
            "%s: epoch %d/%d in %.1f s  %s", self._name, epoch + 1, self.params["epochs"], seconds, shown
        )
        broken = [key for key, value in metrics.items() if not math.isfinite(value)]
        if broken:
            raise InputError(
                f"{self._name}: {broken[0]} is not finite after epoch {epoch + 1}; lower the learning rate."
            )
        self.epochs.append({"epoch": epoch + 1, "seconds": round(seconds, 3), **metrics})
        self._send(self.epochs[-1])

    def _send(self, metrics: Epoch) -> None:
        logged = {key: value for key, value in metrics.items() if key not in ("epoch", "seconds")}
        self._run.log_metrics(logged, step=int(metrics["epoch"]))


class FiniteLoss(keras.callbacks.Callback):
    """Stops a training at the first batch whose loss is not finite.

    Keras's TerminateOnNaN makes the device wait for Python after each batch. Keras may call this one in
    another thread, which reads the losses while the next batches are computed.
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
        # Keras reports the epoch's mean so far, which then stays non-finite.
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
            while batch not in self._losses:  # the other thread has not handled it yet
                time.sleep(0.001)
            if not math.isfinite(self._losses[batch]):
                step = int(self.params["steps"]) * self._epoch + batch + 1
                raise InputError(
                    f"{self._name}: the loss is {self._losses[batch]} at batch {batch + 1} of epoch "
                    f"{self._epoch + 1} (step {step}); lower the learning rate or set clip_norm. The last "
                    "checkpoint is the one before this epoch."
                )


class EpochProgress(keras.callbacks.Callback):
    """Shows the progress of long epochs. Keras may call it in another thread, like `FiniteLoss`."""

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
    """Keeps the best epoch's weights, reduces the learning rate and stops early, by the monitored metric.

    Keras's callbacks for this cannot save and restore their state.

    Args:
        phase: The phase's config.
        variables: The variables that change during training.

    Attributes:
        best_epoch: The epoch with the highest metric so far, from 1; 0 for the start model.
        best: The values of the variables after that epoch.
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

    def begin(self, metrics: Epoch) -> None:
        """Records the current weights as the best so far."""
        self._score, self.best = self._phase.monitored_value(metrics), read_variables(self._variables)

    @override
    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        score = float(self._phase.monitored_value(logs or {}))
        if score > self._score:
            self.best_epoch, self._score = epoch + 1, score
            self.best = read_variables(self._variables)
            self._waited = self._rate_waited = 0
            return
        self._waited += 1
        self._rate_waited += 1
        if self._phase.schedule == "plateau" and self._rate_waited >= self._phase.reduce_rate_patience:
            self.model.optimizer.learning_rate = current_learning_rate(self.model.optimizer) / 2
            self._rate_waited = 0
        self.model.stop_training = self.finished

    @property
    def finished(self) -> bool:
        """Whether early stopping ends the training."""
        return 0 < self._waited >= self._phase.early_stopping_patience

    def state(self) -> ProgressState:
        """The state for `restore`, without the best weights."""
        return ProgressState(
            best_epoch=self.best_epoch,
            score=self._score,
            waited=self._waited,
            rate_waited=self._rate_waited,
        )

    def restore(self, state: ProgressState, best: list[np.ndarray]) -> None:
        """Restores the `state` of a killed process."""
        self.best_epoch, self._score = state.best_epoch, state.score
        self._waited, self._rate_waited = state.waited, state.rate_waited
        self.best = best

    def restore_best(self) -> None:
        """Sets the variables to the best epoch's values."""
        write_variables(self._variables, self.best)


class Preemption(keras.callbacks.Callback):
    """Ends the process with exit code 143 on SIGTERM, which a pod gets some seconds before it is killed.

    Between the first and the last batch, the current batch is finished first; otherwise the process ends at
    once. `Checkpointer` waits for a checkpoint that is being written. Files that are published by renaming
    stay complete or absent.
    """

    def __init__(self) -> None:
        super().__init__()
        self._received = False
        self._batches = 0
        self._previous: Any = None

    def __enter__(self) -> "Preemption":
        # Only Python's main thread can set signal handlers.
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
        self._end_if_received()

    @override
    def on_test_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._end_if_received()

    @override
    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._batches = 0
        self._end_if_received()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        logging.warning("SIGTERM: the training stops; when restarted, it resumes from its last checkpoint.")
        self._received = True
        # The first batch takes long, since it includes building the graph.
        if self._batches < 2:
            raise SystemExit(TERMINATED)

    def _end_if_received(self) -> None:
        if self._received:
            raise SystemExit(TERMINATED)


def current_learning_rate(optimizer: keras.optimizers.Optimizer) -> float:
    """The learning rate of the next step."""
    return float(keras.ops.convert_to_numpy(optimizer.learning_rate))


def read_variables(variables: list[keras.Variable]) -> list[np.ndarray]:
    """Copies of the values of variables."""
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def write_variables(variables: list[keras.Variable], values: list[np.ndarray]) -> None:
    """Sets the values of variables."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
