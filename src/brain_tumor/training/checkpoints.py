"""Checkpoints: what a training that was killed needs to go on as if nothing had happened.

They live outside of the step's own disk, which a restarted pod does not get back: below the root that
`BRAIN_TUMOR_CHECKPOINTS` names, a folder or gs://bucket/path. Without it a training keeps none. Each training
has its own place there, named by a hash of all that its result depends on:

    epoch-00003/  epoch-00004/    the last two finished epochs
    model/                        the finished model, in their place
"""

import hashlib
import json
import logging
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from brain_tumor.artifacts.folder import MANIFEST, Manifest, artifact_id, check_files, publish, read_manifest
from brain_tumor.artifacts.model import Epoch, Model, ModelManifest
from brain_tumor.artifacts.records import Records
from brain_tumor.artifacts.transfer import download, upload
from brain_tumor.config import Schema, TrainConfig, from_json
from brain_tumor.config.fields import is_bucket
from brain_tumor.runtime.errors import InputError
from brain_tumor.stores.buckets import open_bucket
from brain_tumor.stores.files import write_json

ROOT = "BRAIN_TUMOR_CHECKPOINTS"
IMAGE = "BRAIN_TUMOR_IMAGE"
KEPT = 2
EPOCH = "epoch-"
MODEL = "model"
STATE_FILE = "state.json"
# What reading a damaged file raises, beside the error of one that is not the one of its manifest.
DAMAGES = (InputError, OSError, ValueError, KeyError, zipfile.BadZipFile)


class CheckpointManifest(Manifest):
    """What a checkpoint says of its folder."""

    kind: Literal["checkpoint"] = "checkpoint"


class ProgressState(Schema):
    """How the monitored figure has gone so far."""

    best_epoch: int
    """The epoch with the highest figure, from 1; 0 before the first."""
    score: float
    """That figure."""
    waited: int
    """Epochs without improvement."""
    rate_waited: int
    """Epochs without improvement since the learning rate was last halved."""


class TrainingState(Schema):
    """What a training knows after an epoch beside its arrays."""

    epochs: list[Epoch]
    """The figures of each epoch so far."""
    progress: ProgressState
    mlflow_run_id: str
    """The run that it is tracked in, or an empty text."""


@dataclass(frozen=True)
class Checkpoint:
    """A training after an epoch.

    Attributes:
        state: What is no array.
        arrays: Lists of arrays by name, such as the weights.
    """

    state: TrainingState
    arrays: dict[str, list[np.ndarray]]


