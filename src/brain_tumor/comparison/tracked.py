"""Reads a run from MLflow: figures, artifacts, and its trainings' parameters and epochs."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brain_tumor.artifacts.model import Epoch
from brain_tumor.runtime.tracking import NAME_TAG, PARENT_TAG, existing_store

# The artifacts that a run logs to MLflow for comparisons.
LOGGED = ("predictions", "evaluation")
# The figures of an epoch that are plotted.
EPOCH_FIGURES = ("loss", "val_loss", "val_boxes_iou", "val_labels_auc")


@dataclass(frozen=True)
class TrackedRun:
    """A pipeline run in MLflow.

    Attributes:
        id: Its MLflow run id.
        name: Its name.
        started: Its start time in milliseconds since 1970.
        overrides: Its overrides of the configuration.
        figures: Figures by name, see `Evaluation.metrics`.
        configs: Each training's parameters, including defaults, by the training's name.
        trainings: Each training's epochs, by its name.
    """

    id: str
    name: str
    started: int
    overrides: str
    figures: dict[str, float]
    configs: dict[str, dict[str, str]]
    trainings: dict[str, list[Epoch]]


def find_tracked(runs: Path, identifier: str) -> TrackedRun | None:
    """Finds a run by its id, the id of one of its trainings, or its name.

    A cached training belongs to the MLflow run of the pipeline run that executed it, and is not included.

    Args:
        runs: The folder of the runs. Its MLflow store is used if MLFLOW_TRACKING_URI is not set.
        identifier: The id or the name.

    Returns:
        The run; None if it does not exist or there is no store.

    Raises:
        InputError: The store cannot be read.
    """
    with existing_store(runs) as client:
        run = _find(client, identifier) if client else None
        if run is None:
            return None
        query = f"tags.`{PARENT_TAG}` = '{run.info.run_id}'"
        trainings = client.search_runs([run.info.experiment_id], query)
        return TrackedRun(
            id=run.info.run_id,
            name=run.data.tags.get(NAME_TAG) or run.info.run_name,
            started=run.info.start_time,
            overrides=run.data.params.get("overrides", ""),
            figures=dict(run.data.metrics),
            configs={each.info.run_name: dict(each.data.params) for each in trainings},
            trainings={each.info.run_name: _epochs(client, each) for each in trainings},
        )


def download_artifacts(runs: Path, run: TrackedRun) -> dict[str, Path]:
    """Downloads a run's predictions and evaluation to the folder of its artifacts, if MLflow has them.

    Args:
        runs: The folder of the runs.
        run: The run.

    Returns:
        The paths of both by name; empty if MLflow does not have both.

    Raises:
        InputError: The store cannot be read.
    """
    folder = runs / "artifacts" / run.name / "mlflow"
    copies = {name: folder / name for name in LOGGED}
    if all(copy.is_dir() for copy in copies.values()):
        return copies
    with existing_store(runs) as client:
        held = {found.path for found in client.list_artifacts(run.id)}
        if not held >= set(LOGGED):
            return {}
        folder.mkdir(parents=True, exist_ok=True)
        for name, copy in copies.items():
            # Renamed when complete, so that a partial download is never read.
            with tempfile.TemporaryDirectory(dir=folder) as draft:
                if not copy.is_dir():
                    Path(client.download_artifacts(run.id, name, draft)).rename(copy)
    return copies


def _find(client: Any, identifier: str) -> Any:
    from mlflow import MlflowException

    try:
        run = client.get_run(identifier)
        parent = run.data.tags.get(PARENT_TAG)
        return client.get_run(parent) if parent else run
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
    if "'" in identifier:  # a quote would end the string in the query
        return None
    experiments = [found.experiment_id for found in client.search_experiments()]
    query = f"tags.{NAME_TAG} = '{identifier}'"
    found = client.search_runs(experiments, query, order_by=["attributes.start_time DESC"])
    return found[0] if found else None


def _epochs(client: Any, training: Any) -> list[Epoch]:
    epochs: dict[int, Epoch] = {}
    for name in EPOCH_FIGURES:
        if name in training.data.metrics:
            for metric in client.get_metric_history(training.info.run_id, name):
                epochs.setdefault(metric.step, {"epoch": float(metric.step)})[name] = metric.value
    return [epochs[step] for step in sorted(epochs)]
