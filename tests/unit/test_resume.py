"""A training that is killed and started again ends as if nothing had happened."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from buckets import BUCKET, damage, object_names, put
from gcp_storage_emulator.server import Server
from mlflow import MlflowClient

from brain_tumor.compose import compose, step_configs
from brain_tumor.config import PhaseConfig, TrainConfig, from_json, to_json
from brain_tumor.model.artifact import MODEL_FILE, load_model, read_description
from brain_tumor.training import trainer
from brain_tumor.training.callbacks import Progress, write
from brain_tumor.training.checkpoints import IMAGE, ROOT, Checkpoint, Checkpoints, open_checkpoints
from brain_tumor.training.trainer import train

EPOCHS = 4
# Dropout, augmentation, clipping, and a rate so high that some epochs are no better and it is halved.
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

# Runs the training in a process that is killed at a certain moment of its life.
CHILD = """
import os, signal, sys
import numpy as np
from brain_tumor.config import TrainConfig, from_json
from brain_tumor.step import step

moment, config, records, output = sys.argv[1:]
with step():
    from brain_tumor.model import artifact
    from brain_tumor.training import callbacks, trainer

    def at_batch(epoch, batch, number):
        begin = callbacks.FiniteLoss.on_train_batch_begin

        def hooked(self, now, logs=None):
            begin(self, now, logs)
            if (self._epoch + 1, now + 1) == (epoch, batch):
                os.kill(os.getpid(), number)

        callbacks.FiniteLoss.on_train_batch_begin = hooked

    def half_a_file(path, *arrays):
        if "epoch-00002" not in str(path):
            return savez(path, *arrays)
        path.write_bytes(b"half a file")
        os.kill(os.getpid(), signal.SIGKILL)

    if moment == "epoch":
        at_batch(2, 3, signal.SIGKILL)
    elif moment == "checkpoint":
        savez, np.savez = np.savez, half_a_file
    elif moment == "preemption":
        at_batch(3, 2, signal.SIGTERM)
    else:
        # The model's file is written, its description is not.
        artifact.write_json = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    trainer.train(from_json(TrainConfig, config), records, output)
"""


@pytest.fixture(scope="module")
def config(tiny_overrides: list[str]) -> TrainConfig:
    sections = step_configs(compose([*tiny_overrides, *OVERRIDES]))
    return from_json(TrainConfig, sections["phase3_finetune"])


@pytest.fixture(scope="module")
def uninterrupted(config: TrainConfig, tiny_records: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of a training that nobody killed, and that kept no checkpoints."""
    output = tmp_path_factory.mktemp("uninterrupted") / "model"
    train(config, tiny_records, output)
    return output


