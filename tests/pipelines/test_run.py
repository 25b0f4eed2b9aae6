"""Whole runs of the compiled pipeline on one machine, each in a new process, as started by a user."""

import json
import math
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import pytest
from mlflow import MlflowClient

from brain_tumor.artifacts.dataset import open_dataset
from brain_tumor.artifacts.evaluation import read_evaluation
from brain_tumor.artifacts.model import open_model
from brain_tumor.config import SyntheticDataset
from brain_tumor.config.training import BOTH, MONITORS
from brain_tumor.configure import configure
from brain_tumor.ingest.ingest import SYNTHETIC_NOTICE
from brain_tumor.ingest.sources.synthetic import write_export
from brain_tumor.reports.evaluation_tables import DASH
from brain_tumor.stores.files import hash_files
from tests.pipelines.local_run import GATE, JUDGEMENT, KINDS, PHASES, QUICK, STEPS, Outcome, run, start


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with `runs/` of the runs below."""
    return tmp_path_factory.mktemp("project")


@pytest.fixture(scope="module")
def first(root: Path) -> Outcome:
    """A whole run: five trainings."""
    outcome = run(root, *QUICK)
    assert outcome.code == 0, outcome.stderr
    return outcome


@pytest.fixture(scope="module")
def second(root: Path, first: Outcome) -> Outcome:
    """The same run again."""
    outcome = run(root, *QUICK)
    assert outcome.code == 0, outcome.stderr
    return outcome


@pytest.fixture(scope="module")
def crowned(root: Path, second: Outcome) -> None:
    """Makes the first run's model the champion manually."""
    make = [sys.executable, "-c", "from brain_tumor.cli import main; main()", "champion"]
    runs = {**os.environ, "BRAIN_TUMOR_MLFLOW": str(root / "runs")}
    unknown = subprocess.run([*make, "7"], env=runs, capture_output=True, text=True)
    assert (unknown.returncode, unknown.stderr) == (2, "The model brain-tumor has no version 7; it has 1.\n")
    chosen = subprocess.run([*make, "1"], env=runs, capture_output=True, text=True)
    assert chosen.stdout == "brain-tumor version 1 is the champion.\n", chosen.stderr


@pytest.fixture(scope="module")
def third(root: Path, crowned: None) -> Outcome:
    """The same with another learning rate in phase 3."""
    outcome = run(root, *QUICK, "phases.phase3_finetune.learning_rate=1e-4")
    assert outcome.code == 0, outcome.stderr
    return outcome


@pytest.fixture(scope="module")
def artifacts(first: Outcome) -> dict[str, Path]:
    """The first run's artifacts by name."""
    return {name: Path(path) for name, path in first.history[0]["artifacts"].items()}


def test_every_step_runs_once(first: Outcome) -> None:
    assert len(first.executed) == len(STEPS) and set(first.executed) == STEPS
    assert first.cached == []
    assert list(first.history[0]["executed"]) == first.executed
    assert ": 14 steps run, 0 cached" in first.stdout


def test_the_steps_run_in_their_order(first: Outcome) -> None:
    order = first.executed.index
    assert order("ingest") < order("build TFRecords") < order("baseline classification")
    assert order("train: phase1 box") < order("phase2 classification")
    assert order("phase2 classification") < order("train: phase3 finetune") < order("evaluate")
    assert order("evaluate") < min(order(title) for title in JUDGEMENT - {"evaluate"})


def test_every_artifact_is_complete(artifacts: dict[str, Path]) -> None:
    assert set(artifacts) == {*KINDS, "gallery"}
    for name, kind in KINDS.items():
        hashes = hash_files(artifacts[name])
        hashes.pop("manifest.json")
        manifest = json.loads((artifacts[name] / "manifest.json").read_text())
        assert manifest["kind"] == kind
        listed = manifest["files"]
        if name == "dataset":
            images = open_dataset(artifacts[name]).images
            listed |= dict(zip("images/" + images["source_id"], images["sha256"], strict=True))
        assert listed == hashes
        assert hashes


def test_the_table_has_every_model_and_dashes_where_a_model_has_no_figure(first: Outcome) -> None:
    rows = first.rows
    assert list(rows) == [
        "model",
        "final model",
        "baseline classification (frozen random backbone)",
        "baseline box (frozen random backbone)",
        "constant baseline",
    ]
    assert rows["model"] == ["macro_f1", "mean_iou", "recall_at_50", "box_ap50", "MLflow run"]
    shown = {title: [cell != DASH for cell in cells[:3]] for title, cells in rows.items()}
    assert shown["final model"] == [True, True, True]
    assert shown["baseline classification (frozen random backbone)"] == [True, False, False]
    assert shown["baseline box (frozen random backbone)"] == [False, True, True]
    assert shown["constant baseline"] == [True, True, True]
    figures = [float(cell) for title in list(rows)[1:] for cell in rows[title][:4] if cell != DASH]
    assert all(0 <= figure <= 1 for figure in figures)


