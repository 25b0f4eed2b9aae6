"""Times the comparison of two runs, page included: `python -m benchmarks.comparison [--images N]`.

The runs are synthetic: three labels, 20 images per patient, boxes and probabilities near the truth, images of
noise, which compress worse than real ones. The command runs in its own process, as for a user.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from brain_tumor.artifacts.evaluation import write_evaluation
from brain_tumor.artifacts.predictions import (
    PREDICTED_BOX,
    TRUE_BOX,
    PredictingModel,
    PredictionsManifest,
    write_predictions,
)
from brain_tumor.config import DirectoryDataset, EvaluateConfig
from brain_tumor.evaluation.evaluate import evaluate_predictions
from brain_tumor.evaluation.figures import with_iou
from brain_tumor.ingest.ingest import ingest
from brain_tumor.runtime.step import step

LABELS = ["label0", "label1", "label2"]
SLICES = 20
SIDE = 160
COMMAND = "from brain_tumor.cli import main; main()"


def main() -> None:
    """Prints the time and the size of the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=1000)
    images = parser.parse_args().images
    with step(), tempfile.TemporaryDirectory() as scratch:
        runs = Path(scratch) / "runs"
        dataset = _write_dataset(Path(scratch), images)
        for seed, noise in enumerate((10.0, 6.0)):
            _write_run(runs, f"run-{seed}", dataset, _answers(images, seed, noise), seed)
        print(f"machine: {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
        seconds = _time([sys.executable, "-c", COMMAND, "compare", "last", "2", "--runs", str(runs)])
        [page] = (runs / "reports").glob("*.html")
        print(
            f"compare two runs of {images:,} images: {seconds:.1f} s, a page of {page.stat().st_size:,} bytes"
        )


def _time(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def _name(number: int) -> str:
    return f"volume_{number // SLICES}_slice_{number % SLICES}.jpg"


def _write_dataset(folder: Path, images: int) -> Path:
    """Writes a dataset artifact with this number of test images."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 1), ("valid", 1), ("test", images)):
        place = folder / "export" / split
        place.mkdir(parents=True)
        (place / "_annotations.csv").write_text("filename,width,height,class,xmin,ymin,xmax,ymax\n")
        for number in range(count):
            pixels = rng.integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
            Image.fromarray(pixels).save(place / _name(number), quality=80)
    config = DirectoryDataset(source="directory", path=str(folder / "export"), labels=LABELS)
    return ingest(config, folder / "dataset").dataset.path


def _answers(images: int, seed: int, noise: float) -> pd.DataFrame:
    """The final model's rows; the truth is the same for every seed."""
    truth, rng = np.random.default_rng(0), np.random.default_rng(seed + 1)
    count = images * len(LABELS)
    numbers = np.repeat(np.arange(images), len(LABELS))
    present = truth.random(count) < 0.5
    boxes = truth.uniform(10, 50, (count, 4)) + np.array([0, 0, 60, 60])
    table = pd.DataFrame(
        {
            "model": "final",
            "split": "test",
            "source_id": [f"test/{_name(number)}" for number in numbers.tolist()],
            "filename": [_name(number) for number in numbers.tolist()],
            "patient_id": (numbers // SLICES).astype(str),
            "slice": pd.array(numbers % SLICES, "Int64"),
            "width": SIDE,
            "height": SIDE,
            "label": LABELS * images,
            "present": present,
            "probability": np.clip(0.3 * present + 0.7 * rng.random(count), 0, 1),
            "score": rng.random(count),
        }
    )
    table[TRUE_BOX] = np.where(present[:, None], boxes, np.nan)
    table[PREDICTED_BOX] = boxes + rng.normal(0, noise, boxes.shape)
    return with_iou(table)


def _write_run(runs: Path, name: str, dataset: Path, answers: pd.DataFrame, minute: int) -> None:
    folder = runs / "artifacts" / name
    epochs = [{"epoch": float(epoch), "loss": 2.0 / epoch, "val_loss": 2.1 / epoch} for epoch in range(1, 21)]
    model = PredictingModel(
        title="final model", heads=["labels", "boxes"], mlflow_run_id="", trainings={"joint": epochs}
    )
    config = EvaluateConfig(bootstrap_samples=100)
    manifest = PredictionsManifest(
        labels=LABELS, notice="", models={"final": model}, config=config.model_dump(mode="json")
    )
    predictions = write_predictions(folder / "predictions", answers, manifest)
    write_evaluation(folder / "evaluation", evaluate_predictions(config, predictions))
    artifacts = {part: str(folder / part) for part in ("predictions", "evaluation")}
    record = {
        "name": name,
        "started": f"2026-05-04T13:0{minute}:00+00:00",
        "artifacts": {**artifacts, "dataset": str(dataset)},
    }
    (runs / "history").mkdir(parents=True, exist_ok=True)
    (runs / "history" / f"{name}.json").write_text(json.dumps(record))


if __name__ == "__main__":
    main()
