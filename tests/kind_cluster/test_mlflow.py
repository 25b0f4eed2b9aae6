"""The MLflow server, started locally with its deployment's command and a real object store."""

import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.kind_cluster.conftest import ROOT

if TYPE_CHECKING:
    from tests.unit.buckets import S3Bucket


@pytest.fixture(scope="module")
def container() -> dict[str, Any]:
    for each in yaml.safe_load_all((ROOT / "kind-cluster" / "mlflow.yaml").read_text()):
        if each["kind"] == "Deployment":
            [found] = each["spec"]["template"]["spec"]["containers"]
            return dict(found)
    raise AssertionError("no deployment")


@pytest.fixture(scope="module")
def server(
    container: dict[str, Any], s3_server: "S3Bucket", tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Its address. Only what is specific to the cluster is replaced: port, volume, bucket."""
    from tests.unit.buckets import NAME, free_ports, wait_for

    folder = tmp_path_factory.mktemp("mlflow")
    [port] = free_ports(1)
    here = {
        "--host=0.0.0.0": "--host=127.0.0.1",
        "--port=5000": f"--port={port}",
        "--backend-store-uri=sqlite:////mlflow/mlflow.db": f"--backend-store-uri=sqlite:///{folder}/mlflow.db",
        "--artifacts-destination=s3://mlpipeline/mlflow": f"--artifacts-destination=s3://{NAME}/mlflow",
    }
    assert set(here) < set(container["args"])
    settings = {each["name"]: each["value"] for each in container["env"] if "value" in each}
    from_secret = {each["name"]: each["valueFrom"] for each in container["env"] if "valueFrom" in each}
    assert set(from_secret) == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    assert "MLFLOW_S3_ENDPOINT_URL" in settings
    settings |= {
        "MLFLOW_S3_ENDPOINT_URL": s3_server.endpoint,
        "AWS_ACCESS_KEY_ID": s3_server.key,
        "AWS_SECRET_ACCESS_KEY": s3_server.secret,
    }
    program, *command = container["command"]
    arguments = [here.get(each, each) for each in container["args"]]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            [Path(sys.executable).with_name(program), *command, *arguments],
            env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", **settings},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process, folder / "log", seconds=150)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=30)


def status(address: str, host: str) -> int:
    request = urllib.request.Request(address, headers={"Host": host})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_a_run_is_kept_and_its_artifacts_are_in_the_object_store(server: str, s3_server: "S3Bucket") -> None:
    from mlflow import MlflowClient

    client = MlflowClient(server)
    run = client.create_run(client.create_experiment("cluster"))
    client.log_text(run.info.run_id, "words", "notes.txt")
    client.log_metric(run.info.run_id, "mean_iou", 0.5)
    assert client.get_run(run.info.run_id).data.metrics == {"mean_iou": 0.5}
    [name] = [name for name in s3_server.names() if name.endswith("notes.txt")]
    assert name.startswith("mlflow/") and s3_server.read(name) == b"words"


@pytest.mark.parametrize(
    "host",
    [
        "mlflow:5000",
        "mlflow.kubeflow:5000",
        "mlflow.kubeflow.svc.cluster.local:5000",
        "127.0.0.1:5001",
        "localhost:5001",
    ],
)
def test_it_answers_under_its_names_in_the_cluster_and_forwarded(server: str, host: str) -> None:
    assert status(f"{server}/api/2.0/mlflow/experiments/get?experiment_id=0", host) == 200


def test_it_rejects_other_host_names_except_for_probes(server: str) -> None:
    assert status(f"{server}/api/2.0/mlflow/experiments/get?experiment_id=0", "elsewhere.example") == 403
    assert status(f"{server}/health", "10.244.1.7:5000") == 200  # a probe uses the pod's address
