"""Makes artificial predictions for a dataset, their evaluation, and a fake model.

A separate program, like `server.py`: python made.py DATASET FOLDER
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from brain_tumor.artifacts.dataset import Dataset, open_dataset
from brain_tumor.artifacts.evaluation import write_evaluation
from brain_tumor.artifacts.model import Backbone, ModelDescription, TrainedPhase, write_model
from brain_tumor.artifacts.predictions import (
    PREDICTED_BOX,
    TRUE_BOX,
    PredictingModel,
    PredictionsManifest,
    write_predictions,
)
from brain_tumor.artifacts.tables import COORDINATES
from brain_tumor.config import EvaluateConfig
from brain_tumor.config.fields import CONSTANT, FINAL
from brain_tumor.evaluation.evaluate import evaluate_predictions
from brain_tumor.evaluation.figures import with_iou

COLUMNS = ["source_id", "filename", "patient_id", "slice", "width", "height"]


def make(dataset: Dataset, folder: Path) -> None:
    """Writes `predictions`, `evaluation` and `final` to a folder."""
    labels = dataset.manifest.labels
    boxes = dataset.annotations.set_index(["source_id", "label"])[list(COORDINATES)]
    rows = []
    for model in (FINAL, CONSTANT):
        for image in dataset.images.to_dict("records"):
            for label in labels:
                present = (image["source_id"], label) in boxes.index
                true = boxes.loc[(image["source_id"], label)].to_numpy() if present else np.full(4, np.nan)
                rows.append(
                    {
                        "model": model,
                        "split": "test",
                        **{name: image[name] for name in COLUMNS},
                        "label": label,
                        "present": present,
                        "probability": 0.7,
                        "score": 0.6,
                        **dict(zip(TRUE_BOX, true, strict=True)),
                        **dict(zip(PREDICTED_BOX, (1.0, 2.0, 20.0, 21.0), strict=True)),
                    }
                )
    epochs = [{"epoch": 1, "loss": 2.0, "val_loss": 2.1, "learning_rate": 0.001}]
    trained = PredictingModel(
        title=FINAL, heads=["boxes"], mlflow_run_id="", trainings={"phase1_box": epochs}
    )
    models = {FINAL: trained, CONSTANT: trained.model_copy(update={"title": CONSTANT, "trainings": {}})}
    manifest = PredictionsManifest(labels=labels, notice="Made up.", models=models, config={})
    table = with_iou(pd.DataFrame(rows).astype({"slice": "Int64"}))
    predictions = write_predictions(folder / "predictions", table, manifest)
    write_evaluation(
        folder / "evaluation", evaluate_predictions(EvaluateConfig(bootstrap_samples=20), predictions)
    )
    description = ModelDescription(
        title=FINAL,
        labels=labels,
        heads=["labels", "boxes"],
        image_size=64,
        notice="",
        backbone=Backbone(name="resnet50", weights="none"),
        box_head="dense",
        phases=[
            TrainedPhase(name="joint", config={}, trainable_layers=0, epochs=epochs, best_epoch=1, seconds=1)
        ],
        metrics={},
        mlflow_run_id="",
    )
    write_model(folder / "final", description, lambda path: path.write_bytes(b"no model"))


if __name__ == "__main__":
    make(open_dataset(sys.argv[1]), Path(sys.argv[2]))
