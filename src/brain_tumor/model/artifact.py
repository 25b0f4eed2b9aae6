"""The model artifact: a Keras file without optimizer state, and what one must know to use it.

Keras is imported only by what loads or saves a model: reading a description must not start TensorFlow.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brain_tumor.storage import publish, read_manifest, write_json

if TYPE_CHECKING:
    import keras

MODEL_FILE = "model.keras"
DESCRIPTION_FILE = "model.json"


def save_model(model: "keras.Model", description: dict[str, Any], output: str | Path) -> None:
    """Publishes a model artifact.

    Args:
        model: The detector, not compiled: the optimizer's state is no part of a model, and twice its size.
        description: See `read_description`.
        output: The artifact's folder.
    """
    with publish(output, "model") as draft:
        model.save(draft.path / MODEL_FILE)
        write_json(draft.path / DESCRIPTION_FILE, description)


def load_model(path: str | Path) -> "keras.Model":
    """Loads the Keras model of a model artifact, ready for predictions.

    Raises:
        InputError: There is no whole model artifact at `path`.
    """
    read_manifest(path, "model")
    import keras

    # A .keras file names the head's own layer, which is registered by its module.
    import brain_tumor.model.heads  # noqa: F401

    return keras.saving.load_model(Path(path) / MODEL_FILE, compile=False)


def read_description(path: str | Path) -> dict[str, Any]:
    """Reads what a model artifact says of its model.

    Returns:
        A dict with
        `title`: what a person calls the model,
        `labels`: their names in slot order,
        `heads`: those it has,
        `image_size`: in pixels,
        `notice`: what every report must say about the data, or an empty text,
        `backbone`: its name and start weights,
        `phases`: one dict a training, oldest first, with `name`, `config`, `epochs` (a dict of figures each),
        `best_epoch`, `trainable_layers` and `seconds`,
        `metrics`: the last phase's, at its best epoch,
        `mlflow_run_id`: the run that made the model, or an empty text.

    Raises:
        InputError: There is no whole model artifact at `path`.
    """
    read_manifest(path, "model")
    description: dict[str, Any] = json.loads((Path(path) / DESCRIPTION_FILE).read_text())
    return description


def read_histories(paths: Sequence[str | Path]) -> dict[str, list[dict[str, float]]]:
    """The epochs of every training that stands behind some model artifacts, by the training's name."""
    phases = [phase for path in paths for phase in read_description(path)["phases"]]
    return {phase["name"]: phase["epochs"] for phase in phases}
