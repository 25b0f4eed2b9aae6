import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from brain_tumor.training.checkpoints import ROOT
from pipelines.clean_runs import clean_runs

if TYPE_CHECKING:
    from buckets import Bucket


def write_run(runs: Path, name: str, *folders: str) -> None:
    """What a run leaves: its record, log and compiled pipeline, and what its artifacts' folders hold."""
    for file in (f"logs/{name}.log", f"pipelines/{name}.yaml"):
        (runs / file).parent.mkdir(parents=True, exist_ok=True)
        (runs / file).write_text(name)
    artifacts = {f"step{index}": runs / "artifacts" / folder for index, folder in enumerate(folders)}
    for step, folder in artifacts.items():
        (folder / step / "model").mkdir(parents=True, exist_ok=True)
        (folder / step / "model" / "manifest.json").write_text("{}")
        (runs / "reports").mkdir(exist_ok=True)
        (runs / "reports" / f"{folder.name}.html").write_text(folder.name)
    record = {"artifacts": {step: str(folder / step / "model") for step, folder in artifacts.items()}}
    (runs / "history").mkdir(exist_ok=True)
    (runs / "history" / f"{name}.json").write_text(json.dumps(record))


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Four runs; the newest but one still uses what the first one has made. A fifth has failed or goes on.

    Between the first two, one had nothing to run.
    """
    write_run(tmp_path, "run-01", "run-01-a")
    write_run(tmp_path, "run-02", "run-02-a")
    write_run(tmp_path, "run-03", "run-01-a", "run-03-a")
    write_run(tmp_path, "run-04", "run-04-a")
    (tmp_path / "artifacts" / "run-05-a" / "ingest").mkdir(parents=True)
    (tmp_path / "logs" / "run-05.log").write_text("goes on")
    (tmp_path / "logs" / "run-01-again.log").write_text("all cached")
    (tmp_path / "pipelines" / "run-01-again.yaml").write_text("all cached")
    (tmp_path / "mlflow.db").write_text("history")
    return tmp_path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_kept_runs_refer_to_stays(runs: Path) -> None:
    deleted = clean_runs(runs, keep=2)

    assert deleted == [runs / "artifacts" / "run-02-a"]
    assert names(runs / "artifacts") == ["run-01-a", "run-03-a", "run-04-a", "run-05-a"]
    assert (runs / "artifacts" / "run-01-a" / "step0" / "model" / "manifest.json").is_file()
    assert names(runs / "reports") == ["run-01-a.html", "run-03-a.html", "run-04-a.html"]
    assert names(runs / "history") == ["run-03.json", "run-04.json"]
    assert names(runs / "logs") == ["run-03.log", "run-04.log", "run-05.log"]
    assert names(runs / "pipelines") == ["run-03.yaml", "run-04.yaml"]
    assert (runs / "mlflow.db").is_file()


def test_only_the_newest_run_stays(runs: Path) -> None:
    clean_runs(runs, keep=1)
    # The run without a record is younger than the newest one on record: it may go on.
    assert names(runs / "artifacts") == ["run-04-a", "run-05-a"]
    assert names(runs / "history") == ["run-04.json"]


def test_what_a_failed_run_left_goes_once_a_younger_run_has_ended(runs: Path) -> None:
    write_run(runs, "run-06", "run-06-a")
    assert runs / "artifacts" / "run-05-a" in clean_runs(runs, keep=9)
    assert names(runs / "artifacts") == ["run-01-a", "run-02-a", "run-03-a", "run-04-a", "run-06-a"]


def write_checkpoint(root: Path, name: str, age: float) -> Path:
    folder = root / f"{name}-0123456789abcdef"
    file = folder / "epoch-00001" / "manifest.json"
    file.parent.mkdir(parents=True)
    file.write_text("{}")
    os.utime(file, (age, age))
    return folder


def test_checkpoints_go_that_are_older_than_the_oldest_kept_run(
    runs: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, name in enumerate(("run-01", "run-02", "run-03", "run-04")):
        os.utime(runs / "history" / f"{name}.json", (100 * number, 100 * number))
    elsewhere = tmp_path_factory.mktemp("checkpoints")
    monkeypatch.setenv(ROOT, str(elsewhere))
    old = [write_checkpoint(root, "old", 150) for root in (runs / "checkpoints", elsewhere)]
    recent = [write_checkpoint(root, "recent", 250) for root in (runs / "checkpoints", elsewhere)]
    deleted = clean_runs(runs, keep=2)
    assert set(old) < set(deleted)
    assert [folder.exists() for folder in old + recent] == [False, False, True, True]


def test_checkpoints_in_a_bucket_go_too(
    runs: Path, bucket: "Bucket", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ROOT, f"{bucket.address}/checkpoints")
    name = "checkpoints/phase1_box-0123456789abcdef/epoch-00001/manifest.json"
    bucket.put(name, b"{}")
    for record in (runs / "history").glob("*.json"):
        os.utime(record, (100, 100))
    clean_runs(runs, keep=1)
    assert bucket.names() == [name], "it is younger than the oldest kept run"

    for record in (runs / "history").glob("*.json"):
        os.utime(record, (time.time() + 100,) * 2)
    assert [str(path) for path in clean_runs(runs, keep=1)] == [
        f"{bucket.address}/checkpoints/phase1_box-0123456789abcdef"
    ]
    assert bucket.names() == []


def test_cleaning_again_deletes_nothing(runs: Path) -> None:
    clean_runs(runs, keep=2)
    assert clean_runs(runs, keep=2) == []


def test_where_no_run_is_there_is_nothing_to_delete(tmp_path: Path) -> None:
    assert clean_runs(tmp_path, keep=1) == []


def test_without_a_record_nothing_is_deleted(tmp_path: Path) -> None:
    (tmp_path / "artifacts" / "run-01-a").mkdir(parents=True)
    assert clean_runs(tmp_path, keep=1) == []
    assert names(tmp_path / "artifacts") == ["run-01-a"]
