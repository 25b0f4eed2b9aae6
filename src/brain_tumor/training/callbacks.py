"""Keras callbacks of the trainer."""

import logging
import math
import time
from typing import Any

import keras

from brain_tumor.tracking import Run


class EpochLog(keras.callbacks.Callback):
    """Writes a line an epoch, sends its figures to MLflow, and keeps them.

    Attributes:
        epochs: One dict an epoch: `epoch` (from 1), `seconds`, `learning_rate` and Keras's losses and
            metrics.
    """

    def __init__(self, name: str, run: Run) -> None:
        super().__init__()
        self.epochs: list[dict[str, float]] = []
        self._name = name
        self._run = run
        self._started = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        figures = {key: float(value) for key, value in sorted((logs or {}).items())}
        figures["learning_rate"] = float(self.model.optimizer.learning_rate)
        seconds = time.perf_counter() - self._started
        shown = "  ".join(f"{key} {value:.4g}" for key, value in figures.items())
        logging.info(
            "%s: epoch %d/%d in %.1f s  %s", self._name, epoch + 1, self.params["epochs"], seconds, shown
        )
        broken = [key for key, value in figures.items() if not math.isfinite(value)]
        if broken:
            raise FloatingPointError(
                f"{self._name}: {broken[0]} is not finite after epoch {epoch + 1}; lower the learning rate."
            )
        self._run.log_metrics(figures, step=epoch + 1)
        self.epochs.append({"epoch": epoch + 1, "seconds": round(seconds, 3), **figures})
