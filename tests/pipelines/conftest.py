"""A stand-in for a cluster, and the results of its steps."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.runners import kubeflow
from tests.pipelines.cluster_results import BUCKET, Uploads, make_results
from tests.pipelines.kubeflow_standin import Kubeflow, serve_kubeflow
from tests.unit.buckets import S3Bucket


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, tiny_dataset: Path) -> Path:
    """The results of all steps of a run. Do not modify."""
    return make_results(tmp_path_factory.mktemp("results"), tiny_dataset)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces compiling in this process by a copy: under pytest it takes seconds (kfp reads stacks)."""
    golden = Path(__file__).with_name("golden") / "kind.yaml"

    def copy(*given: Path) -> None:
        given[-1].parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(golden, given[-1])

    monkeypatch.setattr("pipelines.run.compile_pipeline", copy)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kubeflow]:
    """The stand-in, as the address of the target `kind`, with the address and keys of a store."""
    with serve_kubeflow() as server:
        monkeypatch.setenv("KF_PIPELINES_ENDPOINT", server.host)
        for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        monkeypatch.setattr(kubeflow, "POLL", 0.002)
        yield server


@pytest.fixture
def uploads(server: Kubeflow, results: Path, s3_bucket: S3Bucket) -> Uploads:
    """The bucket to which the steps upload."""
    if BUCKET not in {each["Name"] for each in s3_bucket.client.list_buckets()["Buckets"]}:
        s3_bucket.client.create_bucket(Bucket=BUCKET)
    server.store = Uploads(results, s3_bucket)
    return server.store