def test_the_result_names_the_data(first: Outcome) -> None:
    assert first.stdout.strip().startswith(SYNTHETIC_NOTICE)
    assert re.search(r"^Split test: 2 patients, 16 images, \d+ true boxes\.$", first.stdout, re.MULTILINE)
    # The verdict comes first.
    assert (
        first.stdout.index("The final model ")
        < first.stdout.index("The boxes ")
        < first.stdout.index("\nmodel ")
    )
    # With fewer than ten patients the reason is printed instead of an interval.
    assert re.search(
        r"^constant baseline +all labels +[+-]0\.\d{3} +[+-]0\.\d{3} ", first.stdout, re.MULTILINE
    )
    assert re.search(r"^No interval: only 2 patients", first.stdout, re.MULTILINE)


def test_the_report_is_a_page_that_says_synthetic_data(first: Outcome) -> None:
    found = re.search(r"^Report: (.+)$", first.stdout, re.MULTILINE)
    assert found
    page = Path(found[1]).read_text()
    assert page.startswith("<!doctype html>")
    assert SYNTHETIC_NOTICE in page
    assert "data:image/" in page
    name = first.history[0]["name"]
    assert f"<p>Run {name}</p>" in page
    report = Path(first.history[0]["artifacts"]["evaluation"]).with_name("report")
    assert f"\nRun {name}\n" in report.read_text()


def test_mlflow_has_one_parent_run_and_one_nested_run_per_training(first: Outcome) -> None:
    parents = [found for found in first.mlflow_runs if "mlflow.parentRunId" not in found.data.tags]
    nested = [found for found in first.mlflow_runs if "mlflow.parentRunId" in found.data.tags]
    assert [found.info.run_id for found in parents] == [first.history[0]["mlflow_run_id"]]
    assert f"MLflow: run {parents[0].info.run_id}" in first.stdout
    assert sorted(found.info.run_name for found in nested) == sorted(PHASES)
    assert {found.data.tags["mlflow.parentRunId"] for found in nested} == {parents[0].info.run_id}
    assert {found.info.status for found in first.mlflow_runs} == {"FINISHED"}
    assert {found.info.experiment_id for found in nested} == {parents[0].info.experiment_id}


def test_mlflow_has_the_figures_of_every_epoch(root: Path, first: Outcome) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{root / 'runs' / 'mlflow.db'}")
    nested = {found.info.run_name: found for found in first.mlflow_runs}
    for phase in PHASES:
        run_id = nested[phase].info.run_id
        epochs = [1, 2] if phase == "phase2_classification" else [1]
        monitored = nested[phase].data.params["phase.monitor"]
        # A phase evaluates its start model before the first epoch.
        measured = [0, *epochs] if nested[phase].data.params["phase.start"] != "None" else epochs
        for name, steps in {"loss": epochs, "learning_rate": epochs, "val_loss": measured}.items():
            assert [metric.step for metric in client.get_metric_history(run_id, name)] == steps
        names = list(MONITORS.values()) if monitored == BOTH else [monitored]
        histories = [[each.value for each in client.get_metric_history(run_id, name)] for name in names]
        best = max(zip(*histories, strict=True), key=sum)
        assert tuple(nested[phase].data.metrics[f"best_{name}"] for name in names) == best


def test_mlflow_has_the_final_figures_and_the_report(
    root: Path, first: Outcome, artifacts: dict[str, Path]
) -> None:
    parent = next(found for found in first.mlflow_runs if "mlflow.parentRunId" not in found.data.tags)
    assert f"{parent.data.metrics['macro_f1']:.3f}" == first.rows["final model"][0]
    assert f"{parent.data.metrics['constant/mean_iou']:.3f}" == first.rows["constant baseline"][1]
    assert parent.data.metrics == pytest.approx(read_evaluation(artifacts["evaluation"]).metrics())
    # Undefined figures are left out, not zero.
    assert not {"baseline_box/macro_f1", "baseline_classification/mean_iou"} & set(parent.data.metrics)
    assert parent.data.params["overrides"] == " ".join(QUICK)
    assert list((root / "runs" / "mlflow-artifacts" / parent.info.run_id).rglob("*.html"))


def test_mlflow_has_the_final_model_once(root: Path, first: Outcome) -> None:
    nested = {found.info.run_name: found.info.run_id for found in first.mlflow_runs}
    assert [model.source_run_id for model in first.logged_models] == [nested["phase3_finetune"]]
    assert len(list((root / "runs" / "mlflow-artifacts").rglob("*.keras"))) == 1


