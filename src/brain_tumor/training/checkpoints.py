"""Checkpoints: the state from which a killed training resumes with the same result.

They are stored outside the pod, whose disk is lost on a restart: in the folder or bucket address that
`BRAIN_TUMOR_CHECKPOINTS` names. If it is not set, there are none. Each training has its own folder, named by
a hash of everything that its result depends on:

    epoch-00003/  epoch-00004/    the last two finished epochs
    epoch-00002/                  the best epoch as of each, for its weights
    model/                        the finished model, which replaces them
"""

import hashlib
import json
import logging
import os
import re
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from brain_tumor.artifacts.folder import MANIFEST, Manifest, artifact_id, publish
from brain_tumor.artifacts.model import Epoch, Model, ModelManifest
from brain_tumor.artifacts.records import Records
from brain_tumor.artifacts.transfer import local_copy
from brain_tumor.config import Schema, TrainConfig, from_json
from brain_tumor.runtime import environment
from brain_tumor.runtime.drafts import delete_abandoned, is_draft
from brain_tumor.runtime.errors import DamagedError, InputError, os_errors_explained
from brain_tumor.stores.files import write_json
from brain_tumor.stores.folders import delete_folder, list_files, read_file
from brain_tumor.stores.paths import AnyPath, open_path

EPOCH = "epoch-"
MODEL = "model"
STATE_FILE = "state.json"
# Names of arrays: the model's variables that change during training, and the optimizer's variables.
VARIABLES = "variables"
OPTIMIZER = "optimizer"
# A training's folder and its content, including drafts. A bucket may have other objects as well.
TRAINING = r".+-[0-9a-f]{16}"
CONTENT = rf"({EPOCH}\d|{MODEL}/|\.)"


class CheckpointManifest(Manifest):
    """The manifest of a checkpoint."""

    kind: Literal["checkpoint"] = "checkpoint"


class ProgressState(Schema):
    """The progress of the monitored metric."""

    best_epoch: int
    """The epoch with the highest metric, from 1; 0 for the start model."""
    score: float
    """That metric's value."""
    waited: int
    """Epochs without improvement."""
    rate_waited: int
    """Epochs without improvement since the learning rate was last halved."""


class TrainingState(Schema):
    """A training's state after an epoch, except the arrays."""

    epochs: list[Epoch]
    """The metrics of each epoch so far."""
    progress: ProgressState
    mlflow_run_id: str
    """The id of its MLflow run, or an empty string."""


@dataclass(frozen=True)
class Checkpoint:
    """A training's state after an epoch.

    Attributes:
        state: The state except the arrays.
        arrays: Lists of arrays by name: `variables`, `optimizer`.
        best: The `variables` after the best epoch, read by `Checkpoints.load` from that epoch's checkpoint;
            None for the start model.
    """

    state: TrainingState
    arrays: dict[str, list[np.ndarray]]
    best: list[np.ndarray] | None = None


