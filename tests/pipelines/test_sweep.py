"""Sweeps: their runs, the runs' names, and their results. All tests but one use stand-ins for runs."""

import os
import signal
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from brain_tumor.runtime.errors import InputError
from pipelines import sweep as module
from pipelines.naming import sweep_names
from pipelines.run import RunError
from pipelines.runners.runner import Job
from pipelines.sweep import Sweep, split_overrides
from pipelines.targets.target import load_target
from tests.pipelines.local_run import JOINT, finish, start
from tests.unit.recorded_runs import make_answers, write_run

TIME = datetime(2026, 5, 4, 13, 2, 1)


@pytest.mark.parametrize(
    ("overrides", "shared", "changes"),
    [
        (
            ["seed=1,2", "phases=joint,mission", "profile=quick"],
            ["profile=quick"],
            [
                ["seed=1", "phases=joint"],
                ["seed=1", "phases=mission"],
                ["seed=2", "phases=joint"],
                ["seed=2", "phases=mission"],
            ],
        ),
        (["seed=range(0,3)"], [], [["seed=0"], ["seed=1"], ["seed=2"]]),
        (["model=glob(resnet101*)"], [], [["model=resnet101"], ["model=resnet101v2"]]),
        # A list is one value, and so is a string that Hydra cannot parse.
        (
            ["dataset.labels=[a,b]", "dataset.path=/data/my export (1)", "seed=1,2"],
            ["dataset.labels=[a,b]", "dataset.path=/data/my export (1)"],
            [["seed=1"], ["seed=2"]],
        ),
        (["dataset.path='/a,b',/c"], [], [["dataset.path='/a,b'"], ["dataset.path=/c"]]),
    ],
)
def test_the_runs_are_the_combinations_of_the_values(
    overrides: list[str], shared: list[str], changes: list[list[str]]
) -> None:
    assert split_overrides(overrides) == (shared, changes)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([], "several values"),
        (["seed=1", "dataset.labels=[a,b]"], "several values"),
        (["seed=interval(0,1)"], "cannot be listed"),
    ],
)
def test_overrides_that_are_not_a_sweep_are_refused(overrides: list[str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        split_overrides(overrides)


def test_runs_have_unique_names_from_their_overrides() -> None:
    changes = [["phases.joint.learning_rate=0.001"], ["phases.joint.learning_rate=0.01"]]
    assert sweep_names(changes, ["phases=joint"], TIME) == [
        "joint-lr=0.001-joint-0504-130201",
        "joint-lr=0.01-joint-0504-130201",
    ]
    paths = [["dataset.path=/a/export"], ["dataset.path=/b/export"]]
    assert sweep_names(paths, [], TIME) == ["path=export-0504-130201-1", "path=export-0504-130201-2"]


def test_a_bad_value_is_detected_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="final_width"):
        Sweep(["seed=1,2", "model.final_width=3"], tmp_path, load_target("local"))
    with pytest.raises(InputError, match="batch_size"):
        Sweep(["training.batch_size=8,0"], tmp_path, load_target("local"))
    assert list(tmp_path.iterdir()) == []


class StandInRuns:
    """Writes a run's files instead of running a job, or fails."""

    def __init__(self, failing: str = "") -> None:
        self.failing = failing
        self.jobs: list[Job] = []

    def __call__(self, job: Job, *arguments: Any, recorded: bool) -> dict[str, Path]:
        assert recorded
        self.jobs.append(job)
        if self.failing in job.overrides:
            raise RunError("The step 'evaluate' failed: no space.")
        write_run(
            job.runs,
            job.name,
            make_answers(noise=5.0 * len(self.jobs)),
            minute=len(self.jobs),
            overrides=job.overrides,
        )
        return {}


def test_all_runs_are_compared_with_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = StandInRuns()
    monkeypatch.setattr(module, "execute", runs)
    sweep = Sweep(["seed=range(1,9)", "phases=joint"], tmp_path, load_target("local"))
    sweep.run()
    names = [job.name for job in runs.jobs]
    assert len(set(names)) == 8
    assert [job.overrides for job in runs.jobs] == [["phases=joint", f"seed={seed}"] for seed in range(1, 9)]
    assert [job.configs.dataset.split_seed for job in runs.jobs] == list(range(1, 9))
    printed = capsys.readouterr().out
    rows = {line.split()[0]: line.split()[1:] for line in printed.splitlines() if line.startswith("seed=")}
    assert list(rows) == names
    assert rows[names[2]][0] == "seed=3"
    assert all(0 < float(cell) < 1 for cell in rows[names[2]][1:])
    # A comparison is limited to six runs.
    pages = sorted((tmp_path / "reports").glob("compare-*.html"))
    assert len(pages) == 2
    assert all(names[0] in page.read_text() for page in pages)
    assert printed.count(f"A  {names[0]} (seed=1)") == 2
    assert f"F  {names[5]} (seed=6)" in printed
    assert f"C  {names[7]} (seed=8)" in printed


def test_a_failed_run_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "execute", StandInRuns(failing="seed=2"))
    sweep = Sweep(["seed=1,2,3"], tmp_path, load_target("local"))
    with pytest.raises(SystemExit) as ended:
        sweep.run()
    assert ended.value.code == 1
    first, second, third = sweep.changes
    assert sweep.done == [first, third]
    printed = capsys.readouterr()
    assert "\nRun 2 of 3: seed=2\nThe step 'evaluate' failed: no space.\n" in printed.err
    assert f"{second} (failed)  seed=2" in printed.out
    assert f"B  {third} (seed=3)" in printed.out