def test_the_table_names_the_mlflow_runs_of_the_models(first: Outcome, artifacts: dict[str, Path]) -> None:
    nested = {found.info.run_name: found.info.run_id for found in first.mlflow_runs}
    rows = first.rows
    assert rows["final model"][4] == nested["phase3_finetune"]
    assert rows["baseline classification (frozen random backbone)"][4] == nested["baseline_classification"]
    assert rows["baseline box (frozen random backbone)"][4] == nested["baseline_box"]
    assert len(rows["constant baseline"]) == 4
    for phase in PHASES:
        assert open_model(artifacts[phase]).description.mlflow_run_id == nested[phase]


def test_the_dashboard_gets_only_finite_figures(artifacts: dict[str, Path]) -> None:
    folder = artifacts["predictions"].parent
    output = json.loads((folder / "executor_output.json").read_text(), parse_constant=pytest.fail)
    logged = output["artifacts"]["metrics"]["artifacts"][0]["metadata"]
    assert logged == json.loads((folder / "metrics").read_text(), parse_constant=pytest.fail)
    assert logged == read_evaluation(artifacts["evaluation"]).summary()
    assert list(logged) == sorted(logged)
    assert all(math.isfinite(value) for value in logged.values())
    assert {"macro_f1", "mean_iou", "vs_constant_mean_iou"} <= set(logged)


def test_a_model_on_disk_has_no_optimizer_state(artifacts: dict[str, Path]) -> None:
    for phase in PHASES:
        with (
            zipfile.ZipFile(artifacts[phase] / "model.keras") as archive,
            archive.open("model.weights.h5") as member,
            h5py.File(member) as weights,
        ):
            assert "layers" in weights
            assert "optimizer" not in weights


def test_the_later_phases_start_from_the_earlier_ones(artifacts: dict[str, Path]) -> None:
    description = open_model(artifacts["phase3_finetune"]).description
    assert [phase.name for phase in description.phases] == list(PHASES[2:])
    assert (description.backbone.name, description.backbone.weights) == ("resnet101", "none")
    baseline = open_model(artifacts["baseline_box"]).description
    assert [phase.name for phase in baseline.phases] == ["baseline_box"]


def test_an_unchanged_run_runs_nothing(first: Outcome, second: Outcome) -> None:
    assert set(second.executed) == GATE
    assert set(second.cached) == STEPS - GATE
    assert second.history == first.history
    assert ": 1 steps run, 13 cached" in second.stdout


def test_the_registry_gets_the_final_model_once(root: Path, first: Outcome, second: Outcome) -> None:
    client = MlflowClient(f"sqlite:///{root / 'runs' / 'mlflow.db'}")
    runs = [version.run_id for version in client.search_model_versions("name = 'brain-tumor'")]
    assert len(runs) == len(set(runs))
    # Two test patients are too few to show that it is better than the constant baseline.
    report = "brain-tumor/1 is the challenger. Whether it is as good as the constant baseline"
    assert report in first.stderr and report in second.stderr


@pytest.mark.heavy
def test_a_later_model_is_compared_with_the_champion(crowned: None, third: Outcome) -> None:
    assert "brain-tumor/2 is the challenger. Whether it is as good as the champion, version 1" in third.stderr


def test_an_unchanged_run_opens_no_mlflow_run(first: Outcome, second: Outcome) -> None:
    assert len(second.mlflow_runs) == len(first.mlflow_runs)
    assert len(second.logged_models) == 1
    assert "MLflow: no new run, since no step ran" in second.stdout


def test_an_unchanged_run_prints_the_same(first: Outcome, second: Outcome) -> None:
    def result(outcome: Outcome) -> str:
        return re.sub(r"^(MLflow|Run): .*$", "", outcome.stdout, flags=re.MULTILINE)

    assert result(second) == result(first)
    assert second.rows == first.rows


def test_the_data_report_is_a_page_beside_the_report(root: Path, first: Outcome) -> None:
    found = re.search(r"^Data:   (.+) \((\d+) findings?\)$", first.stdout, re.MULTILINE)
    assert found
    page = Path(found[1])
    assert page == root / "runs" / "reports" / f"{first.history[0]['name']}-data.html"
    assert page.read_text().startswith("<!doctype html>")
    assert found[2] == "0"


@pytest.mark.heavy
def test_all_results_of_a_run_have_its_name(root: Path, first: Outcome, third: Outcome) -> None:
    names = [record["name"] for record in third.history]
    assert len(set(names)) == 2
    for name, last in zip(names, ("phase3-epochs=1", "phase3-lr=1e-4"), strict=True):
        assert re.fullmatch(rf"{last}-.*-\d{{4}}-\d{{6}}", name)
    runs = root / "runs"
    for name, outcome in zip(names, (first, third), strict=True):
        assert f"Run:    {name}: " in outcome.stdout
        for path in (
            f"logs/{name}.log",
            f"pipelines/{name}.yaml",
            f"history/{name}.json",
            f"reports/{name}.html",
        ):
            assert (runs / path).is_file()
        assert (runs / "artifacts" / name).is_dir()
        assert name in [found.info.run_name for found in outcome.mlflow_runs]


