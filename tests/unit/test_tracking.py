import time
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from mlflow import MlflowClient, MlflowException
from pydantic import TypeAdapter

from brain_tumor.config.dataset import Labels, metric_name
from brain_tumor.runtime import environment, tracking
from brain_tumor.runtime.errors import InputError
from brain_tumor.runtime.events import EventReader
from brain_tumor.runtime.step import step
from brain_tumor.runtime.tracking import EXPERIMENT, NAME_TAG, Run, end_unfinished, open_run, pipeline_run
from tests.unit.disks import fill, small_disk

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a SQLite store; creating its tables takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture
def client(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> MlflowClient:
    """A client of the store set in the environment, with a separate experiment for the test."""
    monkeypatch.chdir(tmp_path)  # MLflow writes a file store's artifacts to the working folder
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", request.node.name)
    return MlflowClient()


def nested(client: MlflowClient, parent: str) -> list[str]:
    """The names of the runs nested in another."""
    experiment = client.get_run(parent).info.experiment_id
    found = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent}'")
    return sorted(each.info.run_name for each in found)


ODD_LABELS = [
    *("a,b", "a+c", "a&d", "a (e)", "50%", "a//f", "a/./g", "a/../h", "/i", "j/", "./k", "..", "a|l", "a\\m"),
    *("Ödem", "大脑", "a:n", "a.o", "'p'", '"q"', "<r>", "$s$", "#", "x" * 100),
]


def test_mlflow_accepts_the_figures_of_every_valid_label(client: MlflowClient) -> None:
    """Otherwise a run would end with MLflow's traceback after all steps."""
    labels = TypeAdapter(Labels).validate_python(ODD_LABELS)
    names = [
        name.format(metric_name(label))
        for label in labels
        for name in ("final/{}/f1", "val_boxes_iou_{}", "best_val_boxes_ap50_{}")
    ]
    with open_run("phase1_box") as run:
        run.log_metrics(dict.fromkeys(names, 0.5))
    assert client.get_run(run.id).data.metrics.keys() == set(names)


def test_more_figures_than_mlflow_accepts_at_once(client: MlflowClient) -> None:
    figures = {f"final/label {number}/f1": number / 2000 for number in range(1500)}
    with open_run("phase1_box") as run:
        run.log_metrics(figures)
    assert client.get_run(run.id).data.metrics == figures


