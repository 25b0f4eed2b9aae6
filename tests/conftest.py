"""What tests of several rooms share: a tiny synthetic data set and a configuration that trains in seconds."""

import os
from pathlib import Path

import pytest

# TensorFlow reads this when it is imported, and so do the processes that tests start.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# A developer's MLflow store is not the tests' to write to.
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
    # Tracing what learns is most of such a training's time: only the backbone's top does.
    "phases.phase1_box.trainable_fraction=0.1",
    "phases.phase3_finetune.trainable_layers=20",
    *(f"phases.{phase}.epochs=1" for phase in PHASES),
]


@pytest.fixture(scope="session")
def tiny_overrides() -> list[str]:
    """Overrides under which each training takes seconds, on the data of `tiny_dataset`. Add to a copy."""
    return list(TINY)


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset artifact: 4, 2 and 2 synthetic patients with 8 slices each. Not to be changed."""
    from brain_tumor.configure import configure
    from brain_tumor.ingest.ingest import ingest

    folder = tmp_path_factory.mktemp("tiny")
    ingest(configure(TINY).dataset, folder / "dataset")
    return folder / "dataset"


@pytest.fixture(scope="session")
def tiny_records(tiny_dataset: Path) -> Path:
    """The records artifact of `tiny_dataset`. Not to be changed."""
    from brain_tumor.artifacts.dataset import open_dataset
    from brain_tumor.configure import configure
    from brain_tumor.records.build import build_tfrecords

    build_tfrecords(configure(TINY).records, open_dataset(tiny_dataset), tiny_dataset.parent / "records")
    return tiny_dataset.parent / "records"
