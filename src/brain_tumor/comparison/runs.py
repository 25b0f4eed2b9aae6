"""Collects a run's data from its record, its artifacts and MLflow."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from brain_tumor.artifacts.dataset import Dataset, open_dataset
from brain_tumor.artifacts.evaluation import Evaluation, read_evaluation
from brain_tumor.artifacts.folder import MANIFEST, AnyManifest, read_json
from brain_tumor.artifacts.model import Epoch, open_model
from brain_tumor.artifacts.predictions import Predictions, open_predictions
from brain_tumor.artifacts.records import Records, open_records
from brain_tumor.comparison.history import HISTORY, RunRecord, find_record, last_records
from brain_tumor.comparison.tracked import TrackedRun, download_artifacts, find_tracked
from brain_tumor.runtime.errors import DamagedError, InputError

T = TypeVar("T")
Settings = dict[str, str]
"""A step's configuration: values as strings by dotted keys."""

MAX_RUNS = 6
# Kubeflow's run ids.
CLUSTER_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
NOT_MODELS = ("dataset", "records", "predictions", "evaluation", "gallery")


@dataclass
class ComparedRun:
    """A run to compare: what is known of it.

    Attributes:
        name: Its name.
        overrides: Its overrides of the configuration.
        started: When it started, if known.
        image: The tag of its images, or an empty string.
        seconds: Its duration, if known.
        mlflow_run_id: Its id in MLflow, or an empty string.
        changed_settings: The settings that differ from the defaults, by step.
        all_settings: All settings, including defaults, by step.
        artifacts: The artifacts' paths by name, including deleted ones.
        manifests: The manifests of the artifacts that exist.
        figures: Figures by name, see `Evaluation.metrics`.
        trainings: The epochs of each training, by its name.
        dataset: The dataset artifact, if it exists.
        records: The records artifact, if it exists.
        predictions: The predictions artifact, if it exists.
        evaluation: The evaluation artifact, if it exists.
        notes: Sentences about what is missing.
    """

    name: str
    overrides: list[str] = field(default_factory=list)
    started: datetime | None = None
    image: str = ""
    seconds: float | None = None
    mlflow_run_id: str = ""
    changed_settings: dict[str, Settings] = field(default_factory=dict)
    all_settings: dict[str, Settings] = field(default_factory=dict)
    artifacts: dict[str, Path] = field(default_factory=dict)
    manifests: dict[str, AnyManifest] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)
    trainings: dict[str, list[Epoch]] = field(default_factory=dict)
    dataset: Dataset | None = None
    records: Records | None = None
    predictions: Predictions | None = None
    evaluation: Evaluation | None = None
    notes: list[str] = field(default_factory=list)


def open_runs(runs: Path, identifiers: list[str]) -> list[ComparedRun]:
    """Opens the runs to compare.

    Args:
        runs: The folder of the runs.
        identifiers: Names or ids of at least two runs, or `last` and a number.

    Raises:
        InputError: There are too few runs, one does not exist, or its record is damaged.
    """
    if identifiers[:1] == ["last"]:
        count = identifiers[1] if len(identifiers) == 2 else ""
        if not count.isdecimal() or not 2 <= int(count) <= MAX_RUNS:
            raise InputError(f"Give the number of last runs to compare, 2 to {MAX_RUNS}, such as: last 2.")
        return [open_recorded(runs, record) for record in last_records(runs, int(count))]
    distinct = list(dict.fromkeys(identifiers))
    if not 2 <= len(distinct) <= MAX_RUNS:
        raise InputError(f"{len(distinct)} different runs are named; name 2 to {MAX_RUNS}, or give `last 2`.")
    opened = [open_run(runs, identifier) for identifier in distinct]
    names = [run.name for run in opened]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"The run {twice} is named twice, by its name and an id; name another run.")
    return opened


