"""The predictions table: one row an image, class and model. All figures and pictures come from it."""

from pathlib import Path
from typing import Any

import pandas as pd

from brain_tumor.storage import read_manifest

FILE = "predictions.parquet"
# In pixels of the original image.
TRUE_BOX = ["true_xmin", "true_ymin", "true_xmax", "true_ymax"]
PREDICTED_BOX = ["pred_xmin", "pred_ymin", "pred_xmax", "pred_ymax"]


def read_predictions(path: str | Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Reads a predictions artifact: its table and its manifest.

    Raises:
        InputError: There is no whole predictions artifact at `path`.
    """
    manifest = read_manifest(path, "predictions")
    return pd.read_parquet(Path(path) / FILE), manifest


def has_class_head(predictions: pd.DataFrame) -> bool:
    """Whether the model that made these rows predicts labels."""
    return bool(predictions["probability"].notna().all())


def has_box_head(predictions: pd.DataFrame) -> bool:
    """Whether the model that made these rows predicts boxes."""
    return bool(predictions[PREDICTED_BOX].notna().all(axis=None))
