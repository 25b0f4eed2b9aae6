"""Saves checkpoints during training, in a background thread."""

import logging
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import keras
from typing_extensions import override

from brain_tumor.training.callbacks import BestEpoch, EpochLog, read_variables, write_variables
from brain_tumor.training.checkpoints import OPTIMIZER, VARIABLES, Checkpoint, Checkpoints, TrainingState


class Checkpointer(keras.callbacks.Callback):
    """Saves the training's state after each epoch, and restores it.

    The arrays are copied at an epoch's end, and a thread writes them during the next epoch. There is at most
    one copy: the end of an epoch waits until the previous checkpoint is written.

    It is a context manager around the training, whose exit waits for the checkpoint that is being written. An
    error in the thread is raised at the next epoch's end or on exit, or logged if another error is raised.

    Args:
        checkpoints: The store of the checkpoints.
        variables: The variables that change during training, with their initial values.
        log: The metrics of the epochs.
        progress: The best epoch. Both callbacks must run before this one.
    """

    def __init__(
        self, checkpoints: Checkpoints, variables: list[keras.Variable], log: EpochLog, progress: BestEpoch
    ) -> None:
        super().__init__()
        self._checkpoints = checkpoints
        self._variables = variables
        self._log = log
        self._progress = progress
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._written: Future[None] | None = None

    def __enter__(self) -> "Checkpointer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._writer:
            if error is None:
                self._wait()
            elif self._written and (failure := self._written.exception()) not in (None, error):
                logging.error("The last checkpoint could not be written: %s", failure, exc_info=failure)

    @override
    def on_epoch_end(self, epoch: int, logs: dict[str, object] | None = None) -> None:
        self._wait()
        best = self._progress.best_epoch == epoch + 1
        arrays = {
            # `BestEpoch` has just copied them, and never changes its copy.
            VARIABLES: self._progress.best if best else read_variables(self._variables),
            OPTIMIZER: read_variables(self.model.optimizer.variables),
        }
        state = TrainingState(
            epochs=list(self._log.epochs),  # copied, since the list grows before the thread writes it
            progress=self._progress.state(),
            mlflow_run_id=self._log.run_id,
        )
        self._written = self._writer.submit(self._checkpoints.save, epoch + 1, Checkpoint(state, arrays))

    def _wait(self) -> None:
        """Waits for the thread, and raises its error."""
        if self._written:
            self._written.result()
            self._written = None

    def restore(self, optimizer: keras.optimizers.Optimizer) -> None:
        """Restores the latest complete checkpoint, if there is one."""
        checkpoint = self._checkpoints.load()
        if checkpoint is None:
            return
        # As long as no epoch is better than the start model, the best weights are the initial ones.
        best = read_variables(self._variables) if checkpoint.best is None else checkpoint.best
        write_variables(self._variables, checkpoint.arrays[VARIABLES])
        write_variables(optimizer.variables, checkpoint.arrays[OPTIMIZER])
        self._progress.restore(checkpoint.state.progress, best)
        self._log.restore(checkpoint.state.epochs, checkpoint.state.mlflow_run_id)
        logging.info("Resumes after epoch %d from %s", self._log.done, self._checkpoints.folder)