@pytest.fixture(scope="module")
def killed(
    config: TrainConfig, tiny_records: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What each of four processes leaves, one after the other, each killed at another moment."""
    folder = tmp_path_factory.mktemp("killed")
    root = folder / "checkpoints"
    left: dict[str, Any] = {"root": root, "output": folder / "model"}
    for moment in ("epoch", "checkpoint", "preemption", "final save"):
        process = subprocess.run(
            [sys.executable, "-c", CHILD, moment, to_json(config), str(tiny_records), str(left["output"])],
            env={**os.environ, ROOT: str(root)},
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


def test_a_killed_process_leaves_whole_epochs_and_no_model(killed: dict[str, Any]) -> None:
    expected = {
        "epoch": (-9, ["epoch-00001"], 0),
        "checkpoint": (-9, ["epoch-00001"], 1),
        "preemption": (143, ["epoch-00001", "epoch-00002"], 0),
        "final save": (-9, ["epoch-00003", "epoch-00004"], 0),
    }
    for moment, (code, whole, half) in expected.items():
        left = killed[moment]
        assert (left["code"], left["whole"], left["half"]) == (code, whole, half), left["said"]
        assert not left["model"]


def test_it_goes_on_after_the_last_finished_epoch(killed: dict[str, Any]) -> None:
    for moment, done in (("epoch", 0), ("checkpoint", 1), ("preemption", 1), ("final save", 2)):
        said = killed[moment]["said"]
        assert (f"Goes on after epoch {done} " in said) == bool(done)
        assert (f"epoch {done + 1}/{EPOCHS} in" in said) == (moment != "epoch" or done == 0)
        assert f"epoch {done}/{EPOCHS} in" not in said
    assert "Traceback" not in killed["preemption"]["said"]


@pytest.fixture(scope="module")
def resumed(killed: dict[str, Any], config: TrainConfig, tiny_records: Path) -> dict[str, Any]:
    """The last process, which ends the training, after its newest checkpoint was damaged."""
    file = killed["place"] / "epoch-00004" / "variables.npz"
    file.write_bytes(file.read_bytes()[:1000])
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(ROOT, str(killed["root"]))
            metrics = train(config, tiny_records, killed["output"])
    finally:
        logging.getLogger().removeHandler(handler)
    return {
        **killed,
        "metrics": metrics,
        "warnings": [r.getMessage() for r in records if r.levelname == "WARNING"],
    }


def test_a_damaged_checkpoint_falls_back_to_the_one_before(resumed: dict[str, Any]) -> None:
    [warning] = [text for text in resumed["warnings"] if "damaged" in text]
    assert "epoch-00004" in warning and "variables.npz" in warning


def test_it_ends_with_the_same_weights(uninterrupted: Path, resumed: dict[str, Any]) -> None:
    expected, model = load_model(uninterrupted), load_model(resumed["output"])
    for weight, other in zip(expected.weights, model.weights, strict=True):
        assert weight.numpy().tobytes() == other.numpy().tobytes(), weight.path


def test_it_ends_with_the_same_figures(uninterrupted: Path, resumed: dict[str, Any]) -> None:
    def figures(path: Path) -> list[dict[str, float]]:
        epochs = read_description(path)["phases"][0]["epochs"]
        return [{name: value for name, value in epoch.items() if name != "seconds"} for epoch in epochs]

    assert figures(resumed["output"]) == figures(uninterrupted)
    assert resumed["metrics"] == read_description(uninterrupted)["metrics"]


def test_a_finished_training_returns_at_once(
    resumed: dict[str, Any],
    config: TrainConfig,
    tiny_records: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert [path.name for path in resumed["place"].iterdir()] == ["model"]
    monkeypatch.setenv(ROOT, str(resumed["root"]))
    monkeypatch.setattr(trainer, "build_detector", lambda *_: pytest.fail("a model was built"))

    metrics = train(config, tiny_records, tmp_path / "again", logs=tmp_path / "logs")

    assert metrics == resumed["metrics"]
    files = [(path / MODEL_FILE).read_bytes() for path in (tmp_path / "again", resumed["output"])]
    assert files[0] == files[1]
    assert read_description(tmp_path / "again") == read_description(resumed["output"])
    assert list((tmp_path / "logs" / config.name / "valid").glob("*tfevents*"))


def test_other_input_is_another_training(
    config: TrainConfig,
    tiny_records: Path,
    uninterrupted: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def place(config: TrainConfig, records: Path, start: Path | None, image: str) -> str:
        monkeypatch.setenv(IMAGE, image)
        checkpoints = open_checkpoints(config, records, start)
        assert checkpoints is not None
        return checkpoints.address

    assert open_checkpoints(config, tiny_records, None) is None, "no root, no checkpoints"
    monkeypatch.setenv(ROOT, str(tmp_path))
    other = from_json(TrainConfig, to_json(config))
    other.batch_size += 1
    manifest = json.loads((tiny_records / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps({**manifest, "more": 1}))
    places = [
        place(config, tiny_records, None, "a"),
        place(other, tiny_records, None, "a"),
        place(config, tmp_path, None, "a"),
        place(config, tiny_records, uninterrupted, "a"),
        place(config, tiny_records, None, "b"),
    ]
    assert len(set(places)) == len(places)
    assert places[0] == place(config, tiny_records, None, "a")


@pytest.mark.parametrize("file", ["state.json", "weights.npz", "manifest.json"])
@pytest.mark.parametrize("damage", ["truncated", "other bytes", "gone"])
def test_any_damage_is_found(
    file: str, damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = Checkpoints(str(tmp_path))
    for epoch in (1, 2, 3):
        checkpoints.save(epoch, Checkpoint({"epoch": epoch}, {"weights": [np.full(99, epoch), np.zeros(1)]}))
    path = tmp_path / "epoch-00003" / file
    content = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "other bytes":
        path.write_bytes(content[:-20] + bytes(20))
    else:
        path.unlink()

    found = checkpoints.load()

    assert found is not None and found.state == {"epoch": 2}
    np.testing.assert_array_equal(found.arrays["weights"][0], np.full(99, 2))
    # Without its manifest it is none that was ever whole.
    assert ("epoch-00003 is damaged" in caplog.text) == ((file, damage) != ("manifest.json", "gone"))
    # The epoch that is trained again takes the damaged one's place.
    checkpoints.save(3, Checkpoint({"epoch": 3}, {}))
    found = checkpoints.load()
    assert found is not None and found.state == {"epoch": 3}


def test_checkpoints_are_kept_in_a_bucket(
    emulator: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = Checkpoints(f"gs://{BUCKET}/root/phase1_box-0123")
    assert checkpoints.load() is None
    for epoch in (1, 2, 3):
        arrays = {"weights": [np.full(99, epoch), np.zeros(1)]}
        checkpoints.save(epoch, Checkpoint({"epoch": epoch}, arrays))
    names = object_names(emulator)
    place = "root/phase1_box-0123/epoch-0000"
    assert {name.split("/")[2] for name in names} == {"epoch-00002", "epoch-00003"}, "the last two"
    assert names[-1] == f"{place}3/manifest.json", "what makes it visible comes last"
    found = checkpoints.load()
    assert found is not None and found.state == {"epoch": 3}
    np.testing.assert_array_equal(found.arrays["weights"][0], np.full(99, 3))

    damage(emulator, f"{place}3/weights.npz")
    found = checkpoints.load()
    assert found is not None and found.state == {"epoch": 2}
    assert "epoch-00003 is damaged" in caplog.text
    checkpoints.save(3, Checkpoint({"epoch": 3}, {}))
    assert f"{place}3/weights.npz" not in object_names(emulator), "nothing of the damaged one is left"
    found = checkpoints.load()
    assert found is not None and found.state == {"epoch": 3}

    # What a killed upload leaves: the files without the manifest.
    put(f"{place}4/weights.npz", b"half")
    found = checkpoints.load()
    assert found is not None and found.state == {"epoch": 3}


def test_a_training_goes_on_from_a_bucket(
    emulator: Server,
    config: TrainConfig,
    tiny_records: Path,
    uninterrupted: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And tells MLflow of it, which thinks that the killed one still runs."""
    monkeypatch.setenv(ROOT, f"gs://{BUCKET}/checkpoints")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    save = Checkpoints.save

    def killed(self: Checkpoints, epoch: int, checkpoint: Checkpoint) -> None:
        save(self, epoch, checkpoint)
        if epoch == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Checkpoints, "save", killed)
        patch.setattr(MlflowClient, "set_terminated", lambda *_: None)
        train(config, tiny_records, tmp_path / "model")
    assert not (tmp_path / "model").exists()

    train(config, tiny_records, tmp_path / "model")

    client = MlflowClient()
    run = client.get_run(read_description(tmp_path / "model")["mlflow_run_id"])
    assert client.get_run(run.data.tags["goes_on_from"]).info.status == "KILLED"
    history = client.get_metric_history(run.info.run_id, "val_boxes_iou")
    assert [point.step for point in history] == list(range(1, EPOCHS + 1))
    for weight, other in zip(
        load_model(uninterrupted).weights, load_model(tmp_path / "model").weights, strict=True
    ):
        assert weight.numpy().tobytes() == other.numpy().tobytes(), weight.path
    assert {name.split("/")[2] for name in object_names(emulator)} == {"model"}
    monkeypatch.setattr(trainer, "build_detector", lambda *_: pytest.fail("a model was built"))
    train(config, tiny_records, tmp_path / "again")
    files = [(tmp_path / name / MODEL_FILE).read_bytes() for name in ("model", "again")]
    assert files[0] == files[1]


