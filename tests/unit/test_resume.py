"""A killed and restarted training has the same result as an uninterrupted one."""

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from brain_tumor.artifacts.folder import artifact_id
from brain_tumor.artifacts.model import MODEL_FILE, ModelDescription, open_model
from brain_tumor.artifacts.records import open_records
from brain_tumor.config import TrainConfig, to_json
from brain_tumor.model.saving import load_model
from brain_tumor.runtime.environment import CHECKPOINTS, PUBLISH
from brain_tumor.training import train as training
from brain_tumor.training.checkpoints import Checkpoint, Checkpoints
from brain_tumor.training.train import train
from tests.unit.buckets import S3Bucket
from tests.unit.programs import PROGRAMS
from tests.unit.trainings import make_config, without_seconds

pytestmark = [pytest.mark.slow, pytest.mark.heavy]

EPOCHS = 4
# Dropout, augmentation, clipping, and a rate so high that some epochs do not improve and it is halved.
OVERRIDES = [
    "model.dropout=0.5",
    "phases.phase3_finetune.start=null",
    "phases.phase3_finetune.log_model=false",
    "phases.phase3_finetune.trainable_layers=20",
    "phases.phase3_finetune.learning_rate=2e-2",
    "phases.phase3_finetune.clip_norm=1.0",
    "phases.phase3_finetune.reduce_rate_patience=1",
    "phases.phase3_finetune.early_stopping_patience=9",
    f"phases.phase3_finetune.epochs={EPOCHS}",
]

# Runs the training in a process that is killed at a given moment.


def described(path: Path) -> ModelDescription:
    return open_model(path).description


@pytest.fixture(scope="module")
def config(tiny_overrides: list[str]) -> TrainConfig:
    return make_config([*tiny_overrides, *OVERRIDES], "phase3_finetune")


