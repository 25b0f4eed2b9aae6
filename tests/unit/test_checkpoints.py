"""Storing and loading a training's checkpoints."""

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brain_tumor.artifacts.folder import MANIFEST, check_files, publish
from brain_tumor.artifacts.model import Model, ModelManifest, open_model
from brain_tumor.artifacts.records import Records, open_records
from brain_tumor.config import TrainConfig, to_json
from brain_tumor.runtime import environment
from brain_tumor.runtime.errors import InputError
from brain_tumor.stores.folders import list_files, upload_file
from brain_tumor.stores.paths import open_path
from brain_tumor.training.checkpoints import (
    Checkpoint,
    Checkpoints,
    ProgressState,
    TrainingState,
    delete_old_checkpoints,
    open_checkpoints,
)
from tests.unit.buckets import Bucket, GoogleBucket
from tests.unit.programs import PROGRAMS
from tests.unit.trainings import make_config

pytestmark = pytest.mark.slow


def checkpoint(epoch: int, best: int | None = None, **arrays: list[np.ndarray]) -> Checkpoint:
    """A checkpoint whose best epoch is its own by default."""
    best = epoch if best is None else best
    progress = ProgressState(best_epoch=best, score=0.1 * best, waited=epoch - best, rate_waited=0)
    epochs = [{"epoch": number, "loss": 0.1 / number} for number in range(1, epoch + 1)]
    return Checkpoint(TrainingState(epochs=epochs, progress=progress, mlflow_run_id="run"), arrays)


def found_epoch(checkpoints: Checkpoints) -> int:
    """The epoch after which a training would resume."""
    found = checkpoints.load()
    assert found is not None
    epoch = len(found.state.epochs)
    assert found.state == checkpoint(epoch, found.state.progress.best_epoch).state, "exactly"
    return len(found.state.epochs)