class Checkpoints:
    """The checkpoints of one training.

    Args:
        address: Their folder or gs:// address.
    """

    def __init__(self, address: str) -> None:
        self.address = address

    def save(self, epoch: int, checkpoint: Checkpoint) -> None:
        """Keeps the state after an epoch (from 1), and of the earlier ones only the one before it."""

        def write(folder: Path) -> None:
            write_json(folder / STATE_FILE, checkpoint.state.model_dump(mode="json"))
            for name, arrays in checkpoint.arrays.items():
                np.savez(folder / f"{name}.npz", *arrays)

        self._put(f"{EPOCH}{epoch:05d}", CheckpointManifest(), write)
        self._delete(self._epochs()[:-KEPT])

    def load(self) -> Checkpoint | None:
        """The latest state that is whole, or None. A damaged one is passed over with a warning."""
        for name in reversed(self._epochs()):
            try:
                with self._get(name, CheckpointManifest) as folder:
                    file = folder / STATE_FILE
                    state = from_json(TrainingState, file.read_bytes(), str(file))
                    return Checkpoint(state, {file.stem: _read_arrays(file) for file in folder.glob("*.npz")})
            except DAMAGES as error:
                logging.warning(
                    "The checkpoint %s/%s is damaged, the one before it is taken: %s",
                    self.address,
                    name,
                    error,
                )
        return None

    def keep_model(self, model: Path) -> None:
        """Keeps the finished training's model artifact, and deletes the epochs."""
        self._put(MODEL, ModelManifest(), lambda folder: _copy_files(model, folder))
        self._delete(self._epochs())

    def restore_model(self, output: Path) -> bool:
        """Publishes the model artifact of a finished training; False if there is none, or a damaged one."""
        if MODEL not in self._names():
            return False
        try:
            with self._get(MODEL, ModelManifest) as folder, publish(output) as draft:
                _copy_files(folder, draft.path)
                draft.manifest = ModelManifest()
        except DAMAGES as error:
            logging.warning(
                "The finished model %s/%s is damaged, the training is done again: %s",
                self.address,
                MODEL,
                error,
            )
            return False
        return True

    def _epochs(self) -> list[str]:
        return sorted(name for name in self._names() if name.startswith(EPOCH))

    def _names(self) -> list[str]:
        """What is there and whole, as far as one can tell without reading it: the manifest comes last."""
        if is_bucket(self.address):
            with open_bucket(self.address) as (bucket, prefix):
                blobs = [blob.name.split("/") for blob in bucket.list_blobs(prefix=f"{prefix}/")]
            return [parts[-2] for parts in blobs if parts[-1] == MANIFEST]
        return [path.parent.name for path in Path(self.address).glob(f"[!.]*/{MANIFEST}")]

    def _put(self, name: str, manifest: Manifest, write: Callable[[Path], None]) -> None:
        in_bucket = is_bucket(self.address)
        with tempfile.TemporaryDirectory() if in_bucket else nullcontext(self.address) as parent:
            folder = Path(parent) / name
            with publish(folder) as draft:
                write(draft.path)
                draft.manifest = manifest
            if in_bucket:
                # Another one under this name is one that was found to be damaged.
                self._delete([name])
                upload(folder, f"{self.address}/{name}")

    @contextmanager
    def _get(self, name: str, schema: type[Manifest]) -> Iterator[Path]:
        """Yields a folder with the files, each of them the one of its manifest."""
        if not is_bucket(self.address):
            folder = Path(self.address) / name
            check_files(folder, read_manifest(folder, schema))
            yield folder
            return
        with tempfile.TemporaryDirectory() as scratch:
            download(f"{self.address}/{name}", Path(scratch) / name)
            yield Path(scratch) / name

    def _delete(self, names: list[str]) -> None:
        if not is_bucket(self.address):
            # What a killed process was writing, under a temporary name, goes too.
            for path in [*(Path(self.address) / name for name in names), *Path(self.address).glob(".*")]:
                shutil.rmtree(path, ignore_errors=True)
            return
        for name in names:
            with open_bucket(f"{self.address}/{name}") as (bucket, prefix):
                blobs = list(bucket.list_blobs(prefix=f"{prefix}/"))
                # The manifest first: what is left when this is killed is no checkpoint.
                for blob in sorted(blobs, key=lambda blob: not blob.name.endswith(f"/{MANIFEST}")):
                    blob.delete()


def open_checkpoints(config: TrainConfig, records: Records, start: Model | None) -> Checkpoints | None:
    """The checkpoints of a training, or None where the environment names no root for them.

    Their place depends on the whole config, the image's tag (`BRAIN_TUMOR_IMAGE`), the records and the start
    model, so that a training goes on from none but its own.
    """
    root = os.environ.get(ROOT, "").rstrip("/")
    if not root:
        return None
    parts = [json.dumps(config.model_dump(mode="json"), sort_keys=True), os.environ.get(IMAGE, "")]
    parts += [artifact_id(artifact.path) for artifact in (records, start) if artifact]
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
    return Checkpoints(f"{root}/{config.name}-{key}")


def _read_arrays(path: Path) -> list[np.ndarray]:
    with np.load(path) as file:
        return [file[f"arr_{index}"] for index in range(len(file.files))]


def _copy_files(source: Path, target: Path) -> None:
    """Copies an artifact's files, all but the manifest, which is made anew.

    Artifacts never change, so on one disk a second name for the same bytes will do.
    """
    for file in source.iterdir():
        if file.name != MANIFEST:
            try:
                os.link(file, target / file.name)
            except OSError:
                shutil.copyfile(file, target / file.name)
