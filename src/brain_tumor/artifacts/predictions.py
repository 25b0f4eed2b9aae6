"""The predictions artifact: one row per image, class and model. All figures and plots are made from it.

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
# In pixels of the original image; the true box unrounded, as in the export.
TRUE_BOX = [f"true_{name}" for name in COORDINATES]
PREDICTED_BOX = [f"pred_{name}" for name in COORDINATES]


class EvaluationData(Schema):
    """The data that the models were trained and evaluated on."""

    source: str
    splits: dict[Split, SplitRecords]
    class_counts: dict[Split, dict[str, int]]
    """The number of images that show a label, by split and label."""
    leakage: Leakage


class PredictingModel(Schema):
    """A model whose predictions the table holds."""

    title: str
    """The model's title in reports."""
    heads: list[Head]
    mlflow_run_id: str
    """The MLflow run that trained it, or an empty string."""
    artifact: str = ""
    """The model artifact, see `artifact_id`; empty if there is none."""
    trainings: dict[str, list[Epoch]]
    """The epochs of the trainings that it went through, by the training's name, oldest first."""
    configs: dict[str, dict[str, Any]] = {}
    """Their configs, defaults included."""


class PredictionsManifest(Manifest):
    """The manifest of the predictions artifact."""

    kind: Literal["predictions"] = "predictions"
    labels: list[str]
    """In slot order."""
    notice: str
    """A notice about the data that every report must show, or an empty string."""
    models: dict[str, PredictingModel]
    """By name as in the table, in the order of the reports: `final`, the baselines, and the constant baseline
    `constant`, which predicts every label for every image, with the label's mean box in train."""
    config: dict[str, Any]
    """The step's config, defaults included."""
    data: EvaluationData | None = None
    """None if it is unknown."""


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
        """One row per model, image and label, for valid and the evaluated split.

        Images are in the records' order, labels in slot order.

        Columns: model, split, source_id, filename, patient_id, slice (nullable integer), width, height (of
        the original image), label, present, `TRUE_BOX` (missing where the label is absent), probability
        (missing if the model has no class head), `PREDICTED_BOX` and its score, 0..1, by which the boxes of a
        label are ranked (missing if it has no box head), iou (of the true and the predicted box, missing
        where one of them is).
        """
        return read_table(self.path / TABLE)


def open_predictions(path: str | Path) -> Predictions:
    """Opens a predictions artifact.

    Raises:
        InputError: There is no complete predictions artifact at `path`.
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
