import json
import os
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from brain_tumor.runtime.environment import CHECKPOINTS
from pipelines.clean_runs import clean_runs

if TYPE_CHECKING:
    from tests.unit.buckets import Bucket


def write_file(path: Path, started: float, content: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    os.utime(path, (started, started))


def write_record(runs: Path, name: str, started: float, artifacts: dict[str, str]) -> None:
    moment = datetime.fromtimestamp(started).astimezone().isoformat(timespec="seconds")
    content = json.dumps({"started": moment, "artifacts": artifacts})
    write_file(runs / "history" / f"{name}.json", started, content)


def write_run(runs: Path, name: str, started: float, *folders: str) -> None:
    """Writes a run's files: its record, log, events and compiled pipeline, and its steps' artifacts.

    The first of the folders is the run's own.
    """
    for file in (f"logs/{name}.log", f"logs/{name}.jsonl", f"pipelines/{name}.yaml"):
        write_file(runs / file, started)
    own = runs / "artifacts" / name
    write_file(own / "step" / "model" / "manifest.json", started)
    for kind in ("", "-data"):
        write_file(runs / "reports" / f"{name}{kind}.html", started)
    os.utime(own, (started, started))
    used = [name, *folders]
    artifacts = {
        f"s{number}": str(runs / "artifacts" / folder / "step" / "model")
        for number, folder in enumerate(used)
    }
    write_record(runs, name, started, artifacts)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Four runs; the second newest uses artifacts of the first one. A fifth has failed or is in progress.

    Between the first two, one run executed no step. Names are not in order of time.
    """
    write_run(tmp_path, "one", 100)
    write_run(tmp_path, "two", 200)
    write_run(tmp_path, "three", 300, "one")
    write_run(tmp_path, "four", 400)
    failed = tmp_path / "artifacts" / "five"
    (failed / "ingest").mkdir(parents=True)
    os.utime(failed, (500, 500))
    write_file(tmp_path / "logs" / "five.log", 500)
    write_file(tmp_path / "logs" / "unchanged.log", 150)
    write_file(tmp_path / "pipelines" / "unchanged.yaml", 150)
    (tmp_path / "mlflow.db").write_text("history")
    return tmp_path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_artifacts_used_by_kept_runs_are_kept(runs: Path) -> None:
    deleted = clean_runs(runs, keep=2)

    assert deleted == [runs / "artifacts" / "two"]
    assert names(runs / "artifacts") == ["five", "four", "one", "three"]
    assert (runs / "artifacts" / "one" / "step" / "model" / "manifest.json").is_file()
    assert names(runs / "reports") == [
        f"{name}{kind}.html" for name in ("four", "one", "three") for kind in ("-data", "")
    ]
    assert names(runs / "history") == ["four.json", "three.json"]
    logs = [f"{name}.{ending}" for name in ("four", "one", "three") for ending in ("jsonl", "log")]
    assert names(runs / "logs") == ["five.log", *logs]
    assert names(runs / "pipelines") == ["four.yaml", "one.yaml", "three.yaml"]
    assert (runs / "mlflow.db").is_file()


def test_only_the_newest_run_is_kept(runs: Path) -> None:
    clean_runs(runs, keep=1)
    # The run without a record is newer than the newest record: it may be in progress.
    assert names(runs / "artifacts") == ["five", "four"]
    assert names(runs / "history") == ["four.json"]


def test_files_of_a_failed_run_are_deleted_once_a_newer_run_has_ended(runs: Path) -> None:
    write_run(runs, "six", 600)
    assert runs / "artifacts" / "five" in clean_runs(runs, keep=9)
    assert names(runs / "artifacts") == ["four", "one", "six", "three", "two"]


def test_a_record_of_an_earlier_version_counts_by_its_age(runs: Path) -> None:
    old = runs / "history" / "brain-tumor-2026-01-01-00-00-00.json"
    write_file(old, 50, json.dumps({"artifacts": {}}))
    clean_runs(runs, keep=4)
    assert names(runs / "history") == ["four.json", "one.json", "three.json", "two.json"]


def test_a_run_in_progress_is_kept_however_old(runs: Path) -> None:
    write_run(runs, "six", 600)
    (runs / "running" / "five").mkdir(parents=True)
    clean_runs(runs, keep=1)
    assert names(runs / "artifacts") == ["five", "six"]
    assert "five.log" in names(runs / "logs")


def write_checkpoint(root: Path, name: str, age: float) -> Path:
    folder = root / f"{name}-0123456789abcdef"
    file = folder / "epoch-00001" / "manifest.json"
    file.parent.mkdir(parents=True)
    file.write_text("{}")
    os.utime(file, (age, age))
    return folder


def test_checkpoints_older_than_the_oldest_kept_run_are_deleted(
    runs: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path_factory.mktemp("checkpoints")
    monkeypatch.setenv(CHECKPOINTS, str(elsewhere))
    old = [write_checkpoint(root, "old", 250) for root in (runs / "checkpoints", elsewhere)]
    recent = [write_checkpoint(root, "recent", 350) for root in (runs / "checkpoints", elsewhere)]
    deleted = clean_runs(runs, keep=2)
    assert set(old) < set(deleted)
    assert [folder.exists() for folder in old + recent] == [False, False, True, True]


def test_checkpoints_in_a_bucket_are_deleted_too(
    runs: Path, bucket: "Bucket", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CHECKPOINTS, f"{bucket.address}/checkpoints")
    name = "checkpoints/phase1_box-0123456789abcdef/epoch-00001/manifest.json"
    bucket.put(name, b"{}")
    clean_runs(runs, keep=1)
    assert bucket.names() == [name], "it is newer than the oldest kept run"

    write_record(runs, "four", time.time() + 100, {})
    deleted = [str(path) for path in clean_runs(runs, keep=1)]
    assert f"{bucket.address}/checkpoints/phase1_box-0123456789abcdef" in deleted
    assert bucket.names() == []


def test_cleaning_again_deletes_nothing(runs: Path) -> None:
    clean_runs(runs, keep=2)
    assert clean_runs(runs, keep=2) == []


def test_without_runs_there_is_nothing_to_delete(tmp_path: Path) -> None:
    assert clean_runs(tmp_path, keep=1) == []


def test_without_a_record_nothing_is_deleted(tmp_path: Path) -> None:
    (tmp_path / "artifacts" / "one").mkdir(parents=True)
    assert clean_runs(tmp_path, keep=1) == []
    assert names(tmp_path / "artifacts") == ["one"]