@pytest.fixture(scope="module")
def uninterrupted(config: TrainConfig, tiny_records: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of an uninterrupted training without checkpoints."""
    output = tmp_path_factory.mktemp("uninterrupted") / "model"
    train(config, open_records(tiny_records), output)
    return output


@pytest.fixture(scope="module")
def killed(
    config: TrainConfig, tiny_records: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """The files left by each of four consecutive processes, killed at different moments."""
    folder = tmp_path_factory.mktemp("killed")
    root = folder / "checkpoints"
    left: dict[str, Any] = {"root": root, "output": folder / "model"}
    for moment in ("epoch", "checkpoint", "preemption", "final save"):
        process = subprocess.run(
            [
                sys.executable,
                PROGRAMS / "killed_training.py",
                moment,
                to_json(config),
                str(tiny_records),
                str(left["output"]),
            ],
            env={**os.environ, CHECKPOINTS: str(root)},
            capture_output=True,
            text=True,
        )
        [place] = root.iterdir()
        left["place"] = place
        left[moment] = {
            "code": process.returncode,
            "said": process.stderr,
            "whole": sorted(path.name for path in place.glob("[!.]*")),
            "half": len(list(place.glob(".*"))),
            "model": left["output"].exists(),
        }
    return left


def test_a_killed_process_leaves_complete_epochs_and_no_model(killed: dict[str, Any]) -> None:
    expected = {
        "epoch": (-9, ["epoch-00001"], 0),
        "checkpoint": (-9, ["epoch-00001"], 1),
        "preemption": (143, ["epoch-00001", "epoch-00002"], 0),
        "final save": (-9, ["epoch-00003", "epoch-00004"], 0),
    }
    for moment, (code, whole, half) in expected.items():
        left = killed[moment]
        # The last two; the best one is also kept if it is older.
        assert (left["code"], left["whole"][-2:], left["half"]) == (code, whole, half), left["said"]
        assert len(left["whole"]) <= 3
        assert not left["model"]


def test_it_resumes_after_the_last_finished_epoch(killed: dict[str, Any]) -> None:
    for moment, done in (("epoch", 0), ("checkpoint", 1), ("preemption", 1), ("final save", 2)):
        said = killed[moment]["said"]
        assert (f"Resumes after epoch {done} " in said) == bool(done)
        assert (f"epoch {done + 1}/{EPOCHS} in" in said) == (moment != "epoch" or done == 0)
        assert f"epoch {done}/{EPOCHS} in" not in said
    assert "Traceback" not in killed["preemption"]["said"]


@pytest.fixture(scope="module")
def resumed(killed: dict[str, Any], config: TrainConfig, tiny_records: Path) -> dict[str, Any]:
    """The last process, which finishes the training after its newest checkpoint was damaged."""
    file = killed["place"] / "epoch-00004" / "variables.npz"
    file.write_bytes(file.read_bytes()[:1000])
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign, assignment]
    logging.getLogger().addHandler(handler)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(CHECKPOINTS, str(killed["root"]))
            metrics = train(config, open_records(tiny_records), killed["output"])
    finally:
        logging.getLogger().removeHandler(handler)
    return {
        **killed,
        "metrics": metrics,
        "warnings": [r.getMessage() for r in records if r.levelname == "WARNING"],
    }


def test_after_a_damaged_checkpoint_the_previous_one_is_used(resumed: dict[str, Any]) -> None:
    [warning] = [text for text in resumed["warnings"] if "damaged" in text]
    assert "epoch-00004" in warning and "variables.npz" in warning


def test_it_ends_with_the_same_weights(uninterrupted: Path, resumed: dict[str, Any]) -> None:
    expected, model = load_model(open_model(uninterrupted)), load_model(open_model(resumed["output"]))
    for weight, other in zip(expected.weights, model.weights, strict=True):
        assert weight.numpy().tobytes() == other.numpy().tobytes(), weight.path


def test_it_ends_with_the_same_figures(uninterrupted: Path, resumed: dict[str, Any]) -> None:
    expected, found = described(uninterrupted), described(resumed["output"])
    assert without_seconds(found.phases[0].epochs) == without_seconds(expected.phases[0].epochs)
    assert resumed["metrics"] == expected.metrics


def test_a_finished_training_returns_at_once(
    resumed: dict[str, Any],
    config: TrainConfig,
    tiny_records: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert [path.name for path in resumed["place"].iterdir()] == ["model"]
    monkeypatch.setenv(CHECKPOINTS, str(resumed["root"]))
    monkeypatch.setattr(training, "build_detector", lambda *_: pytest.fail("a model was built"))

    metrics = train(config, open_records(tiny_records), tmp_path / "again", logs=tmp_path / "logs")

    assert metrics == resumed["metrics"]
    files = [(path / MODEL_FILE).read_bytes() for path in (tmp_path / "again", resumed["output"])]
    assert files[0] == files[1]
    assert described(tmp_path / "again") == described(resumed["output"])
    assert list((tmp_path / "logs" / config.name / "valid").glob("*tfevents*"))


def test_a_training_resumes_from_a_bucket(
    s3_bucket: S3Bucket,
    config: TrainConfig,
    tiny_records: Path,
    uninterrupted: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It also ends the MLflow run of the killed process, which is still marked as running."""
    monkeypatch.setenv(CHECKPOINTS, f"{s3_bucket.address}/checkpoints")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setenv(PUBLISH, f"{s3_bucket.address}/models")
    save = Checkpoints.save

    def killed(self: Checkpoints, epoch: int, checkpoint: Checkpoint) -> None:
        save(self, epoch, checkpoint)
        if epoch == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Checkpoints, "save", killed)
        patch.setattr(MlflowClient, "set_terminated", lambda *_: None)
        train(config, open_records(tiny_records), tmp_path / "model")
    assert not (tmp_path / "model").exists()

    train(config, open_records(tiny_records), tmp_path / "model")

    client = MlflowClient()
    run = client.get_run(described(tmp_path / "model").mlflow_run_id)
    assert client.get_run(run.data.tags["resumed_from"]).info.status == "KILLED"
    history = client.get_metric_history(run.info.run_id, "val_boxes_iou")
    assert [point.step for point in history] == list(range(1, EPOCHS + 1))
    for weight, other in zip(
        load_model(open_model(uninterrupted)).weights,
        load_model(open_model(tmp_path / "model")).weights,
        strict=True,
    ):
        assert weight.numpy().tobytes() == other.numpy().tobytes(), weight.path
    kept = [name.split("/") for name in s3_bucket.names()]
    assert {name[2] for name in kept if name[0] == "checkpoints"} == {"model"}
    published = f"{s3_bucket.address}/models/{artifact_id(tmp_path / 'model')[:16]}"
    assert {f"{s3_bucket.address}/models/{name[1]}" for name in kept if name[0] == "models"} == {published}
    assert run.data.tags["published"] == published
    monkeypatch.setattr(training, "build_detector", lambda *_: pytest.fail("a model was built"))
    train(config, open_records(tiny_records), tmp_path / "again")
    files = [(tmp_path / name / MODEL_FILE).read_bytes() for name in ("model", "again")]
    assert files[0] == files[1]
