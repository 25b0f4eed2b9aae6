"""The records of the runs that were started from this machine: `runs/history/NAME.json`."""

import json
from datetime import datetime
from pathlib import Path

from pydantic import ConfigDict

from brain_tumor.artifacts.evaluation import FILE, read_evaluation
from brain_tumor.config.base import Schema, from_json
from brain_tumor.runtime.errors import InputError, refusals_explained

RUNS = Path("runs")
HISTORY = "history"


class RunRecord(Schema):
    """What a comparison reads of a run's record. Records say more, and those of earlier versions less."""

    model_config = ConfigDict(extra="ignore")

    name: str
    started: datetime | None = None
    overrides: list[str] = []
    image: str = ""
    """The tag of the images, a hash of the code and its packages."""
    parameters: dict[str, str] = {}
    """What each step's config has that differs from the defaults, JSON."""
    seconds: float | None = None
    mlflow_run_id: str = ""
    artifacts: dict[str, str] = {}
    """The artifacts' paths by their names."""


def find_record(runs: Path, identifier: str) -> RunRecord | None:
    """The record of a run by its name, or by an id of it that the record has (MLflow's, Kubeflow's).

    Raises:
        InputError: The record is damaged.
    """
    by_name = runs / HISTORY / f"{identifier}.json"
    if "/" not in identifier and by_name.is_file():
        return read_record(by_name)
    for path in sorted((runs / HISTORY).glob("*.json")):
        with refusals_explained():
            text = path.read_text(encoding="utf-8", errors="replace")
        # Whatever else is damaged, the records that do not name the run are none of its business.
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
        with refusals_explained():
            return from_json(RunRecord, path.read_bytes(), path.name)
    except InputError as error:
        if isinstance(error.__cause__, OSError):
            raise
        raise InputError(
            f"{path} is no whole record of a run; delete it, and compare the run by its MLflow id."
        ) from error


def last_records(runs: Path, count: int) -> list[RunRecord]:
    """The newest runs' records, the oldest of them first.

    Raises:
        InputError: There are not as many, or one is damaged.
    """
    records = sorted_records(runs)
    if len(records) < count:
        raise InputError(
            f"{runs / HISTORY} has {len(records)} record{'s' if len(records) != 1 else ''} of runs, "
            f"fewer than {count}; run the pipeline again with another configuration: make pipeline-run "
            "OVERRIDES=..."
        )
    return records[-count:]


def sorted_records(runs: Path) -> list[RunRecord]:
    """All records, oldest first.

    Raises:
        InputError: One is damaged.
    """
    records = [read_record(path) for path in (runs / HISTORY).glob("*.json")]
    return sorted(records, key=lambda record: (_seconds(record), record.name))


def _seconds(record: RunRecord) -> float:
    return record.started.timestamp() if record.started else 0.0


def record_before(runs: Path, evaluation: Path) -> tuple[RunRecord, RunRecord] | None:
    """The record of the run that made an evaluation, behind that of the run before it.

    Args:
        runs: The folder of the runs.
        evaluation: The evaluation artifact's folder. A run that only took it from the cache does not count.

    Raises:
        InputError: A record is damaged.
    """
    records = sorted_records(runs)
    made = [each.artifacts.get("evaluation") == str(evaluation) for each in records]
    if not any(made[1:]) or made[0]:
        return None
    place = made.index(True)
    return records[place - 1], records[place]


def judged_thresholds(runs: Path, model: str) -> tuple[dict[str, float], str] | None:
    """At which probabilities a model's labels were judged, and in which run: the newest that judged it.

    Args:
        runs: The folder of the runs.
        model: The model artifact, see `artifact_id`.

    Returns:
        The probabilities by label (none if it has no class head), and what they are from, for a person to
        read; None if no run there has judged it.

    Raises:
        InputError: A record or an evaluation is damaged.
    """
    for record in reversed(sorted_records(runs)):
        folder = Path(record.artifacts.get("evaluation", ""))
        # To look for an id in a file is faster than to read what the file means.
        if (folder / FILE).is_file() and model in (folder / FILE).read_text(encoding="utf-8"):
            judged = read_evaluation(folder).models.values()
            own = next(each.thresholds for each in judged if each.artifact == model)
            return own, f"the evaluation of the run {record.name}"
    return None
