"""The model artifact: a Keras file without optimizer state, and what one must know to use it.

model.keras     loaded by `brain_tumor.model.saving.load_model`, since Keras is imported only to compute with
it model.json      `ModelDescription`
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from brain_tumor.artifacts.folder import Manifest, publish, read_json, read_manifest
from brain_tumor.config import Head, Schema
from brain_tumor.stores.files import write_json

MODEL_FILE = "model.keras"
DESCRIPTION_FILE = "model.json"

Epoch = dict[str, float]
"""An epoch's figures: `epoch` (from 1), `seconds`, `learning_rate`, and Keras's losses and metrics."""


class TrainedPhase(Schema):
    """One training that a model went through."""

    name: str
    config: dict[str, Any]
    """Its config, defaults included."""
    trainable_layers: int
    """How many of the backbone's layers learned."""
    epochs: list[Epoch]
    best_epoch: int
    """The one whose weights the model has, from 1."""
    seconds: float


class Backbone(Schema):
    """The backbone as it was before any training."""

    name: str
    weights: str
    """Its start weights."""


class ModelDescription(Schema):
    """What a model artifact says of its model."""

    title: str
    """What a person calls the model."""
    labels: list[str]
    """In slot order."""
    heads: list[Head]
    image_size: int
    """In pixels."""
    notice: str
    """What every report must say about the data, or an empty text."""
    backbone: Backbone
    box_head: str
    phases: list[TrainedPhase]
    """The trainings, oldest first."""
    metrics: dict[str, float]
    """The last phase's figures at its best epoch."""
    mlflow_run_id: str
    """The run that made the model, or an empty text."""


class ModelManifest(Manifest):
    """What the model artifact says of its folder."""

    kind: Literal["model"] = "model"


@dataclass(frozen=True)
class Model:
    """A model artifact, opened.

    Attributes:
        path: Its folder.
        manifest: Its manifest.
    """

    path: Path
    manifest: ModelManifest

    @property
    def keras_file(self) -> Path:
        """The Keras model."""
        return self.path / MODEL_FILE

    @cached_property
    def description(self) -> ModelDescription:
        """What one must know of it."""
        return read_json(ModelDescription, self.path / DESCRIPTION_FILE)


def open_model(path: str | Path) -> Model:
    """Opens what `train` made.

    Raises:
        InputError: There is no whole model artifact at `path`.
    """
    return Model(Path(path), read_manifest(path, ModelManifest))


def write_model(path: str | Path, description: ModelDescription, save: Callable[[Path], Any]) -> None:
    """Publishes a model artifact, see `publish`.

    Args:
        path: The artifact's folder.
        description: What one must know of the model.
        save: Writes the Keras file. The optimizer's state is no part of it, and twice the model's size.
    """
    with publish(path, ModelManifest) as draft:
        save(draft.path / MODEL_FILE)
        write_json(draft.path / DESCRIPTION_FILE, description.model_dump(mode="json"))
        draft.manifest = ModelManifest()
