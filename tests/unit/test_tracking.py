from pathlib import Path

import pytest
from mlflow import MlflowClient

from brain_tumor.runtime.tracking import EXPERIMENT, PARENT, Run, open_run, parent_run_id


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a SQLite store; making its tables takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture
def client(store: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> MlflowClient:
    """A client of the store that the environment names, with an experiment of the test's own."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", request.node.name)
    return MlflowClient()


def test_a_training_is_a_run_inside_of_the_pipelines(
    client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "report.html"
    page.write_text("<p>")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME")
    with open_run("pipeline", artifact_location=(tmp_path / "artifacts").as_uri()) as parent:
        monkeypatch.setenv(PARENT, parent.id)
        assert client.get_run(parent.id).info.status == "RUNNING"
        with open_run("phase1_box", parent_run_id()) as run:
            run.log_params({"phase": {"learning_rate": 1e-4, "heads": ["labels"]}, "seed": 0})
            for epoch, value in enumerate([0.25, 0.5], start=1):
                run.log_metrics({"val_boxes_iou": value, "loss": 1 - value}, step=epoch)
            run.set_tags({"model": "a/path"})
        parent.log_file(page)

    # Anything that looks at the store sees it: this is not what the run remembers of itself.
    [experiment] = client.search_experiments(filter_string=f"name = '{EXPERIMENT}'")
    by_name = {found.info.run_name: found for found in client.search_runs([experiment.experiment_id])}
    assert set(by_name) == {"pipeline", "phase1_box"}
    child = by_name["phase1_box"]
    assert child.data.tags["mlflow.parentRunId"] == by_name["pipeline"].info.run_id == parent.id
    assert "mlflow.parentRunId" not in by_name["pipeline"].data.tags
    assert child.data.params == {
        "phase.learning_rate": "0.0001",
        "phase.heads": "['labels']",
        "seed": "0",
    }
    history = client.get_metric_history(child.info.run_id, "val_boxes_iou")
    assert [(point.step, point.value) for point in history] == [(1, 0.25), (2, 0.5)]
    assert child.data.metrics == {"val_boxes_iou": 0.5, "loss": 0.5}
    assert child.data.tags["model"] == "a/path"
    assert {found.info.status for found in by_name.values()} == {"FINISHED"}
    [logged] = (tmp_path / "artifacts").rglob("report.html")
    assert logged.read_text() == "<p>"


@pytest.mark.parametrize("error", [OSError("disk full"), SystemExit(2), KeyboardInterrupt()], ids=repr)
def test_a_run_that_fails_is_marked_so(client: MlflowClient, error: BaseException) -> None:
    ids = []

    def fail() -> None:
        with open_run("phase1_box") as run:
            ids.append(run.id)
            raise error

    with pytest.raises(type(error)):
        fail()
    assert client.get_run(ids[0]).info.status == "FAILED"


def test_a_run_that_was_killed_is_ended_by_the_one_that_goes_on(
    client: MlflowClient, caplog: pytest.LogCaptureFixture
) -> None:
    with open_run("phase1_box") as finished:
        pass
    killed = client.create_run(client.get_run(finished.id).info.experiment_id).info.run_id
    for run_id, status in ((killed, "KILLED"), (finished.id, "FINISHED")):
        with open_run("phase1_box") as run:
            run.take_over(run_id)
        assert client.get_run(run_id).info.status == status
        assert client.get_run(run.id).data.tags["goes_on_from"] == run_id
    with open_run("phase1_box") as run:
        run.take_over("0" * 32)
    assert f"The MLflow run {'0' * 32}, which this one goes on from" in caplog.text


def test_a_second_run_joins_the_experiment(client: MlflowClient) -> None:
    ids = []
    for _ in range(2):
        with open_run("pipeline") as run:
            ids.append(run.id)
    [experiment] = client.search_experiments(filter_string="name LIKE 'test_a_second_run%'")
    assert {run.info.run_id for run in client.search_runs([experiment.experiment_id])} == set(ids)
    assert len(set(ids)) == 2


def test_an_injected_experiment_is_honoured(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    given = client.create_experiment("given by the backend")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", given)
    with open_run("pipeline") as run:
        pass
    assert client.get_run(run.id).info.experiment_id == given


def test_without_a_tracking_address_nothing_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    with open_run("pipeline", "a parent") as run:
        assert isinstance(run, Run) and run.id == ""
        run.log_params({"a": 1})
        run.log_metrics({"b": 2.0})
        run.set_tags({"c": "d"})
        run.take_over("e")
        run.log_file(tmp_path / "missing.html")
        run.log_model(None)
    assert list(tmp_path.iterdir()) == []