def open_run(runs: Path, identifier: str) -> ComparedRun:
    """Opens a run.

    Args:
        runs: The folder of the runs.
        identifier: Its name, its MLflow id or that of one of its trainings, or another id in its record.

    Raises:
        InputError: The run does not exist, or its record is damaged.
    """
    if record := find_record(runs, identifier):
        return open_recorded(runs, record)
    tracked = find_tracked(runs, identifier)
    if tracked is None:
        paths = sorted((runs / HISTORY).glob("*.json"), key=lambda path: path.stat().st_mtime)
        newest = [path.stem for path in paths[-4:]]
        where = f"There is no run {identifier} in {runs / HISTORY} or in MLflow"
        if CLUSTER_ID.fullmatch(identifier):
            raise InputError(f"{where}; if it is on a cluster: make compare TARGET=kind RUNS=...")
        raise InputError(f"{where}; the newest runs there are {', '.join(newest) or 'none'}.")
    if record := find_record(runs, tracked.name):
        return open_recorded(runs, record)
    run = ComparedRun(tracked.name)
    run.notes.append(
        "It has no record here, so MLflow is the only source: figures, and the settings and curves of the "
        "trainings that were not cached."
    )
    _add_tracked(run, tracked)
    _add_logged_artifacts(run, runs, tracked)
    return run


def open_recorded(runs: Path, record: RunRecord) -> ComparedRun:
    """Opens a run from its record."""
    run = ComparedRun(
        name=record.name,
        overrides=record.overrides,
        started=record.started,
        image=record.image,
        seconds=record.seconds,
        mlflow_run_id=record.mlflow_run_id,
        changed_settings={step: _parse(text, step, record.name) for step, text in record.parameters.items()},
        artifacts={name: Path(path) for name, path in record.artifacts.items()},
    )
    run.dataset = _open(run, "dataset", open_dataset)
    run.records = _open(run, "records", open_records)
    _open_results(run)
    for name, opened in (("dataset", run.dataset), ("records", run.records), ("evaluate", run.predictions)):
        if opened:
            run.all_settings[name] = flatten(opened.manifest.config)
    for name in [name for name in run.artifacts if name not in NOT_MODELS]:
        if model := _open(run, name, lambda path: open_model(path).description):
            last = model.phases[-1]
            run.all_settings[name], run.trainings[name] = flatten(last.config), last.epochs
    missing = [name for name, path in run.artifacts.items() if not path.exists()]
    if missing:
        run.notes.append(
            f"Its artifacts {', '.join(missing)} do not exist: `make clean-runs` deleted them, or they are "
            "on another machine."
        )
    if run.evaluation:
        run.figures = run.evaluation.metrics()
    elif tracked := find_tracked(runs, record.mlflow_run_id or record.name):
        _add_tracked(run, tracked)
        _add_logged_artifacts(run, runs, tracked)
    return run


def _add_logged_artifacts(run: ComparedRun, runs: Path, tracked: TrackedRun) -> None:
    """Adds the predictions and the evaluation from MLflow."""
    copies = download_artifacts(runs, tracked)
    if not copies:
        run.notes.append("MLflow has no predictions of it: it was not evaluated, or by an earlier version.")
        return
    run.artifacts |= copies
    run.notes.append("Its predictions are from MLflow.")
    _open_results(run)


def _open_results(run: ComparedRun) -> None:
    run.predictions = _open(run, "predictions", open_predictions)
    run.evaluation = _open(run, "evaluation", read_evaluation)


def _open(run: ComparedRun, name: str, opener: Callable[[Path], T]) -> T | None:
    """Opens an artifact; if it is damaged, adds a note and returns None."""
    path = run.artifacts.get(name)
    if path is None or not path.exists():
        return None
    try:
        opened = opener(path)
        run.manifests[name] = read_json(AnyManifest, path / MANIFEST)
    except DamagedError as error:
        run.notes.append(f"Its artifact {name} is ignored: {error}")
        return None
    return opened


def _add_tracked(run: ComparedRun, tracked: TrackedRun) -> None:
    """Adds from MLflow what the run's record and artifacts do not have."""
    run.mlflow_run_id = run.mlflow_run_id or tracked.id
    run.overrides = run.overrides or ([] if tracked.overrides == "none" else tracked.overrides.split())
    run.started = run.started or datetime.fromtimestamp(tracked.started / 1000, UTC)
    run.figures = run.figures or tracked.figures
    run.all_settings = {**tracked.configs, **run.all_settings}
    run.trainings = {**tracked.trainings, **run.trainings}


def _parse(text: str, step: str, name: str) -> Settings:
    try:
        settings = json.loads(text)
    except ValueError:
        settings = None
    if not isinstance(settings, dict):
        raise InputError(
            f"In the record of the run {name}, the parameter {step} is not a JSON object; delete the record."
        )
    return flatten(settings)


def flatten(settings: dict[str, Any], prefix: str = "") -> Settings:
    """Flattens settings to strings by dotted keys, the form in which MLflow has them."""
    flat: Settings = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = str(value)
    return flat