def test_a_changed_input_is_another_training(
    tiny_overrides: list[str], tiny_records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def place(config: TrainConfig, records: Records, start: Model | None, image: str) -> str:
        monkeypatch.setenv(environment.IMAGE, image)
        checkpoints = open_checkpoints(config, records, start)
        assert checkpoints is not None
        return str(checkpoints.folder)

    config, records = make_config(tiny_overrides, "phase3_finetune"), open_records(tiny_records)
    assert open_checkpoints(config, records, None) is None, "no root, no checkpoints"
    monkeypatch.setenv(environment.CHECKPOINTS, str(tmp_path))
    manifest = json.loads((tiny_records / MANIFEST).read_text())
    (tmp_path / MANIFEST).write_text(json.dumps({**manifest, "notice": "other"}))
    with publish(tmp_path / "start") as draft:
        draft.manifest = ModelManifest()
    places = [
        place(config, records, None, "a"),
        place(config.model_copy(update={"batch_size": config.batch_size + 1}), records, None, "a"),
        place(config, open_records(tmp_path), None, "a"),
        place(config, records, open_model(tmp_path / "start"), "a"),
        place(config, records, None, "b"),
    ]
    assert len(set(places)) == len(places)
    assert places[0] == place(config, records, None, "a")


def test_a_changed_default_is_another_training(
    tiny_overrides: list[str], tiny_records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The JSON of a config omits defaults, so it would be the same."""

    class LaterConfig(TrainConfig):
        memory_cache_gb: float = 8.0

    monkeypatch.setenv(environment.CHECKPOINTS, str(tmp_path))
    records = open_records(tiny_records)
    config = make_config(tiny_overrides, "phase3_finetune")
    later = LaterConfig.model_validate(config.model_dump(exclude_defaults=True))
    assert to_json(later) == to_json(config)
    places = [open_checkpoints(each, records, None) for each in (config, later)]
    assert places[0] and places[1] and places[0].folder != places[1].folder


@pytest.mark.parametrize("file", ["state.json", "weights.npz", "manifest.json"])
@pytest.mark.parametrize("damage", ["truncated", "other bytes", "gone"])
def test_any_damage_is_found(
    file: str, damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = Checkpoints(str(tmp_path))
    for epoch in (1, 2, 3):
        checkpoints.save(epoch, checkpoint(epoch, weights=[np.full(99, epoch), np.zeros(1)]))
    path = tmp_path / "epoch-00003" / file
    content = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "other bytes":
        path.write_bytes(content[:-20] + bytes(20))
    else:
        path.unlink()

    found = checkpoints.load()

    assert found is not None and len(found.state.epochs) == 2
    np.testing.assert_array_equal(found.arrays["weights"][0], np.full(99, 2))
    # Without a manifest it was never complete.
    assert ("epoch-00003 is damaged" in caplog.text) == ((file, damage) != ("manifest.json", "gone"))
    # The retrained epoch replaces the damaged one.
    checkpoints.save(3, checkpoint(3))
    assert found_epoch(checkpoints) == 3


def test_checkpoints_are_kept_in_a_bucket(
    bucket: Bucket, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = Checkpoints(f"{bucket.address}/root/phase1_box-0123")
    assert checkpoints.load() is None
    for epoch in (1, 2, 3):
        checkpoints.save(epoch, checkpoint(epoch, weights=[np.full(99, epoch), np.zeros(1)]))
    place = "root/phase1_box-0123/epoch-0000"
    assert {name.split("/")[2] for name in bucket.names()} == {"epoch-00002", "epoch-00003"}, "the last two"
    found = checkpoints.load()
    assert found is not None and len(found.state.epochs) == 3
    np.testing.assert_array_equal(found.arrays["weights"][0], np.full(99, 3))

    bucket.put(f"{place}3/weights.npz", b"other bytes")
    assert found_epoch(checkpoints) == 2
    assert f"{bucket.address}/{place}3 is damaged" in caplog.text
    checkpoints.save(3, checkpoint(3))
    assert f"{place}3/weights.npz" not in bucket.names(), "the damaged one is deleted"
    assert found_epoch(checkpoints) == 3

    # A killed upload leaves files without a manifest.
    bucket.put(f"{place}4/weights.npz", b"half")
    assert found_epoch(checkpoints) == 3

    assert not checkpoints.restore_model(tmp_path / "again")
    model = finished(tmp_path / "model")
    checkpoints.keep_model(model)
    names = bucket.names()
    assert {name.split("/")[2] for name in names} == {"model"}, "the partial upload is deleted, too"
    assert checkpoints.load() is None
    assert checkpoints.restore_model(tmp_path / "again")
    check_files(tmp_path / "again", open_model(model).manifest)


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The location of a training's checkpoints: a folder, or an address in a bucket."""
    kind = request.param
    return str(tmp_path / "place") if kind == "folder" else f"{request.getfixturevalue(kind).address}/place"


def save(checkpoints: Checkpoints, epoch: int, best: int) -> None:
    checkpoints.save(epoch, checkpoint(epoch, best, variables=[np.full(9, epoch)], optimizer=[np.zeros(1)]))


def kept(checkpoints: Checkpoints) -> list[int]:
    """The epochs that have checkpoints."""
    names = {facts.name.split("/")[0] for facts in list_files(checkpoints.folder)}
    return sorted(int(name.removeprefix("epoch-")) for name in names)


@pytest.mark.parametrize("place", ["folder", "google_bucket", "s3_bucket"], indirect=True)
def test_the_best_epoch_is_kept_as_long_as_one_refers_to_it(place: str, tmp_path: Path) -> None:
    """Its weights are not written again, not even by a resumed process."""
    bests = {1: 1, 2: 1, 3: 1, 4: 1, 5: 5, 6: 5, 7: 7}
    left = {1: [1], 2: [1, 2], 3: [1, 2, 3], 4: [1, 3, 4], 5: [1, 4, 5], 6: [5, 6], 7: [5, 6, 7]}
    for epoch, best in bests.items():
        checkpoints = Checkpoints(place)
        save(checkpoints, epoch, best)
        assert kept(checkpoints) == left[epoch], epoch
        found = Checkpoints(place).load()
        assert found is not None and found.best is not None and len(found.state.epochs) == epoch
        np.testing.assert_array_equal(found.best[0], np.full(9, best))
        np.testing.assert_array_equal(found.arrays["variables"][0], np.full(9, epoch))
    files = {facts.name.split("/")[1] for facts in list_files(checkpoints.folder)}
    assert files == {"state.json", "variables.npz", "optimizer.npz", MANIFEST}
    checkpoints.keep_model(finished(tmp_path / "model"))
    assert {facts.name.split("/")[0] for facts in list_files(checkpoints.folder)} == {"model"}


@pytest.mark.parametrize("file", ["variables.npz", "state.json", MANIFEST])
def test_an_epoch_whose_best_is_damaged_is_damaged(
    file: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = Checkpoints(str(tmp_path))
    for epoch, best in ((1, 1), (2, 2), (3, 2), (4, 2)):
        save(checkpoints, epoch, best)
    assert kept(checkpoints) == [2, 3, 4]
    (tmp_path / "epoch-00002" / file).unlink()

    assert checkpoints.load() is None

    assert "epoch-00004 is damaged" in caplog.text and "epoch-00003 is damaged" in caplog.text
    assert caplog.messages[-1] == f"No checkpoint in {tmp_path} is complete; the training starts over."
    # Damaged checkpoints are not kept instead of complete ones.
    save(checkpoints, 1, 1)
    assert kept(checkpoints) == [1]
    assert found_epoch(checkpoints) == 1


def test_a_training_resumes_from_only_a_best_epoch(tmp_path: Path) -> None:
    checkpoints = Checkpoints(str(tmp_path))
    for epoch, best in ((1, 1), (2, 2), (3, 2), (4, 2), (5, 2)):
        save(checkpoints, epoch, best)
    for epoch in (4, 5):
        (tmp_path / f"epoch-0000{epoch}" / "optimizer.npz").write_bytes(b"other bytes")
    assert found_epoch(checkpoints) == 2
    save(checkpoints, 3, 2)
    assert kept(checkpoints) == [2, 3]


def test_the_start_model_is_not_a_checkpoint(tmp_path: Path) -> None:
    checkpoints = Checkpoints(str(tmp_path))
    for epoch in (1, 2, 3):
        save(checkpoints, epoch, 0)
    assert kept(checkpoints) == [2, 3]
    found = checkpoints.load()
    assert found is not None and found.best is None


def test_in_a_bucket_the_manifest_is_written_last_and_deleted_first(
    google_bucket: GoogleBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = Checkpoints("gs://bucket/root")
    checkpoints.save(1, checkpoint(1, weights=[np.zeros(1)], optimizer=[np.zeros(1)]))
    assert google_bucket.names_by_age()[-1] == "root/epoch-00001/manifest.json"
    assert len(google_bucket.names()) == 4

    deleted = []
    delete = google_bucket.storage.delete_file

    def watch(bucket: str, name: str) -> None:
        deleted.append(name)
        delete(bucket, name)

    monkeypatch.setattr(google_bucket.storage, "delete_file", watch)
    checkpoints.save(2, checkpoint(2))
    checkpoints.save(3, checkpoint(3))
    assert deleted[0] == "root/epoch-00001/manifest.json"
    assert len(deleted) == 4 and all(name.startswith("root/epoch-00001/") for name in deleted)


def finished(folder: Path) -> Path:
    """A folder like a finished training's model artifact."""
    with publish(folder) as draft:
        (draft.path / "model.keras").write_bytes(b"weights")
        draft.manifest = ModelManifest()
    return folder


def test_a_finished_model_replaces_the_epochs(tmp_path: Path) -> None:
    checkpoints = Checkpoints(str(tmp_path / "place"))
    assert not checkpoints.restore_model(tmp_path / "again")
    checkpoints.save(1, checkpoint(1))
    model = finished(tmp_path / "model")
    checkpoints.keep_model(model)
    assert [path.name for path in (tmp_path / "place").iterdir()] == ["model"]
    assert checkpoints.load() is None

    assert checkpoints.restore_model(tmp_path / "again")

    check_files(tmp_path / "again", open_model(tmp_path / "again").manifest)
    assert os.path.samefile(tmp_path / "again" / "model.keras", model / "model.keras"), "no second copy"


def test_a_damaged_model_is_retrained(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoints = Checkpoints(str(tmp_path / "place"))
    checkpoints.keep_model(finished(tmp_path / "model"))
    (tmp_path / "place" / "model" / "model.keras").write_bytes(b"w")
    assert not checkpoints.restore_model(tmp_path / "again")
    assert "model is damaged; the training is repeated" in caplog.text
    assert not (tmp_path / "again").exists()


def test_a_write_error_does_not_count_as_damage_of_the_finished_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = Checkpoints(str(tmp_path / "place"))
    checkpoints.keep_model(finished(tmp_path / "model"))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for module, name in ((os, "link"), (shutil, "copyfile")):
        monkeypatch.setattr(module, name, full)
    with pytest.raises(InputError, match="again: No space left on device; free some space there"):
        checkpoints.restore_model(tmp_path / "again")
    monkeypatch.undo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "place"]
    assert checkpoints.restore_model(tmp_path / "again"), "it is unchanged"


def test_unreadable_files_are_not_treated_as_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a training would start over, and delete files that it only lacks permission to read."""
    checkpoints = Checkpoints(str(tmp_path))
    save(checkpoints, 1, 1)
    digest = hashlib.file_digest

    def refused(file: Any, kind: str) -> object:
        if file.name.endswith("variables.npz"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), file.name)
        return digest(file, kind)

    monkeypatch.setattr(hashlib, "file_digest", refused)
    with pytest.raises(InputError, match=r"variables\.npz: Permission denied; give this user permission"):
        checkpoints.load()
    monkeypatch.undo()
    assert found_epoch(checkpoints) == 1


def test_two_trainings_in_one_folder_do_not_delete_each_others_drafts(tmp_path: Path) -> None:
    one, other = (Checkpoints(str(tmp_path)) for _ in range(2))
    with publish(tmp_path / "epoch-00002") as draft:
        (draft.path / "variables.npz").write_bytes(b"half")
        save(other, 1, 1)
        one.keep_model(finished(tmp_path.parent / "model"))
        assert (draft.path / "variables.npz").exists()
        draft.manifest = ModelManifest()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch-00002", "model"]


def test_two_processes_of_a_training_do_not_end_each_other(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, PROGRAMS / "save_checkpoints.py", tmp_path, every],
            stderr=subprocess.PIPE,
            text=True,
        )
        for every in ("3", "4")
    ]
    for process in processes:
        said = process.communicate()[1]
        assert process.returncode == 0, said
    assert "epoch-00059" in {path.name for path in tmp_path.iterdir()}
    assert not list(tmp_path.glob(".*"))


@pytest.fixture
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The location of several trainings' checkpoints: a folder, or an address in a bucket."""
    kind = request.param
    return str(tmp_path / "root") if kind == "folder" else f"{request.getfixturevalue(kind).address}/root"


@pytest.mark.parametrize("root", ["folder", "google_bucket", "s3_bucket"], indirect=True)
def test_old_checkpoints_are_those_whose_newest_file_is_old(root: str, tmp_path: Path) -> None:
    old, going_on, finished_late = (f"{name}-0123456789abcdef" for name in ("old", "going-on", "finished"))
    for name in (old, going_on, finished_late):
        Checkpoints(f"{root}/{name}").save(1, checkpoint(1))
    folder = open_path(root)
    note = tmp_path / "note.txt"
    note.write_text("another's")
    for other in ("note.txt", "data-0123456789abcdef/train/note.txt", "models/epoch-00001/manifest.json"):
        upload_file(note, folder / other)
    before = max(facts.changed for facts in list_files(folder)) + 0.5
    time.sleep(1.1)  # a bucket's timestamps have whole seconds
    Checkpoints(f"{root}/{going_on}").save(2, checkpoint(2))
    Checkpoints(f"{root}/{finished_late}").keep_model(finished(tmp_path / "model"))

    assert delete_old_checkpoints(root, before) == [folder / old]

    assert {facts.name for facts in list_files(folder) if "/epoch-00001/" not in facts.name} == {
        "note.txt",
        "data-0123456789abcdef/train/note.txt",
        *(f"{going_on}/epoch-00002/{name}" for name in ("state.json", "manifest.json")),
        *(f"{finished_late}/model/{name}" for name in ("model.keras", "manifest.json")),
    }
    assert Checkpoints(f"{root}/{old}").load() is None
    assert found_epoch(Checkpoints(f"{root}/{going_on}")) == 2
    assert delete_old_checkpoints(root, before) == []
