"""The predictions artifact: one row an image, class and model. All figures and pictures come from it.

predictions.parquet     see `Predictions`
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from brain_tumor.artifacts.dataset import Leakage
from brain_tumor.artifacts.folder import Manifest, publish, read_manifest
from brain_tumor.artifacts.model import Epoch
from brain_tumor.artifacts.records import SplitRecords
from brain_tumor.artifacts.tables import COORDINATES, read_table
from brain_tumor.config import Head, Schema, Split

TABLE = "predictions.parquet"
# In pixels of the original image; the true box as the export has it.
TRUE_BOX = [f"true_{name}" for name in COORDINATES]
PREDICTED_BOX = [f"pred_{name}" for name in COORDINATES]


class JudgedData(Schema):
    """The data that the models were trained and are judged on."""

    source: str
    splits: dict[Split, SplitRecords]
    class_counts: dict[Split, dict[str, int]]
    """Images that show a label, by split and label."""
    leakage: Leakage


class PredictingModel(Schema):
    """A model whose answers the table holds."""

    title: str
    """What a person calls it."""
    heads: list[Head]
    mlflow_run_id: str
    """The run that made it, or an empty text."""
    trainings: dict[str, list[Epoch]]
    """The epochs of the trainings that it went through, by the training's name, oldest first."""
    configs: dict[str, dict[str, Any]] = {}
    """Their configs, defaults included."""


class PredictionsManifest(Manifest):
    """What the predictions artifact says of itself."""

    kind: Literal["predictions"] = "predictions"
    labels: list[str]
    """In slot order."""
    notice: str
    """What every report must say about the data, or an empty text."""
    models: dict[str, PredictingModel]
    """By the name that the table's rows have, in the order of the reports: `final`, the models beside it, and
    `constant`, which says of every image that every label is present, with the training set's mean box of
    each."""
    config: dict[str, Any]
    """The step's config, defaults included."""
    data: JudgedData | None = None
    """None where nobody knows."""


@dataclass(frozen=True)
class Predictions:
    """A predictions artifact, opened.

    Attributes:
        path: Its folder.
        manifest: Its manifest.
    """

    path: Path
    manifest: PredictionsManifest

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row a model, image and label, of valid and of the split that is judged.

        Images stand in the records' order, labels in slot order.

        Columns: model, split, source_id, filename, patient_id, slice (nullable integer), width, height (of
        the original image), label, present, `TRUE_BOX` (missing where the label is absent), probability
        (missing if the model has no class head), `PREDICTED_BOX` and its score, 0..1, by which
        the boxes of a label are ranked (missing if it has no box head), iou (of the
        true box with the predicted one, missing where one of them is).
        """
        return read_table(self.path / TABLE)


def open_predictions(path: str | Path) -> Predictions:
    """Opens what `evaluate` made.

    Raises:
        InputError: There is no whole predictions artifact at `path`.
    """
    return Predictions(Path(path), read_manifest(path, PredictionsManifest))


def write_predictions(path: str | Path, table: pd.DataFrame, manifest: PredictionsManifest) -> Predictions:
    """Publishes a predictions artifact, see `publish`."""
    with publish(path, PredictionsManifest) as draft:
        table.to_parquet(draft.path / TABLE, index=False)
        draft.manifest = manifest
    return open_predictions(path)


def has_class_head(predictions: pd.DataFrame) -> bool:
    """Whether the model that made these rows predicts labels."""
    return bool(predictions["probability"].notna().all())


def has_box_head(predictions: pd.DataFrame) -> bool:
    """Whether the model that made these rows predicts boxes."""
    return bool(predictions[PREDICTED_BOX].notna().all(axis=None))
