"""Times evaluation and report of given predictions: `python -m benchmarks.evaluation [--images 1000]`.

The patients are synthetic, their slices real JPEGs; the predictions of four models are the truth plus noise.
Prints wall and CPU seconds of the evaluation (all figures, intervals with 2,000 resamples) and of the report,
and the process's peak memory after each.
"""

import argparse
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd

from brain_tumor.artifacts.dataset import Dataset, open_dataset
from brain_tumor.artifacts.predictions import (
    PREDICTED_BOX,
    TRUE_BOX,
    PredictingModel,
    Predictions,
    PredictionsManifest,
    write_predictions,
)
from brain_tumor.artifacts.tables import COORDINATES
from brain_tumor.config import EvaluateConfig, VisualizeConfig
from brain_tumor.config.fields import CONSTANT, FINAL, TUNED
from brain_tumor.configure import configure
from brain_tumor.evaluation.evaluate import evaluate_predictions
from brain_tumor.evaluation.figures import with_iou
from brain_tumor.ingest.ingest import ingest
from brain_tumor.reports.prediction_report import write_prediction_report

MODELS = {FINAL: 6.0, "baseline_classification": 0.0, "baseline_box": 12.0, CONSTANT: 30.0}
SLICES = 4
T = TypeVar("T")


def make_predictions(dataset: Dataset, path: Path) -> Predictions:
    """Makes predictions for valid and test by adding noise to the truth; box offsets are in pixels."""
    rng = np.random.default_rng(0)
    labels = dataset.manifest.labels
    images = dataset.images[dataset.images["split"] != "train"]
    rows = images.loc[images.index.repeat(len(labels))].assign(label=labels * len(images))
    boxes = dataset.annotations[["source_id", "label", *COORDINATES]].assign(present=True)
    boxes = boxes.rename(columns=dict(zip(COORDINATES, TRUE_BOX, strict=True)))
    truth = rows.merge(boxes, how="left", on=["source_id", "label"])
    truth["present"] = truth["present"].notna()
    tables = []
    for model, pixels in MODELS.items():
        table = truth.assign(model=model)
        told = np.clip(0.3 * truth["present"] + 0.7 * rng.random(len(truth)), 0, 1)
        table["probability"] = 1.0 if model == CONSTANT else np.nan if model == "baseline_box" else told
        somewhere = np.array([40.0, 40.0, 80.0, 80.0])
        guess = truth[TRUE_BOX].fillna(dict(zip(TRUE_BOX, somewhere, strict=True))).to_numpy()
        guess = np.clip(guess + rng.normal(0, pixels, guess.shape), 0, None)
        table[PREDICTED_BOX] = np.nan if model == "baseline_classification" else guess
        table["score"] = np.nan if model == "baseline_classification" else rng.random(len(truth))
        tables.append(table)
    described = {
        name: PredictingModel(title=name, heads=[], mlflow_run_id="", trainings={}) for name in MODELS
    }
    manifest = PredictionsManifest(labels=labels, notice="Made up.", models=described, config={})
    return write_predictions(path, with_iou(pd.concat(tables, ignore_index=True)), manifest)


def timed(name: str, work: Callable[[], T]) -> T:
    """Runs a function, and prints its time and the peak memory."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{name:40} {wall:6.1f} s, {cpu:6.1f} s of CPU, peak {peak:,.0f} MB")
    return result


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=1000)
    images = parser.parse_args().images
    counts = {"train": 2, "valid": images // SLICES // 4, "test": images // SLICES}
    overrides = [f"dataset.{split}_patients={count}" for split, count in counts.items()]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        config = configure([*overrides, f"dataset.slices_per_patient={SLICES}"]).dataset
        # In its own process, as in a pipeline, so that its memory is not counted here.
        pid = os.fork()
        if not pid:
            ingest(config, root / "dataset")
            os._exit(0)
        os.waitpid(pid, 0)
        dataset = open_dataset(root / "dataset")
        predictions = make_predictions(dataset, root / "predictions")
        evaluation = timed(
            f"judge {images:,} images",
            lambda: evaluate_predictions(EvaluateConfig(threshold=TUNED), predictions),
        )
        page = root / "report.html"
        timed(
            "report",
            lambda: write_prediction_report(page, VisualizeConfig(), predictions, evaluation, dataset),
        )
        print(f"{'page':40} {page.stat().st_size / 1e6:6.2f} MB")
    print(f"{'machine':40} {os.cpu_count()} cores; TensorFlow imported: {'tensorflow' in sys.modules}")


if __name__ == "__main__":
    main()
