"""Shared by tests of comparisons: runs with records and real artifacts, but artificial predictions."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from brain_tumor.artifacts.evaluation import write_evaluation
from brain_tumor.artifacts.predictions import (
    PREDICTED_BOX,
    TRUE_BOX,
    PredictingModel,
    PredictionsManifest,
    write_predictions,
)
from brain_tumor.config import EvaluateConfig
from brain_tumor.evaluation.evaluate import evaluate_predictions
from brain_tumor.evaluation.figures import with_iou

LABELS = ["label0", "label1"]
CONFIG = EvaluateConfig(bootstrap_samples=20)
NOTICE = "These patients were made up."
START = datetime(2026, 5, 4, 13, 0, tzinfo=UTC)


def make_answers(
    patients: int = 14,
    slices: int = 3,
    noise: float = 10.0,
    skill: float = 0.4,
    first: int = 0,
    labels: list[str] = LABELS,
) -> pd.DataFrame:
    """Makes the final model's rows. The ground truth does not depend on the model's quality.

    Args:
        patients: The number of patients.
        slices: The number of images per patient.
        noise: The standard deviation of box errors, in pixels.
        skill: How much higher the probabilities of present labels are than the others.
        first: The first patient's number.
        labels: The labels.
    """
    rows: list[dict[str, Any]] = []
    for patient in range(first, first + patients):
        for number in range(slices):
            truth, guess = (np.random.default_rng([patient, number, seed]) for seed in (0, 1))
            for label in labels:
                present = bool(truth.random() < 0.6)
                box = truth.uniform(20, 40, 4) + np.array([0, 0, 50, 50])
                rows.append(
                    {
                        "model": "final",
                        "split": "test",
                        "source_id": f"test/volume_{patient}_slice_{number}.jpg",
                        "filename": f"volume_{patient}_slice_{number}.jpg",
                        "patient_id": str(patient),
                        "slice": number,
                        "width": 120,
                        "height": 120,
                        "label": label,
                        "present": present,
                        **dict(zip(TRUE_BOX, box if present else [np.nan] * 4, strict=True)),
                        "probability": float(np.clip(0.3 + skill * present + 0.4 * guess.random(), 0, 1)),
                        **dict(zip(PREDICTED_BOX, box + noise * guess.normal(size=4), strict=True)),
                        "score": guess.random(),
                    }
                )
    return with_iou(pd.DataFrame(rows).astype({"slice": "Int64"}))


def write_run(
    runs: Path,
    name: str,
    answers: pd.DataFrame | None,
    minute: int = 0,
    trainings: dict[str, Any] | None = None,
    labels: list[str] = LABELS,
    config: EvaluateConfig = CONFIG,
    of: str = "",
    **record: Any,
) -> dict[str, Any]:
    """Writes a run's record, and its predictions and evaluation if predictions are given.

    Args:
        runs: The folder of the runs.
        name: The run's name.
        answers: The final model's rows.
        minute: The minute of its start.
        trainings: The epochs of its trainings.
        labels: The labels of the predictions.
        config: The config of the evaluation.
        of: The model artifact that made the predictions, see `artifact_id`.
        record: Further fields of the record.

    Returns:
        The record.
    """
    artifacts = {key: str(path) for key, path in record.pop("artifacts", {}).items()}
    if answers is not None:
        folder = runs / "artifacts" / name / "evaluate"
        model = PredictingModel(
            title="final model",
            heads=["labels", "boxes"],
            mlflow_run_id="",
            artifact=of,
            trainings=trainings or {},
        )
        manifest = PredictionsManifest(
            labels=labels, notice=NOTICE, models={"final": model}, config=config.model_dump(mode="json")
        )
        predictions = write_predictions(folder / "predictions", answers, manifest)
        write_evaluation(folder / "evaluation", evaluate_predictions(config, predictions))
        artifacts |= {part: str(folder / part) for part in ("predictions", "evaluation")}
    content = {
        "name": name,
        "started": (START + timedelta(minutes=minute)).isoformat(),
        "overrides": [],
        "image": "1f",
        "parameters": {},
        "seconds": 60.0,
        "mlflow_run_id": "",
        "artifacts": artifacts,
        **record,
    }
    (runs / "history").mkdir(parents=True, exist_ok=True)
    (runs / "history" / f"{name}.json").write_text(json.dumps(content))
    return content
