"""The model artifact: a Keras file without optimizer state, and a description.

model.keras     loaded by `brain_tumor.model.saving.load_model`; this module does not import Keras
model.json      `ModelDescription`
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
"""An epoch's figures: `epoch` (from 1; 0 is the start model), `seconds`, `learning_rate`, and Keras's losses
and metrics."""


class TrainedPhase(Schema):
    """One training that a model went through."""

    name: str
    config: dict[str, Any]
    """Its config, defaults included."""
    trainable_layers: int
    """Number of backbone layers that were trained."""
    epochs: list[Epoch]
    best_epoch: int
    """The epoch, from 1, whose weights the model has; 0 for those before training."""
    seconds: float


class Backbone(Schema):
    """The backbone as it was before any training."""

    name: str
    weights: str
    """Its initial weights."""


class ModelDescription(Schema):
    """The description of a model."""

    title: str
    """The model's title in reports."""
    labels: list[str]
    """In slot order."""
    heads: list[Head]
    image_size: int
    """Side in pixels."""
    notice: str
    """A notice about the data that every report must show, or an empty string."""
    backbone: Backbone
    box_head: str
    phases: list[TrainedPhase]
    """The trainings, oldest first."""
    metrics: dict[str, float]
    """The last phase's figures at its best epoch."""
    mlflow_run_id: str
    """The MLflow run that trained the model, or an empty string."""


class ModelManifest(Manifest):
    """The manifest of the model artifact."""

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
        """The description of the model."""
        return read_json(ModelDescription, self.path / DESCRIPTION_FILE)


def open_model(path: str | Path) -> Model:
    """Opens a model artifact.

    Raises:
        InputError: There is no complete model artifact at `path`.
    """
    return Model(Path(path), read_manifest(path, ModelManifest))


def write_model(path: str | Path, description: ModelDescription, save: Callable[[Path], Any]) -> None:
    """Publishes a model artifact, see `publish`.

    Args:
        path: The artifact's folder.
        description: The description of the model.
        save: Writes the Keras file, without the optimizer's state, which is twice the size of the weights.
    """
    with publish(path, ModelManifest) as draft:
        save(draft.path / MODEL_FILE)
        write_json(draft.path / DESCRIPTION_FILE, description.model_dump(mode="json"))
        draft.manifest = ModelManifest()
