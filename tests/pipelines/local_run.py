"""Local runs for the tests: each in a new process, as started by a user, with its output and files."""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.image import ROOT

TRAININGS = (
    "baseline classification",
    "train: baseline box",
    "train: phase1 box",
    "phase2 classification",
    "train: phase3 finetune",
)
CURVES = {f"curves: {label}" for label in ("label0", "label1", "label2", "all labels")}
JUDGEMENT = {"evaluate", "visualize"} | CURVES
# The gate is never cached, since it asks the registry.
GATE = {"gate"}
STEPS = {"ingest", "build TFRecords", *TRAININGS, *JUDGEMENT, *GATE}
PHASES = ("baseline_classification", "baseline_box", "phase1_box", "phase2_classification", "phase3_finetune")
KINDS = {kind: kind for kind in ("dataset", "records", "predictions", "evaluation")} | dict.fromkeys(
    PHASES, "model"
)
# The quick profile's model and trainings on very little data. Tracing trainable layers would take most of
# their time, so only the backbone's top is trained.
QUICK = [
    "dataset.train_patients=4",
    "dataset.valid_patients=2",
    "dataset.test_patients=2",
    "dataset.slices_per_patient=8",
    "model.image_size=32",
    "phases.phase1_box.trainable_fraction=0.1",
    "phases.phase3_finetune.trainable_layers=20",
    *(f"phases.{phase}.epochs={2 if phase == 'phase2_classification' else 1}" for phase in PHASES),
]
# One training instead of five.
JOINT = [
    *(override for override in QUICK if not override.startswith("phases.")),
    "phases=joint",
    "~phases.baseline_box",
    "~phases.baseline_classification",
    "phases.joint.epochs=2",
    "phases.joint.trainable_layers=20",
]
# The command line itself, except for the folder of all files.


@dataclass
class Outcome:
    """A run's output and results.

    Attributes:
        code: The exit code.
        stdout: The result.
        stderr: The progress.
        history: The records of all runs so far, oldest first.
        mlflow_runs: All MLflow runs so far.
        logged_models: All models in MLflow.
    """

    code: int
    stdout: str
    stderr: str
    history: list[dict[str, Any]]
    mlflow_runs: list[Any]
    logged_models: list[Any]

    @property
    def executed(self) -> list[str]:
        """Titles of the steps that ran."""
        return [title for title in self._begun() if not title.endswith(": cached")]

    @property
    def cached(self) -> list[str]:
        """Titles of the cached steps."""
        return [title.removesuffix(": cached") for title in self._begun() if title.endswith(": cached")]

    @property
    def rows(self) -> dict[str, list[str]]:
        """The first table's cells by the model's title: macro_f1, mean_iou, recall_at_50, box_ap50, perhaps
        an MLflow run."""
        table, _, _ = self.stdout.partition("\nfinal, minus")
        lines = [re.split(r"\s{2,}", line.strip()) for line in table.splitlines()]
        return {cells[0]: cells[1:] for cells in lines if len(cells) in (5, 6) and "--" not in cells[0]}

    def _begun(self) -> list[str]:
        return re.findall(r"^\[ ?\d+/\d+\] (.+)$", self.stderr, re.MULTILINE)


def start(command: list[str], **variables: str) -> subprocess.Popen[str]:
    """Starts a Python process in the project, without MLflow settings from the environment."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        env=environment | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_run(root: Path, *overrides: str, **variables: str) -> subprocess.Popen[str]:
    """Starts a run as a user does, in a given folder."""
    return start(["-m", "tests.programs.in_folder", "pipelines.run", str(root), *overrides], **variables)


def run(root: Path, *overrides: str, store: Path | None = None, **variables: str) -> Outcome:
    return finish(start_run(root, *overrides, **variables), root, store)


def finish(process: subprocess.Popen[str], root: Path, store: Path | None = None) -> Outcome:
    """Waits for a run's end."""
    stdout, stderr = process.communicate()
    records = [json.loads(path.read_text()) for path in (root / "runs" / "history").glob("*.json")]
    mlflow_runs, models = read_store(store or root / "runs" / "mlflow.db")
    return Outcome(
        process.returncode,
        stdout,
        stderr,
        sorted(records, key=lambda record: str(record["started"])),
        mlflow_runs,
        models,
    )


def read_store(path: Path) -> tuple[list[Any], list[Any]]:
    """All runs and logged models of an MLflow store, if it exists."""
    if not path.is_file():
        return [], []
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{path}")
    experiments = [found.experiment_id for found in client.search_experiments()]
    return list(client.search_runs(experiments)), list(client.search_logged_models(experiments))
