import re
import socket

import pytest

from tests.kind_cluster.conftest import Scripts


def findings(scripts: Scripts, **variables: str) -> tuple[int, list[str]]:
    """The exit code, and the lines about what is missing."""
    result = scripts.run("doctor", **variables)
    assert result.stderr == ""
    return result.returncode, [line for line in result.stdout.splitlines() if line.startswith("MISSING")]


def test_a_machine_with_everything_lacks_nothing(scripts: Scripts) -> None:
    result = scripts.run("doctor")
    assert result.returncode == 0, result.stdout
    assert all(line.startswith("ok ") for line in result.stdout.splitlines())
    for name in (
        "docker",
        "memory, GB",
        "cores",
        "cgroup version",
        "kind",
        "kubectl",
        "git",
    ):
        assert result.stdout.count(f"ok       {name} ") == 1
    assert result.stdout.count("ok       port ") == 4


@pytest.mark.parametrize("tool", ["docker", "kind", "kubectl", "git"])
def test_a_missing_tool_is_named_with_what_to_do(scripts: Scripts, tool: str) -> None:
    (scripts.tools / tool).unlink()
    code, [line] = findings(scripts)
    assert code == 2
    assert line.split()[1] == tool and "install" in line


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({"FAIL": "docker info"}, "docker"),
        ({"DOCKER_INFO": "28.2.2 8000000000 8 2"}, "memory, GB"),
        ({"DOCKER_INFO": "28.2.2 16000000000 2 2"}, "cores"),
        ({"DOCKER_INFO": "28.2.2 16000000000 8 1"}, "cgroup version"),
        ({"KIND_VERSION": "0.9.0"}, "kind"),
        ({"KUBECTL_VERSION": "1.9.2"}, "kubectl"),
        ({"WATCHES": "8192"}, "max_user_watches"),
        ({"INSTANCES": "128"}, "max_user_instances"),
    ],
)
def test_insufficient_resources_are_named_with_what_to_do(
    scripts: Scripts, variables: dict[str, str], name: str
) -> None:
    code, [line] = findings(scripts, **variables)
    assert code == 2
    assert line[9:].startswith(f"{name} ") and len(line[28:]) > 30


@pytest.mark.parametrize(
    "variables",
    [
        {"DOCKER_INFO": "28.2.2 11800000000 4 2"},
        {"KIND_VERSION": "v1.0.0"},
        {"KUBECTL_VERSION": "1.100.0"},
        {"WATCHES": "1048576"},
    ],
)
def test_the_minimum_and_more_is_enough(scripts: Scripts, variables: dict[str, str]) -> None:
    assert findings(scripts, **variables) == (0, [])


def test_everything_missing_is_listed_at_once(scripts: Scripts) -> None:
    for tool in ("docker", "kind", "kubectl", "git"):
        (scripts.tools / tool).unlink()
    code, lines = findings(scripts, INSTANCES="1")
    assert code == 2
    assert len(lines) == 5


def test_a_taken_port_is_named_with_its_purpose(scripts: Scripts) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        settings = scripts.folder / "kind-cluster" / "settings.sh"
        settings.write_text(re.sub(r"\d+ mlflow", f"{port} mlflow", settings.read_text()))
        code, [line] = findings(scripts)
    assert code == 2
    assert f"port {port}" in line and line.endswith("MLflow")
