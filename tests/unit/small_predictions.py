"""A small predictions artifact with known figures."""

from pathlib import Path

import numpy as np
import pandas as pd

from brain_tumor.artifacts.predictions import (
    PREDICTED_BOX,
    TRUE_BOX,
    PredictingModel,
    Predictions,
    PredictionsManifest,
    write_predictions,
)
from brain_tumor.evaluation.figures import with_iou

LABELS = ["label0", "label (1)"]
TITLES = {
    "final": "final",
    "baseline_classification": "baseline classification (frozen random backbone)",
    "baseline_box": "baseline box (frozen random backbone)",
    "constant": "constant baseline",
}
TRAININGS = {
    "final": {"phase1": [{"epoch": 1, "loss": 1 / 3}], "phase2": [{"epoch": 1, "loss": 0.1}]},
    "baseline_box": {"baseline_box": [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25}]},
}
NOTICE = "These figures are about synthetic patients."


def make_predictions(path: Path, patients: int, notice: str = "") -> Predictions:
    """Three slices per patient: label0 in the first, label1 in all; the final model's boxes are 10 px off."""
    rows = []
    for model in TITLES:
        for patient in range(patients):
            for image, label in np.ndindex(3, 2):
                present = label == 1 or image == 0
                probability = 1.0 if model == "constant" else 0.9 if present else 0.1
                box = {"final": [30, 20, 80, 70], "baseline_box": [20, 20, 70, 70]}.get(
                    model, [60, 20, 110, 70]
                )
                rows.append(
                    {
                        "model": model,
                        "split": "test",
                        "source_id": f"test/{patient}_{image}.jpg",
                        "filename": f"{patient}_{image}.jpg",
                        "patient_id": str(patient),
                        "slice": image,
                        "width": 120,
                        "height": 100,
                        "label": LABELS[label],
                        "present": present,
                        "probability": np.nan if model == "baseline_box" else probability,
                        **dict.fromkeys(TRUE_BOX, np.nan),
                        **dict.fromkeys(PREDICTED_BOX, np.nan),
                        "score": np.nan if model == "baseline_classification" else probability,
                    }
                )
                if present:
                    rows[-1] |= dict(zip(TRUE_BOX, [20.0, 20.0, 70.0, 70.0], strict=True))
                if model != "baseline_classification":
                    rows[-1] |= dict(zip(PREDICTED_BOX, map(float, box), strict=True))
    table = pd.DataFrame(rows).astype({"slice": "Int64"})
    models = {
        name: PredictingModel(
            title=title, heads=[], mlflow_run_id=f"run of {name}", trainings=TRAININGS.get(name, {})
        )
        for name, title in TITLES.items()
    }
    manifest = PredictionsManifest(labels=LABELS, notice=notice, models=models, config={})
    return write_predictions(path, with_iou(table), manifest)
