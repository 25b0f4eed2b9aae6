"""Steps in containers, on a real engine: the images' content, and whole runs.

`BRAIN_TUMOR_TEST_ENGINE=1` enables these tests. They need a running engine, at `DOCKER_HOST` or its default,
and the images made by `make images`.
"""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from brain_tumor.config import SyntheticDataset
from brain_tumor.configure import configure
from brain_tumor.ingest.sources.synthetic import write_export
from brain_tumor.runtime import environment
from brain_tumor.runtime.errors import InputError
from brain_tumor.runtime.events import EventReader
from pipelines.image import image_tag
from pipelines.run import prepare
from pipelines.runners.containers import LABEL, ContainerOrder, remove_containers, run_container
from pipelines.runners.docker import check_images, needs_network
from pipelines.targets.target import load_target
from tests.pipelines.local_run import GATE, JOINT, QUICK, STEPS, Outcome, finish, run, start_run

NO_ENGINE = pytest.mark.skipif(
    not os.environ.get("BRAIN_TUMOR_TEST_ENGINE"), reason="BRAIN_TUMOR_TEST_ENGINE is not set"
)


def engine(test: Any) -> Any:
    """Marks a test that starts containers."""
    return pytest.mark.heavy(NO_ENGINE(test))


STAGES = ("data", "cpu")
DOCKER = ("--target", "docker")


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    import docker

    found = docker.from_env()
    yield found
    found.close()


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small export in a folder outside that of the runs."""
    folder = tmp_path_factory.mktemp("export")
    config = SyntheticDataset(
        source="synthetic", train_patients=4, valid_patients=2, test_patients=2, slices_per_patient=8
    )
    write_export(folder, config)
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("docker")


@pytest.fixture(scope="module")
def whole(root: Path, export: Path) -> Outcome:
    """A run of all steps of the quick profile."""
    own = [override for override in QUICK if not override.startswith("dataset.")]
    return run(root, *DOCKER, "dataset=directory", f"dataset.path={export}", *own)


def order(label: str) -> ContainerOrder:
    user = f"{os.getuid()}:{os.getgid()}"
    return ContainerOrder(label=label, user=user, network="none", mounts={}, variables=[])


def left_over(client: Any, folder: Path) -> list[Any]:
    """Remaining containers of the runs in a folder."""
    containers = client.containers.list(all=True, ignore_removed=True, filters={"label": LABEL})
    return [container for container in containers if container.labels[LABEL].startswith(str(folder))]


@engine
def test_every_step_runs_in_a_container(whole: Outcome, root: Path, export: Path, client: Any) -> None:
    assert whole.code == 0, whole.stderr
    assert set(whole.executed) == STEPS
    [record] = whole.history
    for path in record["artifacts"].values():
        assert Path(path).exists()
        assert Path(path).stat().st_uid == os.getuid()
    compiled = next((root / "runs" / "pipelines").glob("*.yaml")).read_text()
    for stage in STAGES:
        assert f"image: brain-tumor-{stage}:{image_tag()}" in compiled
    assert [run.info.status for run in whole.mlflow_runs] == ["FINISHED"] * 6
    assert not left_over(client, root)
    assert not {path.name for path in export.iterdir()} - {"train", "valid", "test"}


@engine
def test_an_unchanged_second_run_starts_only_the_gate(whole: Outcome, root: Path, export: Path) -> None:
    own = [override for override in QUICK if not override.startswith("dataset.")]
    again = run(root, *DOCKER, "dataset=directory", f"dataset.path={export}", *own)
    assert again.code == 0, again.stderr
    assert set(again.executed) == GATE
    assert set(again.cached) == set(whole.executed) - GATE


@engine
def test_a_failing_step_is_a_failing_run(client: Any, tmp_path: Path) -> None:
    """Repeated twenty times; also with a container that is removed before its status is read."""
    image = f"brain-tumor-data:{image_tag()}"
    label = str(tmp_path)

    def take_away() -> None:
        while not left_over(client, tmp_path):
            time.sleep(0.005)
        remove_containers(label)

    for turn in range(20):
        thief = threading.Thread(target=take_away)
        thief.start()
        status = run_container(order(label), client, image, ["sh", "-c", "sleep 5; exit 3"], {})
        thief.join()
        assert status != 0, turn
        assert run_container(order(label), client, image, ["sh", "-c", f"exit {turn + 1}"], {}) == turn + 1
    assert run_container(order(label), client, image, ["true"], {}) == 0
    assert not left_over(client, tmp_path)


@engine
@pytest.mark.parametrize("victim", ["runner", "interrupt"])
def test_the_containers_of_an_ended_run_end(victim: str, client: Any, tmp_path: Path) -> None:
    process = start_run(tmp_path, *DOCKER, *JOINT)
    while process.poll() is None and not begun(tmp_path, "train: joint"):
        time.sleep(0.05)
    assert left_over(client, tmp_path)
    process.send_signal(signal.SIGKILL if victim == "runner" else signal.SIGINT)
    assert process.wait() != 0
    deadline = time.monotonic() + 30
    while left_over(client, tmp_path) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left_over(client, tmp_path)
    outcome = finish(start_run(tmp_path, *DOCKER, *JOINT), tmp_path)
    assert outcome.code == 0, outcome.stderr
    assert {"ingest", "build TFRecords"} <= set(outcome.cached)


def begun(root: Path, step: str) -> bool:
    files = (root / "runs" / "logs").glob("*.jsonl")
    return any(event.step == step for file in files for event in EventReader(file).read())


@engine
@pytest.mark.parametrize("stage", STAGES)
def test_an_image_runs_as_any_user_on_a_read_only_disk(stage: str, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    wanted = {
        "data": "from brain_tumor.ingest import ingest; import brain_tumor.reports.page, roboflow",
        "cpu": "import tensorflow as tf; assert tf.reduce_sum(tf.ones(3)) == 3; import mlflow",
    }
    script = f"{wanted[stage]}; open('{tmp_path}/written', 'w').close(); import kfp; print('well')"
    command = ["docker", "run", "--rm", "--user", "12345:0", "--read-only", "--tmpfs", "/tmp"]
    command += ["--cap-drop", "ALL", "--network", "none", "--volume", f"{tmp_path}:{tmp_path}"]
    command += [f"brain-tumor-{stage}:{image_tag()}", "python3", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == "well\n", done.stderr
    assert (tmp_path / "written").stat().st_uid == 12345


@engine
@pytest.mark.parametrize("stage", STAGES)
def test_an_image_contains_only_what_a_step_needs(stage: str, client: Any) -> None:
    image = client.images.get(f"brain-tumor-{stage}:{image_tag()}")
    config = image.attrs["Config"]
    user, group = config["User"].split(":")
    assert user.isdigit() and user != "0" and group.isdigit()
    assert config["Labels"]["org.opencontainers.image.version"] == image_tag()
    assert {"title", "description", "licenses"} <= {label.rsplit(".", 1)[1] for label in config["Labels"]}
    assert not [name for name in config["Env"] if "KEY" in name or "TOKEN" in name]
    look = (
        "import importlib.util as i, json, pathlib, shutil;"
        "print(json.dumps([[m for m in ('tensorflow', 'roboflow', 'pip') if i.find_spec(m)],"
        "[c for c in ('gcc', 'cc') if shutil.which(c)],"
        "[p for p in ('/root/.cache/pip', '/opt/library/.env', '/tmp/requirements.txt')"
        " if pathlib.Path(p).exists()]]))"
    )
    said = client.containers.run(image, ["/opt/venv/bin/python3", "-c", look], user="0:0", remove=True)
    modules, compilers, caches = json.loads(said)
    assert modules == {"data": ["roboflow"], "cpu": ["tensorflow"]}[stage]
    assert compilers == [] and caches == []


@engine
def test_an_image_that_is_not_built_is_one_sentence() -> None:
    with pytest.raises(
        InputError, match=r"^The Docker Engine has no image brain-tumor-cpu:none; run make images\.$"
    ):
        check_images(["brain-tumor-cpu:none"])


def test_an_unreachable_engine_is_one_sentence(tmp_path: Path) -> None:
    where = f"unix://{tmp_path}/nobody.sock"
    outcome = run(tmp_path, *DOCKER, *JOINT, DOCKER_HOST=where)
    assert outcome.code == 2
    said = f"No Docker Engine answers at {where}; start one, or set DOCKER_HOST to where it is.\n"
    assert outcome.stderr == said


@pytest.mark.parametrize(
    ("overrides", "variables", "expected"),
    [
        ([], {}, False),
        (["model.weights=imagenet"], {}, True),
        (["phases.phase3_finetune.publish_to=s3://bucket/models"], {}, True),
        ([], {"MLFLOW_TRACKING_URI": "http://127.0.0.1:5000"}, True),
        ([], {"MLFLOW_TRACKING_URI": "sqlite:////runs/mlflow.db"}, False),
        ([], {environment.CHECKPOINTS: "gs://bucket/checkpoints"}, True),
    ],
)
def test_a_run_has_a_network_only_if_the_configuration_needs_one(
    overrides: list[str],
    variables: dict[str, str],
    expected: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    job = prepare(configure(overrides), overrides, tmp_path, load_target("docker"), tmp_path)
    assert needs_network(job) is expected
