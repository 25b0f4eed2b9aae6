"""Shared fixtures: a tiny data set, a configuration that trains in seconds, buckets."""

import gc
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from xdist.scheduler import LoadFileScheduling

if TYPE_CHECKING:  # only a few tests need these imports
    from tests.unit.buckets import Bucket, GoogleBucket, S3Bucket

# Read by TensorFlow at import, also in the processes that tests start.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Tests must not use a developer's credentials and checkpoints.
for name in [name for name in os.environ if name.startswith("AWS_")]:
    del os.environ[name]
os.environ.pop("BRAIN_TUMOR_CHECKPOINTS", None)
os.environ |= {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.devnull}
os.environ["AWS_SHARED_CREDENTIALS_FILE"] = os.devnull
# Tests must not write to a developer's MLflow store.
for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_ID"):
    os.environ.pop(name, None)

PHASES = ("baseline_classification", "baseline_box", "phase1_box", "phase2_classification", "phase3_finetune")
TINY = [
    "profile=quick",
    "dataset.train_patients=4",
    "dataset.valid_patients=2",
    "dataset.test_patients=2",
    "dataset.slices_per_patient=8",
    "records.images_per_shard=10",  # so that a split is more than one file
    "model.backbone=resnet50",
    "model.image_size=32",
    "model.head_width=16",
    "training.batch_size=8",
    # Tracing trainable layers takes most of such a training's time, so only the backbone's top is trained.
    "phases.phase1_box.trainable_fraction=0.1",
    "phases.phase3_finetune.trainable_layers=20",
    *(f"phases.{phase}.epochs=1" for phase in PHASES),
]


class Schedule(LoadFileScheduling):
    """Distributes whole files to the workers; those of the components go together, for their shared run."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "tests/components" if file.startswith("tests/components/") else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Schedule:
    """Lets the workers take the files in the order of the collection, see below."""
    config.option.loadscopereorder = False
    return Schedule(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with long tests first, so that at the end no worker waits for another."""
    ranks: dict[Path, tuple[bool, bool, bool]] = {}
    for item in items:
        rank = (
            bool(item.get_closest_marker("heavy")),
            "pipelines" in item.path.parts,
            bool(item.get_closest_marker("slow")),
        )
        ranks[item.path] = max(rank, ranks.get(item.path, rank))
    items.sort(key=lambda item: ranks[item.path], reverse=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints the campaign's total number of cases."""
    reports = [report for outcome in ("passed", "failed") for report in terminalreporter.getreports(outcome)]
    counted = [value for report in reports for name, value in report.user_properties if name == "campaign"]
    if counted:
        from tests.campaign.tally import Tally

        tally = Tally()
        for counts in counted:
            tally.merge(counts)
        terminalreporter.write_line(str(tally))


@pytest.fixture(scope="module", autouse=True)
def free_memory() -> Iterator[None]:
    """After each module, frees the graphs and models that its tests left."""
    yield
    if "keras" in sys.modules:
        import keras

        keras.backend.clear_session(free_memory=False)
        gc.collect()


@pytest.fixture(autouse=True)
def process_as_it_was() -> Iterator[None]:
    """Reverts a step's changes to its process, which here is the tests' process."""
    root, threshold = logging.getLogger(), gc.get_threshold()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    gc.set_threshold(*threshold)
    gc.unfreeze()


@pytest.fixture(scope="session")
def tiny_overrides() -> list[str]:
    """Overrides with which trainings on `tiny_dataset`'s data take seconds. Do not modify; copy."""
    return list(TINY)


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset artifact: 4, 2 and 2 synthetic patients with 8 slices each. Do not modify."""
    from brain_tumor.configure import configure
    from brain_tumor.ingest.ingest import ingest

    folder = tmp_path_factory.mktemp("tiny")
    ingest(configure(TINY).dataset, folder / "dataset")
    return folder / "dataset"


@pytest.fixture(scope="session")
def tiny_records(tiny_dataset: Path) -> Path:
    """The records artifact of `tiny_dataset`. Do not modify."""
    from brain_tumor.artifacts.dataset import open_dataset
    from brain_tumor.configure import configure
    from brain_tumor.records.build import build_tfrecords

    build_tfrecords(configure(TINY).records, open_dataset(tiny_dataset), tiny_dataset.parent / "records")
    return tiny_dataset.parent / "records"


@pytest.fixture(scope="session")
def google_server() -> Iterator["GoogleBucket"]:
    """An emulator of Google Cloud Storage. Stopping it takes half a second, so all tests share it."""
    from tests.unit.buckets import serve_google

    with serve_google() as bucket:
        yield bucket


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator["S3Bucket"]:
    """An S3 server. Starting it takes seconds, so all tests share it."""
    from tests.unit.buckets import serve_s3

    with serve_s3(tmp_path_factory.mktemp("s3")) as bucket:
        yield bucket


@pytest.fixture
def google_bucket(google_server: "GoogleBucket", monkeypatch: pytest.MonkeyPatch) -> "GoogleBucket":
    """gs://bucket, empty. It needs no credentials."""
    google_server.empty()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", google_server.endpoint)
    return google_server


@pytest.fixture
def s3_bucket(s3_server: "S3Bucket", monkeypatch: pytest.MonkeyPatch) -> "S3Bucket":
    """s3://bucket, empty, and credentials for it in the environment."""
    s3_server.empty()
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    return s3_server


@pytest.fixture(params=["google", "s3"])
def bucket(request: pytest.FixtureRequest) -> "Bucket":
    """Runs a test once with a bucket of each store."""
    found: Bucket = request.getfixturevalue(f"{request.param}_bucket")
    return found
