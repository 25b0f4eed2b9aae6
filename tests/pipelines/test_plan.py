"""The plan, compared with what the run then does."""

import re
from pathlib import Path

import pytest

from tests.pipelines.local_run import GATE, JOINT, JUDGEMENT, Outcome, run, start

pytestmark = pytest.mark.heavy

STEPS = {"ingest", "build TFRecords", "train: joint"} | JUDGEMENT | GATE


def plan(root: Path, *overrides: str) -> dict[str, tuple[str, str]]:
    """The plan for each step: whether it runs, and why."""
    process = start(["-m", "tests.programs.in_folder", "pipelines.plan", str(root), *overrides])
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr
    header, _, *lines = stdout.splitlines()
    assert header.split() == ["step", "plan", "reason"]
    rows = [re.split(r"\s{2,}", line) for line in lines if re.search(r"\S\s{2,}\S", line)]
    found = {title: (state, why) for title, state, why in rows}
    running = [title for title, (state, _) in found.items() if state == "runs"]
    assert lines[-1] == f"{len(running)} steps would run, {len(found) - len(running)} are cached."
    return found


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("project")


@pytest.fixture(scope="module")
def first(root: Path) -> Outcome:
    planned = plan(root, *JOINT)
    assert {title: state for title, (state, _) in planned.items()} == dict.fromkeys(STEPS, "runs")
    assert planned["ingest"] == ("runs", "there is no earlier run")
    assert planned["build TFRecords"] == ("runs", "after ingest")
    assert not (root / "runs").exists(), "a plan writes nothing"
    outcome = run(root, *JOINT)
    assert outcome.code == 0, outcome.stderr
    return outcome


def test_a_single_joint_training_needs_only_configuration(first: Outcome) -> None:
    assert set(first.executed) == STEPS
    assert list(first.rows) == ["model", "final model", "constant baseline"]
    assert "joint" in {found.info.run_name for found in first.mlflow_runs}


def test_an_unchanged_run_is_fully_cached(root: Path, first: Outcome) -> None:
    expected = dict.fromkeys(STEPS, ("cached", "unchanged")) | {"gate": ("runs", "it runs in every run")}
    assert plan(root, *JOINT) == expected


def test_changes_are_named_and_later_steps_run_too(root: Path, first: Outcome) -> None:
    changes = ["evaluate.threshold=0.4", "visualize.gallery_images=3"]
    planned = plan(root, *JOINT, *changes)
    assert planned["evaluate"] == ("runs", "threshold tuned -> 0.4")
    assert planned["visualize"] == ("runs", "after evaluate")
    assert planned["train: joint"] == ("cached", "unchanged")

    outcome = run(root, *JOINT, *changes)
    assert set(outcome.executed) == {title for title, (state, _) in planned.items() if state == "runs"}
    assert set(outcome.cached) == {title for title, (state, _) in planned.items() if state == "cached"}


def test_deleted_results_are_recreated(root: Path, first: Outcome) -> None:
    records = Path(first.history[0]["artifacts"]["records"])
    moved = records.rename(records.with_name("elsewhere"))
    try:
        planned = plan(root, *JOINT)
    finally:
        moved.rename(records)
    assert planned["ingest"] == ("cached", "unchanged")
    assert planned["build TFRecords"] == ("runs", "never run before, or its result was deleted")
    assert planned["train: joint"] == ("runs", "after build TFRecords")