@pytest.mark.heavy
def test_another_learning_rate_runs_its_phase_and_what_follows(first: Outcome, third: Outcome) -> None:
    assert set(third.executed) == {"train: phase3 finetune"} | JUDGEMENT | GATE
    assert set(third.cached) == STEPS - set(third.executed)
    assert (
        third.history[1]["artifacts"]["phase2_classification"]
        == (first.history[0]["artifacts"]["phase2_classification"])
    )


@pytest.mark.heavy
def test_a_run_names_the_one_before_and_how_it_differs(
    first: Outcome, second: Outcome, third: Outcome
) -> None:
    """With two patients there are no intervals, and therefore no verdict."""
    assert "Before:" not in first.stdout + second.stdout
    [line] = re.findall("^Before: .*", third.stdout, re.MULTILINE)
    before = first.history[0]["name"]
    assert line.startswith(f"Before: {before} (without phases.phase3_finetune.learning_rate=1e-4): macro_f1 ")
    assert re.search(r"mean_iou [+-]0\.\d{3} inconclusive, recall_at_50", line)
    assert line.endswith(" (no interval: only 2 patients, 10 are needed)")


@pytest.mark.heavy
def test_a_cached_baseline_keeps_the_mlflow_run_that_made_it(first: Outcome, third: Outcome) -> None:
    for title in (
        "baseline classification (frozen random backbone)",
        "baseline box (frozen random backbone)",
        "constant baseline",
    ):
        assert third.rows[title] == first.rows[title]

    older = {found.info.run_id for found in first.mlflow_runs}
    newer = {found.info.run_id: found for found in third.mlflow_runs if found.info.run_id not in older}
    parent = third.history[1]["mlflow_run_id"]
    final = third.rows["final model"][4]
    assert set(newer) == {parent, final}
    assert newer[final].data.tags["mlflow.parentRunId"] == parent
    assert newer[final].data.params["phase.learning_rate"] == "0.0001"


def test_a_misspelled_override_leaves_no_run(tmp_path: Path) -> None:
    refused = run(tmp_path, "datset=1")
    assert refused.code == 2
    assert refused.stdout == ""
    assert refused.stderr.count("\n") == 1
    for word in ("datset=1", "dataset", "profile", "phases"):
        assert word in refused.stderr
    assert list(tmp_path.iterdir()) == []

    as_a_module = start(["-m", "pipelines.run", "datset=1"])
    assert as_a_module.communicate() == ("", refused.stderr)
    assert as_a_module.returncode == 2


def test_a_folder_without_images_fails_the_step_ingest(tmp_path: Path) -> None:
    data = tmp_path / "empty"
    data.mkdir()
    # Without given labels they would be searched for before any step.
    outcome = run(tmp_path, "dataset=directory", f"dataset.path={data}", "dataset.labels=[tumor]")

    assert outcome.code == 2
    assert outcome.stdout == ""
    assert outcome.executed == ["ingest"]
    sentence, log = outcome.stderr.splitlines()[-2:]
    assert sentence.startswith(
        f"The step 'ingest' failed: The dataset folder {data} holds none of train/, valid/, test/"
    )
    assert Path(log.removeprefix("Log: ")).is_file()
    assert outcome.history == []


def test_steps_before_a_failure_are_not_repeated(tmp_path: Path) -> None:
    store = tmp_path / "elsewhere.db"
    config = configure(QUICK).dataset
    assert isinstance(config, SyntheticDataset)
    write_export(tmp_path / "export", config)
    data = ["dataset=directory", f"dataset.path={tmp_path / 'export'}"]
    variables = {"MLFLOW_TRACKING_URI": f"sqlite:///{store}"}

    # A cluster may have a file that this machine lacks, so only the first training detects this.
    absent = tmp_path / "absent.keras"
    failed = run(tmp_path, *data, f"model.weights={absent}", store=store, **variables)
    assert failed.code == 2
    # Which training is first differs between runs.
    *done, training = failed.executed
    assert done == ["ingest", "build TFRecords"]
    assert f"The step '{training}' failed: model.weights={absent} does not exist; give" in failed.stderr
    assert failed.history == []

    again = run(tmp_path, *data, f"model.weights={absent.with_name('other.keras')}", store=store, **variables)
    assert again.cached == ["ingest", "build TFRecords"]
    assert len(again.executed) == 1