def test_a_training_is_nested_in_the_pipelines_run(
    client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME")
    monkeypatch.setenv(environment.RUN, "quick-0504-130201")
    monkeypatch.setenv(environment.OVERRIDES, "seed=1")
    monkeypatch.setenv(environment.RUN_PAGE, "http://127.0.0.1:8080/#/runs/details/{run}")
    monkeypatch.setenv(environment.EVENTS, str(tmp_path / "events.jsonl"))
    with open_run("phase1_box") as run:
        run.log_params({"phase": {"learning_rate": 1e-4, "heads": ["labels"]}, "seed": 0})
        for epoch, value in enumerate([0.25, 0.5], start=1):
            run.log_metrics({"val_boxes_iou": value, "loss": 1 - value}, step=epoch)
        run.set_tags({"model": "a/path"})
    with open_run("phase2_classification"):
        pass
    parent = pipeline_run()
    assert client.get_run(parent.id).info.status == "RUNNING"
    parent.log_text("<p>", "report.html")
    parent.end()

    # Read from the store, not from the run's own state.
    [experiment] = client.search_experiments(filter_string=f"name = '{EXPERIMENT}'")
    by_name = {found.info.run_name: found for found in client.search_runs([experiment.experiment_id])}
    assert set(by_name) == {"quick-0504-130201", "phase1_box", "phase2_classification"}
    child, found_parent = by_name["phase1_box"], by_name["quick-0504-130201"]
    assert nested(client, parent.id) == ["phase1_box", "phase2_classification"]
    assert found_parent.info.run_id == parent.id
    assert found_parent.data.params == {"overrides": "seed=1"}
    assert "mlflow.parentRunId" not in found_parent.data.tags
    link = "http://127.0.0.1:8080/#/runs/details/quick-0504-130201"
    assert found_parent.data.tags["mlflow.note.content"] == f"[The pipeline run]({link})"
    assert child.data.params == {"phase.learning_rate": "0.0001", "phase.heads": "['labels']", "seed": "0"}
    history = client.get_metric_history(child.info.run_id, "val_boxes_iou")
    assert [(point.step, point.value) for point in history] == [(1, 0.25), (2, 0.5)]
    assert child.data.metrics == {"val_boxes_iou": 0.5, "loss": 0.5}
    assert child.data.tags["model"] == "a/path"
    assert {found.info.status for found in by_name.values()} == {"FINISHED"}
    assert {event.text for event in EventReader(tmp_path / "events.jsonl").read()} == {parent.id}


def test_the_runs_own_store_also_has_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(environment.MLFLOW, str(tmp_path))
    monkeypatch.setenv(environment.RUN, "quick")
    pipeline_run().log_text("<p>", "report.html")
    [logged] = (tmp_path / "mlflow-artifacts").rglob("report.html")
    assert logged.read_text() == "<p>"
    assert (tmp_path / "mlflow.db").is_file()


def test_a_run_created_by_a_backend_for_the_step_is_used_and_not_ended(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = client.create_experiment("a backend's")
    parent = client.create_run(experiment).info.run_id
    given = client.create_run(experiment, tags={"mlflow.parentRunId": parent}).info.run_id
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", experiment)
    monkeypatch.setenv("MLFLOW_RUN_ID", given)
    monkeypatch.setenv(environment.RUN, "not used")
    with open_run("phase1_box") as run:
        run.log_metrics({"loss": 1.0})
    assert run.id == given
    assert client.get_run(given).info.status == "RUNNING"
    assert client.get_run(given).data.metrics == {"loss": 1.0}
    assert pipeline_run().id == parent
    assert len(client.search_runs([experiment])) == 2

    # A backend may give the pipeline's run instead.
    monkeypatch.setenv("MLFLOW_RUN_ID", parent)
    with open_run("phase2_classification"):
        pass
    assert len(nested(client, parent)) == 2


def test_two_concurrent_steps_create_one_pipeline_run(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(environment.RUN, "at once")
    real, found = tracking._find, []

    def find_late(*arguments: str) -> str:
        """Responds at first as if the other step had not created the run yet."""
        found.append(real(*arguments))
        if len(found) == 1:
            client.create_run(tracking._experiment(client), tags={NAME_TAG: "at once"})
            time.sleep(0.01)
            return ""
        return real(*arguments)

    monkeypatch.setattr(tracking, "_find", find_late)
    run = pipeline_run()
    [only] = client.search_runs([tracking._experiment(client)])
    assert only.info.run_id == run.id


def test_open_runs_of_killed_processes_are_ended(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(environment.RUN, "killed")
    with open_run("phase1_box") as done:
        pass
    parent = pipeline_run()
    left = client.create_run(
        client.get_run(parent.id).info.experiment_id, tags={"mlflow.parentRunId": parent.id}
    ).info.run_id
    end_unfinished(parent.id, "KILLED")
    states = {run: client.get_run(run).info.status for run in (done.id, parent.id, left)}
    assert states == {done.id: "FINISHED", parent.id: "KILLED", left: "KILLED"}
    end_unfinished("0" * 32, "KILLED")
    assert f"The MLflow run {'0' * 32} stays unchanged" in caplog.text


@pytest.mark.parametrize("error", [OSError("disk full"), SystemExit(2), KeyboardInterrupt()], ids=repr)
def test_a_failed_run_is_marked_as_failed(client: MlflowClient, error: BaseException) -> None:
    ids = []

    def fail() -> None:
        with open_run("phase1_box") as run:
            ids.append(run.id)
            raise error

    with pytest.raises(type(error)):
        fail()
    assert client.get_run(ids[0]).info.status == "FAILED"


def test_a_killed_run_is_ended_by_the_one_that_resumes_it(
    client: MlflowClient, caplog: pytest.LogCaptureFixture
) -> None:
    with open_run("phase1_box") as finished:
        pass
    killed = client.create_run(client.get_run(finished.id).info.experiment_id).info.run_id
    for run_id, status in ((killed, "KILLED"), (finished.id, "FINISHED")):
        with open_run("phase1_box") as run:
            run.resume_from(run_id)
        assert client.get_run(run_id).info.status == status
        assert client.get_run(run.id).data.tags["resumed_from"] == run_id
    with open_run("phase1_box") as run:
        run.resume_from("0" * 32)
    assert f"The MLflow run {'0' * 32}, which this one resumes" in caplog.text


class Failing(BaseHTTPRequestHandler):
    """A server that responds with an internal error."""

    def do_GET(self) -> None:
        self.send_error(500)

    def do_POST(self) -> None:
        self.send_error(500)

    def log_message(self, format: str, *args: object) -> None:
        """Logs nothing."""


@pytest.mark.parametrize("kind", ["gone", "failing", "full disk", "no database", "no address"])
def test_errors_of_mlflow_are_one_sentence(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_SQLALCHEMYSTORE_POOL_SIZE", "1")
    with ExitStack() as stack:
        address = "someone:secret@127.0.0.1:1"
        if kind == "failing":
            server = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), Failing))
            Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
            stack.callback(server.shutdown)
            address = f"someone:secret@127.0.0.1:{server.server_port}"
        elif kind == "full disk":
            fill(stack.enter_context(small_disk(tmp_path / "disk", 64)))
        elif kind == "no database":
            (tmp_path / "disk").mkdir()
            (tmp_path / "disk" / "mlflow.db").write_bytes(b"no database" * 1000)
        uri = (
            f"sqlite:///{tmp_path / 'disk' / 'mlflow.db'}"
            if kind in ("full disk", "no database")
            else f"http://{address}"
        )
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "nothing://x" if kind == "no address" else uri)

        with pytest.raises(SystemExit) as ended, step(), open_run("phase1_box") as run:
            run.log_metrics({"loss": 1.0})

    assert ended.value.code == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("MLflow at ") and "cannot be used" in said and len(said) < 700
    assert "secret" not in said


def test_a_server_that_fails_meanwhile_hides_no_other_error(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> None:
        raise MlflowException("the server is gone")

    with pytest.raises(InputError, match="the loss is nan"), open_run("phase1_box"):
        monkeypatch.setattr(MlflowClient, "set_terminated", gone)
        raise InputError("the loss is nan")
    with pytest.raises(InputError, match="the server is gone"), open_run("phase1_box"):
        pass


def test_a_manually_started_step_has_its_own_run(client: MlflowClient) -> None:
    assert pipeline_run().id == ""
    with open_run("phase1_box") as run:
        pass
    assert "mlflow.parentRunId" not in client.get_run(run.id).data.tags


def test_a_second_run_joins_the_experiment(client: MlflowClient) -> None:
    ids = []
    for _ in range(2):
        with open_run("by hand") as run:
            ids.append(run.id)
    [experiment] = client.search_experiments(filter_string="name LIKE 'test_a_second_run%'")
    assert {run.info.run_id for run in client.search_runs([experiment.experiment_id])} == set(ids)
    assert len(set(ids)) == 2


def test_an_injected_experiment_is_used(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    given = client.create_experiment("given by the backend")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", given)
    with open_run("by hand") as run:
        pass
    assert client.get_run(run.id).info.experiment_id == given


def test_without_a_tracking_address_nothing_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv(environment.RUN, "quick")
    monkeypatch.chdir(tmp_path)
    with open_run("phase1_box") as run:
        assert isinstance(run, Run) and run.id == ""
        run.log_params({"a": 1})
        run.log_metrics({"b": 2.0})
        run.set_tags({"c": "d"})
        run.resume_from("e")
        run.log_text("text", "name.txt")
        run.end()
        run.log_model(Path("f.py"), [], 32, {}, {})
    assert list(tmp_path.iterdir()) == []