SCORES = [0.2, 0.1, 0.3, 0.3, 0.25, 0.3, 0.1, 0.2]


@pytest.mark.parametrize("killed_after", range(1, 8))
def test_schedule_and_early_stopping_go_on(killed_after: int) -> None:
    """The rate is halved after two epochs that are not better, the training ends after four."""
    phase = PhaseConfig(monitor="val", learning_rate=1.0, reduce_rate_patience=2, early_stopping_patience=4)

    def begin() -> tuple[keras.Model, Progress]:
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(1.0))
        progress = Progress(phase, model.weights)
        progress.set_model(model)
        return model, progress

    def run(model: keras.Model, progress: Progress, epochs: range) -> list[Any]:
        seen = []
        for epoch in epochs:
            write(model.weights, [np.full((1, 1), epoch), np.zeros(1)])
            progress.on_epoch_end(epoch, {"val": SCORES[epoch]})
            seen.append((float(model.optimizer.learning_rate), progress.best_epoch, progress.finished))
        return seen

    expected = run(*begin(), range(len(SCORES)))
    rates, best, finished = zip(*expected, strict=True)
    assert rates == (1, 1, 1, 1, 0.5, 0.5, 0.25, 0.25)
    assert best == (1, 1, 3, 3, 3, 3, 3, 3)
    assert finished == (False,) * 6 + (True,) * 2

    model, progress = begin()
    seen = run(model, progress, range(killed_after))
    other, resumed = begin()
    other.optimizer.learning_rate = float(model.optimizer.learning_rate)
    resumed.restore(json.loads(json.dumps(progress.state())), progress.best)
    assert seen + run(other, resumed, range(killed_after, len(SCORES))) == expected
    resumed.restore_best()
    assert other.get_weights()[0] == 2