class Checkpoints:
    """The checkpoints of one training.

    Args:
        address: Their folder, or its gs:// or s3:// address.

    Raises:
        InputError: There are no credentials for the bucket.
    """

    def __init__(self, address: str) -> None:
        self.folder = open_path(address)

    def save(self, epoch: int, checkpoint: Checkpoint) -> None:
        """Saves the state after an epoch (from 1).

        Keeps this checkpoint, the previous one, and those of their best epochs; deletes all others, including
        later ones that `load` skipped.
        """

        def write(folder: Path) -> None:
            write_json(folder / STATE_FILE, checkpoint.state.model_dump(mode="json"))
            for name, arrays in checkpoint.arrays.items():
                np.savez(folder / f"{name}.npz", *arrays)

        name = _epoch_name(epoch)
        self._put(name, CheckpointManifest(), write)
        *_, previous = ["", *(other for other in self._epochs() if other < name)]
        needed = [name, previous, _best_name(checkpoint.state), self._best_of(previous)]
        self._keep([each for each in needed if each])

    def load(self) -> Checkpoint | None:
        """Loads the latest complete checkpoint, or returns None.

        A checkpoint is skipped with a warning if it or that of its best epoch is damaged.

        Raises:
            InputError: A checkpoint cannot be read for a reason other than damage.
        """
        epochs = self._epochs()
        for name in reversed(epochs):
            try:
                state, arrays = self._read(name)
                best = _best_name(state)
                others = arrays if best == name else self._read(best, VARIABLES)[1] if best else {}
                return Checkpoint(state, arrays, others.get(VARIABLES))
            except DamagedError as error:
                logging.warning("The checkpoint %s/%s is damaged: %s", self.folder, name, error)
        if epochs:
            logging.warning("No checkpoint in %s is complete; the training starts over.", self.folder)
        return None

    def keep_model(self, model: Path) -> None:
        """Saves the finished training's model artifact, and deletes the epochs' checkpoints."""
        self._put(MODEL, ModelManifest(), lambda folder: _copy_files(model, folder))
        self._keep([MODEL])

    def restore_model(self, output: Path) -> bool:
        """Publishes the model artifact of a finished training to `output`.

        Returns:
            False if there is none or it is damaged.

        Raises:
            InputError: It cannot be read, or `output` cannot be written.
        """
        if MODEL not in self._names():
            return False
        try:
            with (
                local_copy(self.folder / MODEL, ModelManifest) as folder,
                publish(output, ModelManifest) as draft,
            ):
                _copy_files(folder, draft.path)
                draft.manifest = ModelManifest()
        except DamagedError as error:
            logging.warning(
                "The finished model %s/%s is damaged; the training is repeated: %s",
                self.folder,
                MODEL,
                error,
            )
            return False
        return True

    def _read(self, name: str, wanted: str = "*") -> tuple[TrainingState, dict[str, list[np.ndarray]]]:
        """Reads an epoch's state and arrays; `wanted` is a pattern of the arrays' names.

        Raises:
            DamagedError: The checkpoint is incomplete or damaged.
            InputError: It cannot be read for another reason.
        """
        try:
            with local_copy(self.folder / name, CheckpointManifest) as folder:
                state = _parse_state((folder / STATE_FILE).read_bytes(), f"{self.folder}/{name}")
                return state, {file.stem: _read_arrays(file) for file in folder.glob(f"{wanted}.npz")}
        except FileNotFoundError as error:  # deleted by another process of the same training
            raise DamagedError(f"{error.filename} does not exist.") from error

    def _best_of(self, name: str) -> str:
        """The name of the best epoch's checkpoint as of checkpoint `name`; an empty string if none."""
        content = read_file(self.folder / name / STATE_FILE) if name else None
        try:
            return _best_name(_parse_state(content, f"{self.folder}/{name}")) if content else ""
        except DamagedError:
            return ""

    def _epochs(self) -> list[str]:
        return sorted(name for name in self._names() if name.startswith(EPOCH))

    def _names(self) -> list[str]:
        """The names of all checkpoints with a manifest, which is written last."""
        with os_errors_explained(self.folder):
            found = [facts.name.split("/") for facts in list_files(self.folder)]
        # A local draft has its manifest shortly before it is renamed.
        return [parts[0] for parts in found if parts[1:] == [MANIFEST] and not parts[0].startswith(".")]

    def _put(self, name: str, manifest: Manifest, write: Callable[[Path], None]) -> None:
        with publish(self.folder / name) as draft:
            write(draft.path)
            draft.manifest = manifest

    def _keep(self, names: list[str]) -> None:
        """Deletes everything else, including drafts of killed processes, but not drafts of running ones."""
        found = {facts.name.split("/")[0] for facts in list_files(self.folder)}
        for name in found.difference(names):
            if not is_draft(name):
                delete_folder(self.folder / name, MANIFEST)
        if isinstance(self.folder, Path):
            delete_abandoned(self.folder)


def open_checkpoints(config: TrainConfig, records: Records, start: Model | None) -> Checkpoints | None:
    """The checkpoints of a training, or None if `BRAIN_TUMOR_CHECKPOINTS` is not set.

    Their folder's name has a hash of the whole config, the image's tag (`BRAIN_TUMOR_IMAGE`), the records and
    the start model, so that a training resumes only from its own checkpoints.
    """
    root = os.environ.get(environment.CHECKPOINTS, "").rstrip("/")
    if not root:
        return None
    parts = [
        json.dumps(config.model_dump(mode="json"), sort_keys=True),
        os.environ.get(environment.IMAGE, ""),
    ]
    parts += [artifact_id(artifact.path) for artifact in (records, start) if artifact]
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
    return Checkpoints(f"{root}/{config.name}-{key}")


def delete_old_checkpoints(root: str, before: float) -> list[AnyPath]:
    """Deletes the checkpoints of trainings that last changed before a point in time.

    The age of a training's checkpoints is that of their newest file. Other files below the root are kept.

    Args:
        root: The folder or address in a bucket that holds them.
        before: The point in time, in seconds since 1970.

    Returns:
        The deleted folders, one per training.

    Raises:
        InputError: The root cannot be read, or checkpoints cannot be deleted.
    """
    folder = open_path(root)
    changed: dict[str, float] = {}
    for facts in list_files(folder):
        training, _, rest = facts.name.partition("/")
        if re.fullmatch(TRAINING, training) and re.match(CONTENT, rest):
            changed[training] = max(changed.get(training, 0), facts.changed)
    old = [training for training, moment in sorted(changed.items()) if moment < before]
    for training in old:
        delete_folder(folder / training, MANIFEST)
    return [folder / training for training in old]


def _epoch_name(epoch: int) -> str:
    return f"{EPOCH}{epoch:05d}"


def _best_name(state: TrainingState) -> str:
    """The name of the best epoch's checkpoint; an empty string for the start model."""
    best = state.progress.best_epoch
    return _epoch_name(best) if best else ""


def _parse_state(content: bytes, origin: str) -> TrainingState:
    try:
        return from_json(TrainingState, content, f"{origin}/{STATE_FILE}")
    except InputError as error:
        raise DamagedError(str(error)) from None


def _read_arrays(path: Path) -> list[np.ndarray]:
    try:
        with np.load(path) as file:
            return [file[f"arr_{index}"] for index in range(len(file.files))]
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DamagedError(f"{path.name} is not a valid .npz file: {error}") from error


def _copy_files(source: Path, target: Path) -> None:
    """Copies an artifact's files without the manifest.

    Files are hard-linked if on the same disk, since artifacts never change.
    """
    for file in source.iterdir():
        if file.name != MANIFEST:
            try:
                os.link(file, target / file.name)
            except OSError:
                shutil.copyfile(file, target / file.name)
