"""The records of runs started from this machine: `runs/history/NAME.json`."""

import json
from datetime import datetime
from pathlib import Path

from pydantic import ConfigDict

from brain_tumor.artifacts.evaluation import FILE, read_evaluation
from brain_tumor.config.base import Schema, from_json
from brain_tumor.runtime.errors import InputError, os_errors_explained

RUNS = Path("runs")
HISTORY = "history"


class RunRecord(Schema):
    """The fields of a run's record that comparisons read. Records of earlier versions may lack some."""

    model_config = ConfigDict(extra="ignore")

    name: str
    started: datetime | None = None
    overrides: list[str] = []
    image: str = ""
    """The tag of the images, a hash of the code and the package versions."""
    parameters: dict[str, str] = {}
    """Each step's config without defaults, as JSON."""
    seconds: float | None = None
    mlflow_run_id: str = ""
    artifacts: dict[str, str] = {}
    """Paths of the artifacts by name."""


def find_record(runs: Path, identifier: str) -> RunRecord | None:
    """Finds the record of a run by its name, or by its MLflow or Kubeflow id; None if there is none.

    Raises:
        InputError: The record is damaged.
    """
    by_name = runs / HISTORY / f"{identifier}.json"
    if "/" not in identifier and by_name.is_file():
        return read_record(by_name)
    for path in sorted((runs / HISTORY).glob("*.json")):
        with os_errors_explained():
            text = path.read_text(encoding="utf-8", errors="replace")
        # Only records that contain the id are parsed, so that another, damaged record does not matter.
        if f'"{identifier}"' in text:
            record = read_record(path)
            if identifier in json.loads(text).values():
                return record
    return None


def read_record(path: Path) -> RunRecord:
    """Reads a record.

    Raises:
        InputError: It is damaged.
    """
    try:
        with os_errors_explained():
            return from_json(RunRecord, path.read_bytes(), path.name)
    except InputError as error:
        if isinstance(error.__cause__, OSError):
            raise
        raise InputError(
            f"{path} is not a valid run record; delete it, and compare the run by its MLflow id."
        ) from error


def last_records(runs: Path, count: int) -> list[RunRecord]:
    """Reads the newest runs' records, oldest first.

    Raises:
        InputError: There are fewer records, or one is damaged.
    """
    records = sorted_records(runs)
    if len(records) < count:
        raise InputError(
            f"{runs / HISTORY} has {len(records)} run record{'s' if len(records) != 1 else ''}, fewer than "
            f"{count}; run the pipeline again with another configuration: make pipeline-run OVERRIDES=..."
        )
    return records[-count:]


def sorted_records(runs: Path) -> list[RunRecord]:
    """Reads all records, oldest first.

    Raises:
        InputError: One is damaged.
    """
    records = [read_record(path) for path in (runs / HISTORY).glob("*.json")]
    return sorted(records, key=lambda record: (_seconds(record), record.name))


def _seconds(record: RunRecord) -> float:
    return record.started.timestamp() if record.started else 0.0


def previous_record(runs: Path, evaluation: Path) -> tuple[RunRecord, RunRecord] | None:
    """Finds the run that computed an evaluation, and the run before it.

    Args:
        runs: The folder of the runs.
        evaluation: The evaluation artifact's folder. Later runs, for which it was cached, are ignored.

    Returns:
        The records of the previous run and of the run; None if there is no previous run.

    Raises:
        InputError: A record is damaged.
    """
    records = sorted_records(runs)
    has_it = [each.artifacts.get("evaluation") == str(evaluation) for each in records]
    if not any(has_it[1:]) or has_it[0]:
        return None
    index = has_it.index(True)
    return records[index - 1], records[index]


def model_thresholds(runs: Path, model: str) -> tuple[dict[str, float], str] | None:
    """Finds the thresholds of a model in the newest run that evaluated it.

    Args:
        runs: The folder of the runs.
        model: The model's id, see `artifact_id`.

    Returns:
        The thresholds by label (empty if it has no class head), and a description of their source; None if
        no run has evaluated the model.

    Raises:
        InputError: A record or an evaluation is damaged.
    """
    for record in reversed(sorted_records(runs)):
        folder = Path(record.artifacts.get("evaluation", ""))
        # Searching the text for the id is faster than parsing the file.
        if (folder / FILE).is_file() and model in (folder / FILE).read_text(encoding="utf-8"):
            models = read_evaluation(folder).models.values()
            thresholds = next(each.thresholds for each in models if each.artifact == model)
            return thresholds, f"the evaluation of the run {record.name}"
    return None
