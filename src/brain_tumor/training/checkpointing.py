"""Keeping a training's checkpoints while it runs: copied between the epochs, written beside the next one."""

import logging
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import keras
from typing_extensions import override

from brain_tumor.training.callbacks import BestEpoch, EpochLog, read, write
from brain_tumor.training.checkpoints import OPTIMIZER, VARIABLES, Checkpoint, Checkpoints, TrainingState


class Checkpointer(keras.callbacks.Callback):
    """Saves the training's state after each epoch, and brings it back.

    The arrays are copied at the epoch's end, and a thread writes them while the next epoch learns. At most
    one such copy exists: an epoch's end waits for what the one before it still writes.

    It surrounds the training (`with`): at the training's end, whatever ends it, what is being written is
    waited for. What went wrong in the thread is raised at the next epoch's end or here; beside another error,
    which passes on, it is logged.

    Args:
        checkpoints: Where.
        variables: What the training changes, with the values that it starts with.
        log: Has the figures of the epochs.
        progress: Has run before this in every epoch.
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
            # The best epoch's weights have just been copied, and nobody changes the copy.
            VARIABLES: self._progress.best if best else read(self._variables),
            OPTIMIZER: read(self.model.optimizer.variables),
        }
        state = TrainingState(
            epochs=list(self._log.epochs),  # as they are now, not when the thread comes to write them
            progress=self._progress.state(),
            mlflow_run_id=self._log.run_id,
        )
        self._written = self._writer.submit(self._checkpoints.save, epoch + 1, Checkpoint(state, arrays))

    def _wait(self) -> None:
        """Waits until nothing is being written, and raises what went wrong in it."""
        if self._written:
            self._written.result()
            self._written = None

    def restore(self, optimizer: keras.optimizers.Optimizer) -> None:
        """Takes up the latest whole checkpoint, if there is one."""
        checkpoint = self._checkpoints.load()
        if checkpoint is None:
            return
        # Until an epoch is better than the start model, the best weights are those that are there already.
        best = read(self._variables) if checkpoint.best is None else checkpoint.best
        write(self._variables, checkpoint.arrays[VARIABLES])
        write(optimizer.variables, checkpoint.arrays[OPTIMIZER])
        self._progress.restore(checkpoint.state.progress, best)
        self._log.restore(checkpoint.state.epochs, checkpoint.state.mlflow_run_id)
        logging.info("Goes on after epoch %d from %s", self._log.done, self._checkpoints.folder)
