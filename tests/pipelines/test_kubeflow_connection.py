"""Credentials for Kubeflow Pipelines, and its error responses, with a stand-in (`kubeflow_standin.py`)."""

import re
import socket
from contextlib import closing
from pathlib import Path

import pytest

from brain_tumor.runtime.errors import InputError
from pipelines.run import RunError, run
from pipelines.runners import connection, remote
from pipelines.runners.kubeflow import KubeflowRunner
from pipelines.targets.target import load_target
from tests.pipelines.cluster_results import Uploads
from tests.pipelines.cluster_runs import command, start
from tests.pipelines.kubeflow_standin import Kubeflow
from tests.pipelines.local_run import STEPS

pytestmark = pytest.mark.usefixtures("compiled")


@pytest.mark.parametrize(
    ("pattern", "status", "said"),
    [
        ("GET .*healthz", 401, "does not know who asks (401); set KF_PIPELINES_TOKEN_COMMAND"),
        ("GET .*healthz", 404, "There is no Kubeflow Pipelines at"),
        ("GET .*healthz", 500, "failed (500: Failed with 500); look at kubectl logs"),
        ("GET .*experiments", 403, "refuses this with no namespace (403: Failed with 403); name a namespace"),
        ("POST .*experiments", 409, "does not take this (409"),
        ("POST .*runs", 400, "does not take this (400: Failed with 400); correct it."),
    ],
)
def test_an_error_before_anything_ran_is_one_sentence(
    server: Kubeflow, tmp_path: Path, pattern: str, status: int, said: str
) -> None:
    server.refusals[pattern] = [status] * 9
    with pytest.raises(InputError, match=re.escape(said)):
        start(tmp_path)
    assert not server.plays


def test_an_experiment_created_by_another_client_meanwhile_is_used(
    server: Kubeflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = KubeflowRunner._find_experiment
    asked: list[int] = []

    def nothing_at_first(self: KubeflowRunner, where: dict[str, str]) -> str:
        asked.append(1)
        if len(asked) > 1:
            return found(self, where)
        server.experiments.append({"display_name": "brain-tumor", "experiment_id": "another's"})
        return ""

    monkeypatch.setattr(KubeflowRunner, "_find_experiment", nothing_at_first)
    server.refusals["POST .*experiments"] = [409]
    server.terminate_at = 2
    with pytest.raises(RunError):
        start(tmp_path)
    [play] = server.plays.values()
    assert play.body["experiment_id"] == "another's"


def test_an_unreachable_address_is_bad_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("KF_PIPELINES_ENDPOINT", f"http://127.0.0.1:{unused.getsockname()[1]}")
    process = command("pipelines.run", tmp_path)
    stdout, stderr = process.communicate()
    assert (process.returncode, stdout) == (2, "")
    line = stderr.splitlines()[0]
    assert (
        line.startswith("No Kubeflow Pipelines answers at http://127.0.0.1:")
        and "kubectl port-forward" in line
    )


@pytest.mark.parametrize(
    ("host", "said"),
    [("", "Say where Kubeflow Pipelines is"), ("127.0.0.1:8888", "is not an address; give it as http")],
)
def test_an_address_is_needed(tmp_path: Path, host: str, said: str) -> None:
    target = load_target("kind").model_copy(update={"host": host})
    with pytest.raises(InputError, match=said):
        run([], tmp_path, target)


def test_a_temporarily_unavailable_server_is_waited_for(
    server: Kubeflow, uploads: Uploads, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.refusals["GET /apis/v2beta1/runs/"] = [503] * 3
    server.refusals["GET /apis/v1beta1/runs/"] = [500]
    start(tmp_path)
    said = capsys.readouterr()
    assert said.err.count("Trying again.") == 2
    assert f": {len(STEPS)} steps run, 0 cached" in said.out


@pytest.mark.parametrize(("status", "said"), [(503, "failed (503"), (401, "does not know who asks")])
def test_a_run_that_cannot_be_followed_continues(
    server: Kubeflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, said: str
) -> None:
    monkeypatch.setattr(remote, "PATIENCE", 0.01)
    server.refusals["GET /apis/v2beta1/runs/"] = [status] * 99
    with pytest.raises(InputError, match=re.escape(said)) as caught:
        start(tmp_path)
    [play] = server.plays.values()
    name = play.body["display_name"]
    assert f"continues; make pipeline-follow TARGET=kind RUN={name} follows it again" in str(caught.value)


def test_a_token_is_renewed(
    server: Kubeflow, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "token"
    script.write_text("#!/bin/sh\necho again >> $0.log\necho secret-token\n")
    script.chmod(0o755)
    monkeypatch.setenv(connection.TOKEN_COMMAND, str(script))
    monkeypatch.setattr(connection, "TOKEN_AGE", 0.0)
    server.token, server.terminate_at = "secret-token", 3
    with pytest.raises(RunError) as caught:
        start(tmp_path)
    assert len((tmp_path / "token.log").read_text().splitlines()) >= len(server.requests) > 5
    said = capfd.readouterr()
    assert "secret" not in f"{caught.value}{said.out}{said.err}"
    server.token = "another"
    with pytest.raises(InputError, match="does not know who asks") as refused:
        start(tmp_path)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("exit 3", "gave no token (it printed nothing)"),
        ("echo no context >&2; exit 1", "no token (no context)"),
    ],
)
def test_a_command_that_gives_no_token_is_named(
    server: Kubeflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str
) -> None:
    monkeypatch.setenv(connection.TOKEN_COMMAND, f"sh -c '{text}'")
    with pytest.raises(
        InputError, match=re.escape(f"The command in {connection.TOKEN_COMMAND} gave")
    ) as caught:
        start(tmp_path)
    assert said.split("(")[1] in str(caught.value)


def test_a_token_from_a_file_and_a_cookie(
    server: Kubeflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.token, server.login, server.terminate_at = "of-a-file", True, 3
    monkeypatch.setenv(connection.TOKEN_FILE, str(tmp_path / "token"))
    with pytest.raises(InputError, match="holds no token; write one there"):
        start(tmp_path)
    (tmp_path / "token").write_text("of-a-file\n")
    with pytest.raises(InputError, match=r"does not know who asks \(302\)"):
        start(tmp_path)
    monkeypatch.setenv(connection.COOKIES, "authservice_session=secret")
    with pytest.raises(RunError, match="terminated"):
        start(tmp_path)


def test_several_users_need_a_namespace(server: Kubeflow, tmp_path: Path) -> None:
    server.multi_user, server.terminate_at = True, 3
    target = load_target("kind")
    with pytest.raises(
        InputError, match="has several users; say whose runs they are: KF_PIPELINES_NAMESPACE="
    ):
        run([], tmp_path, target)
    with pytest.raises(RunError):
        run([], tmp_path, target.model_copy(update={"namespace": "team"}))
    assert [each["namespace"] for each in server.experiments] == ["team"]