def test_with_a_single_success_there_is_no_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "execute", StandInRuns(failing="seed=2"))
    sweep = Sweep(["seed=1,2"], tmp_path, load_target("local"))
    with pytest.raises(SystemExit):
        sweep.run()
    assert "seed=1" in capsys.readouterr().out
    assert not (tmp_path / "reports").exists()


def test_an_interrupt_keeps_what_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = StandInRuns()

    def execute(job: Job, *arguments: Any, recorded: bool) -> dict[str, Path]:
        if len(runs.jobs) == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return runs(job, *arguments, recorded=recorded)

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.setattr(module, "execute", execute)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["sweep", "seed=1,2"])
    try:
        with pytest.raises(SystemExit) as ended:
            module.main()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert ended.value.code == 130
    [job] = runs.jobs
    assert f"resumes the run; finished: {job.name}." in capsys.readouterr().err
    assert (tmp_path / "runs" / "history" / f"{job.name}.json").is_file()


@pytest.mark.campaign
def test_a_sweep_for_real(tmp_path: Path) -> None:
    """Two runs, the second of which repeats what depends on the learning rate, and a fully cached third."""
    overrides = [*JOINT, "phases.joint.learning_rate=1e-3,1e-4"]
    outcome = finish(
        start(["-m", "tests.programs.in_folder", "pipelines.sweep", str(tmp_path), *overrides]), tmp_path
    )
    assert outcome.code == 0, outcome.stderr
    first, second = outcome.history
    assert first["name"].startswith("joint-lr=0.001-")
    assert second["name"].startswith("joint-lr=0.0001-")
    assert {"ingest", "build TFRecords"} <= set(second["cached"])
    assert "train: joint" in second["executed"]
    [page] = (tmp_path / "runs" / "reports").glob("compare-*.html")
    assert all(record["name"] in page.read_text() for record in (first, second))
    assert f"A  {first['name']} (phases.joint.learning_rate=0.001)" in outcome.stdout

    again = finish(
        start(["-m", "tests.programs.in_folder", "pipelines.sweep", str(tmp_path), *overrides]), tmp_path
    )
    assert again.code == 0, again.stderr
    assert set(again.executed) == {"gate"}
    assert len(list((tmp_path / "runs" / "reports").glob("compare-*.html"))) == 2
