from datetime import datetime
from pathlib import Path

import pytest

from brain_tumor.configure import configure
from pipelines.naming import MAX_LENGTH, run_name
from pipelines.run import prepare
from pipelines.targets.target import load_target

TIME = datetime(2026, 5, 4, 13, 2, 1)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([], "quick"),
        (["profile=full"], "full"),
        (["profile=full", "phases=joint"], "joint-full"),
        (["phases.phase3_finetune.learning_rate=3e-5"], "phase3-lr=3e-5"),
        (["training.batch_size=32", "model=resnet50"], "model=resnet50-batch=32"),
        (["~phases.baseline_box"], "no-baseline_box"),
        (["+phases.phase4={start: phase3_finetune, epochs: 5}", "final=phase4"], "final=phase4-phase4"),
        (
            ["dataset=directory", "dataset.path=/data/mein Export [1], größe/"],
            "path=meinExport1gre-dataset=directory",
        ),
        (["dataset=bucket", "dataset.uri=s3://bucket/a/export.zip"], "uri=export.zip-dataset=bucket"),
    ],
)
def test_a_run_is_named_after_its_overrides(overrides: list[str], words: str) -> None:
    name = run_name(overrides, TIME)
    assert name.startswith(words)
    assert name.endswith("-0504-130201")
    assert len(name) <= MAX_LENGTH + len("-0504-130201")
    assert not set(name) & set(" /[]{},:'\"*?\\")


def test_a_later_run_with_the_same_overrides_has_another_name() -> None:
    assert run_name([], TIME) != run_name([], TIME.replace(second=2))


def test_runs_that_differ_in_their_last_override_differ_in_what_the_dashboard_shows() -> None:
    shared = ["dataset.train_patients=4", "dataset.valid_patients=2", "model.image_size=32"]
    rates = [[*shared, f"phases.phase3_finetune.learning_rate={rate}"] for rate in ("1e-4", "3e-5")]
    assert len({run_name(overrides, TIME)[:25] for overrides in rates}) == 2


def test_runs_started_at_the_same_moment_have_different_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.run.run_name", lambda overrides, time: run_name(overrides, TIME))
    configs, target = configure([]), load_target("local")
    jobs = [prepare(configs, [], tmp_path, target, tmp_path / "pipelines") for _ in range(3)]
    assert [job.name for job in jobs] == [f"quick-0504-130201{end}" for end in ("", "-2", "-3")]
    assert {job.compiled for job in jobs} == set((tmp_path / "pipelines").iterdir())
