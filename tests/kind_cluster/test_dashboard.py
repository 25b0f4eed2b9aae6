import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.kind_cluster.conftest import Scripts

SERVICES = ["ml-pipeline", "ml-pipeline-ui", "mlflow", "seaweedfs"]


@pytest.fixture
def cluster(scripts: Scripts) -> Scripts:
    """A running cluster. Pauses are real, since connections stay open during them."""
    scripts.run("up")
    scripts.forget_calls()
    (scripts.tools / "sleep").unlink()
    (scripts.tools / "sleep").symlink_to("/bin/sleep")
    return scripts


@contextmanager
def dashboard(scripts: Scripts) -> Iterator["subprocess.Popen[str]"]:
    process = scripts.start("dashboard")
    try:
        until(lambda: len(forwards(scripts)) >= 4)
        yield process
    finally:
        process.terminate()
        process.wait(timeout=20)


def forwards(scripts: Scripts) -> list[str]:
    return [call for call in scripts.calls("kubectl") if "port-forward" in call]


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def connections(scripts: Scripts) -> list[int]:
    """The stand-in's processes that hold the ports open."""
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                with open(f"/proc/{entry.name}/environ", "rb") as file:
                    ours = f"STAND_INS={scripts.state}".encode() in file.read().split(b"\0")
                with open(f"/proc/{entry.name}/cmdline", "rb") as file:
                    command = file.read().split(b"\0")
            except OSError:  # it has ended in the meantime
                continue
            if ours and command[:2] == [b"sleep", b"600"]:
                found.append(int(entry.name))
    return sorted(found)


def test_all_services_are_forwarded_until_it_is_stopped(cluster: Scripts) -> None:
    with dashboard(cluster) as process:
        until(lambda: len(connections(cluster)) == 4)
        services = sorted(call.split("service/")[1].split()[0] for call in forwards(cluster))
        assert services == SERVICES
        assert all("--context kind-brain-tumor -n kubeflow" in call for call in forwards(cluster))
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=20)
    assert out.count("http://127.0.0.1:") == 4
    until(lambda: not connections(cluster))
    assert not (cluster.made / "dashboard.pid").exists()


def test_a_lost_connection_is_opened_again(cluster: Scripts) -> None:
    with dashboard(cluster):
        until(lambda: len(connections(cluster)) == 4)
        lost = connections(cluster)[0]
        os.kill(lost, signal.SIGKILL)
        until(lambda: len(forwards(cluster)) == 5 and len(connections(cluster)) == 4)
        assert lost not in connections(cluster)


def test_a_second_one_prints_the_addresses_and_leaves_the_first_running(cluster: Scripts) -> None:
    with dashboard(cluster) as process:
        result = cluster.run("dashboard")
        assert result.returncode == 0
        assert f"process {process.pid} " in result.stderr and result.stdout.count("http://127.0.0.1:") == 4
        assert len(forwards(cluster)) == 4
        # Its ports do not count as taken: the cluster can be started again while it runs.
        assert "used by make dashboard" in cluster.run("doctor").stdout


def test_a_taken_port_is_named(cluster: Scripts) -> None:
    port = re.search(r"^(\d+) mlflow", (cluster.folder / "kind-cluster" / "settings.sh").read_text(), re.M)
    assert port
    with socket.create_server(("127.0.0.1", int(port[1]))):
        result = cluster.run("dashboard")
    assert result.returncode == 2
    assert (
        result.stderr == f"Port {port[1]} is taken by another program; end it, since MLflow needs the port.\n"
    )
    assert not forwards(cluster)


def test_without_a_cluster_it_says_how_to_create_one(scripts: Scripts) -> None:
    result = scripts.run("dashboard")
    assert result.returncode == 2
    assert "make cluster-up" in result.stderr
    assert not forwards(scripts)


def test_down_ends_the_dashboard_deletes_the_cluster_and_can_be_repeated(cluster: Scripts) -> None:
    (cluster.made / "data" / "scan.jpg").touch()
    with dashboard(cluster) as process:
        assert cluster.run("down").returncode == 0
        process.wait(timeout=20)
    assert cluster.run("down").returncode == 0
    assert cluster.calls("kind delete cluster") == ["kind delete cluster --name brain-tumor"] * 2
    # The data folder has the user's files.
    assert [path.name for path in cluster.made.rglob("*")] == ["data", "scan.jpg"]


def test_a_process_id_that_was_reused_is_left_alone(cluster: Scripts) -> None:
    other = subprocess.Popen(["/bin/sleep", "60"])
    (cluster.made / "dashboard.pid").write_text(f"{other.pid}\n")
    with dashboard(cluster):  # it starts
        assert (cluster.made / "dashboard.pid").read_text() != f"{other.pid}\n"
    (cluster.made / "dashboard.pid").write_text(f"{other.pid}\n")
    assert cluster.run("down").returncode == 0
    assert other.poll() is None
    other.kill()
    other.wait()


def test_down_without_kind_says_what_to_do(scripts: Scripts) -> None:
    (scripts.tools / "kind").unlink()
    result = scripts.run("down")
    assert result.returncode == 2
    assert "make doctor" in result.stderr
