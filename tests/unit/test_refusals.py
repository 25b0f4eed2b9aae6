"""Errors of the operating system are one sentence and exit code 2, if possible before the work starts."""

import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import keras
import numpy as np
import pytest

from brain_tumor import steps
from brain_tumor.artifacts.dataset import Dataset, DatasetManifest, open_dataset
from brain_tumor.artifacts.evaluation import EvaluationManifest, read_evaluation
from brain_tumor.artifacts.folder import MANIFEST, Manifest, publish, read_manifest
from brain_tumor.artifacts.model import ModelManifest, open_model, write_model
from brain_tumor.artifacts.outputs import check_outputs
from brain_tumor.artifacts.predictions import PredictionsManifest, open_predictions
from brain_tumor.artifacts.records import Records, RecordsManifest, open_records
from brain_tumor.config import to_json
from brain_tumor.configure import configure
from brain_tumor.model.saving import load_model
from brain_tumor.records.build import build_tfrecords
from brain_tumor.records.read import load_split, reading_explained
from brain_tumor.runtime import environment
from brain_tumor.runtime.errors import DamagedError, InputError, explain_os_error
from brain_tumor.stores.files import write_file
from brain_tumor.training.checkpoints import Checkpoint, Checkpoints, ProgressState, TrainingState
from brain_tumor.training.tensorboard import TensorBoardLog
from tests.unit.disks import fill, make_read_only, small_disk
from tests.unit.models import small_detector
from tests.unit.small_records import CONFIG
from tests.unit.trainings import HASTY, make_config

pytestmark = pytest.mark.slow

FULL = "No space left on device; free some space there, or name a folder on another disk."


def refused(call: Callable[[], object]) -> str:
    """The message of the InputError raised by a call."""
    with pytest.raises(InputError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message and len(message) < 600, message
    return message


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 512 KiB."""
    with small_disk(tmp_path / "disk", 512) as folder:
        yield folder


# --- outputs


def test_only_artifacts_and_reports_are_replaced(tmp_path: Path) -> None:
    """Even without a prior check: not a file, a pipe (like a device), or a folder at a report's path."""
    (tmp_path / "file").write_text("mine")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()

    def write_artifact(name: str) -> None:
        with publish(tmp_path / name) as draft:
            draft.manifest = ModelManifest()

    for name in ("file", "pipe"):
        assert "is not a folder and is not replaced" in refused(partial(write_artifact, name))
    for name in ("pipe", "folder"):
        said = refused(partial(write_file, tmp_path / name, "report"))
        assert said == f"{tmp_path / name} is not a file and is not replaced; give another path."
    below = (
        refused(lambda: write_artifact("file/below")),
        refused(lambda: write_file(tmp_path / "file/x", "")),
    )
    assert all("File exists; give a folder where a folder is needed" in said for said in below)
    assert (tmp_path / "file").read_text() == "mine" and (tmp_path / "pipe").is_fifo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder", "pipe"]


def test_a_full_or_read_only_disk_is_reported_before_the_work(disk: Path) -> None:
    artifacts: dict[str | Path, type[Manifest]] = {disk / "new" / "output": ModelManifest}
    files = [disk / "output"]
    check_outputs([], artifacts, files)
    assert list(disk.iterdir()) == [], "no trace"
    fill(disk)
    assert refused(lambda: check_outputs([], artifacts)) == f"{disk / 'new' / 'output'}: {FULL}"
    (disk / "filler").unlink()
    make_read_only(disk)
    said = refused(lambda: check_outputs([], {}, files))
    assert said.startswith(f"{disk / 'output'}: Read-only file system; name a folder on a disk")


def test_every_step_checks_its_outputs_first(
    small_dataset: Dataset,
    small_records: Records,
    tiny_overrides: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before TensorFlow is imported."""
    monkeypatch.setattr(steps, "import_tensorflow", lambda: pytest.fail("the work has started"))
    configs, file = configure(tiny_overrides), tmp_path / "file"
    with publish(tmp_path / "model") as draft:
        draft.manifest = ModelManifest()
    file.write_text("mine")
    new, page, bad = tmp_path / "new", tmp_path / "page.html", file / "below"
    phase = configs.parameters()["baseline_box"]
    data, records, model = small_dataset.path, small_records.path, tmp_path / "model"
    evaluate = configs.parameters()["evaluate"]
    calls: list[Callable[[], object]] = [
        lambda: steps.build_tfrecords(to_json(CONFIG), data, bad),
        lambda: steps.train(phase, records, bad),
        lambda: steps.train(phase, records, new, logs=bad),
        lambda: steps.evaluate(evaluate, records, model, bad, new, page),
        lambda: steps.evaluate(evaluate, records, model, new, bad, page),
        lambda: steps.evaluate(evaluate, records, model, new, tmp_path / "other", bad),
    ]
    for call in calls:
        with pytest.raises(SystemExit) as ended:
            call()
        assert ended.value.code == 2
        assert capsys.readouterr().err.count(f"{bad}: Not a directory") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "model"]


# --- paths in messages


def test_a_message_names_the_file_and_not_its_draft(tmp_path: Path) -> None:
    output, draft = tmp_path / "model", tmp_path / ".model-0123abcd.tmp" / "new" / "model.keras"

    def said(*files: object) -> str:
        return explain_os_error(OSError(errno.ENOSPC, "full", *files), output)

    assert said() == said(str(draft)) == said(os.fsencode(draft)) == f"{output}: {FULL}"
    assert said("/data/image.jpg") == f"/data/image.jpg: {FULL}"
    assert said(str(draft), None, "/data/model") == f"/data/model: {FULL}", "the target of the rename"
    below = OSError(errno.ENOSPC, "full", str(draft))
    assert explain_os_error(below, draft.parent) == f"{draft}: {FULL}", "if the folder itself is a draft"
    assert explain_os_error(OSError("no number"), "/data") == "/data: OSError; check the path."


@pytest.mark.parametrize("name", ["\udcff", "a\nb", "x" * 4000])
def test_arbitrary_names_can_be_printed(name: str) -> None:
    sentence = explain_os_error(OSError(errno.EACCES, "", f"/data/{name}"))
    assert sentence.isprintable() and "Permission denied" in sentence and len(sentence) < 500


# --- full disks


def check_nothing_is_left(disk: Path) -> None:
    assert [path.name for path in disk.iterdir()] in ([], ["filler"])


def test_an_artifact_that_does_not_fit_leaves_nothing(disk: Path) -> None:
    def write() -> None:
        with publish(disk / "artifact") as draft:
            draft.manifest = ModelManifest()
            (draft.path / "file").write_bytes(bytes(1024 * 1024))

    assert refused(write) == f"{disk / 'artifact'}: {FULL}"
    check_nothing_is_left(disk)


def test_a_report_that_does_not_fit_keeps_the_old_one(disk: Path) -> None:
    write_file(disk / "report.html", "old")
    said = refused(lambda: write_file(disk / "report.html", "x" * 1024 * 1024))
    assert said == f"{disk / 'report.html'}: {FULL}"
    assert (disk / "report.html").read_text() == "old"
    assert [path.name for path in disk.iterdir()] == ["report.html"]


@pytest.mark.parametrize("workers", [1, 2])
def test_records_that_do_not_fit_leave_nothing(disk: Path, small_dataset: Dataset, workers: int) -> None:
    fill(disk, but_for=8)
    assert refused(lambda: build_tfrecords(CONFIG, small_dataset, disk / "records", workers)).endswith(FULL)
    check_nothing_is_left(disk)


def test_a_model_that_does_not_fit_leaves_nothing(disk: Path) -> None:
    model = small_detector()
    said = refused(lambda: write_model(disk / "model", cast(Any, None), model.save))
    assert said == f"{disk / 'model'}: {FULL}"
    check_nothing_is_left(disk)


def test_a_checkpoint_that_does_not_fit_keeps_the_previous_one(disk: Path) -> None:
    checkpoints = Checkpoints(str(disk / "place"))

    def save(epoch: int, size: int) -> None:
        progress = ProgressState(best_epoch=epoch, score=0.1, waited=0, rate_waited=0)
        state = TrainingState(epochs=[{"epoch": 1.0}] * epoch, progress=progress, mlflow_run_id="")
        checkpoints.save(epoch, Checkpoint(state, {"variables": [np.zeros(size, np.uint8)]}))

    save(1, 1000)
    assert refused(lambda: save(2, 1024 * 1024)) == f"{disk / 'place' / 'epoch-00002'}: {FULL}"
    assert [path.name for path in (disk / "place").iterdir()] == ["epoch-00001"]
    found = checkpoints.load()
    assert found is not None and len(found.state.epochs) == 1


@pytest.mark.parametrize("where", ["temporary", "logs", "checkpoints"])
def test_a_training_on_a_full_disk(
    where: str,
    disk: Path,
    tiny_overrides: list[str],
    tiny_records: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fill(disk, but_for=100 if where == "temporary" else 0)
    folders = {name: tmp_path / name for name in ("temporary", "logs", "checkpoints")} | {where: disk / where}
    folders["temporary"].mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folders["temporary"]))
    # By estimate TensorFlow's cache fits, but another process takes the space.
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1e12}))
    monkeypatch.setenv(environment.CHECKPOINTS, str(folders["checkpoints"]))
    config = make_config(tiny_overrides, "baseline_box", "training.memory_cache_gb=0", **HASTY)

    with pytest.raises(SystemExit) as ended:
        steps.train(to_json(config), tiny_records, tmp_path / "model", logs=folders["logs"])

    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "No space left on device" in said.splitlines()[-1] and "Traceback" not in said
    assert not (tmp_path / "model").exists()
    assert list(folders["temporary"].iterdir()) == []
    keras.backend.clear_session()


def test_tensorboards_files_on_a_full_disk_do_not_end_the_training(
    disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    board = TensorBoardLog(disk / "logs", "phase1_box")
    board.write_epochs([{"epoch": 1.0, "loss": 1.0, "val_loss": 1.0}])
    fill(disk)
    for epoch in range(2, 100):
        board.write_epochs([{"epoch": float(epoch), "loss": 1.0, "val_loss": 1.0}] * 10)
    board.on_train_end()

    [said] = [record.getMessage() for record in caplog.records]
    assert said == (
        f"TensorBoard's files in {disk / 'logs'} cannot be written any more (No space left on device); the "
        "training continues."
    )


# --- damaged artifacts

KINDS: dict[str, tuple[Any, Callable[[Path], object]]] = {
    "dataset": (DatasetManifest, open_dataset),
    "records": (RecordsManifest, open_records),
    "model": (ModelManifest, open_model),
    "predictions": (PredictionsManifest, open_predictions),
    "evaluation": (EvaluationManifest, read_evaluation),
}
CONTENTS = [
    *("", "{", "[]", "null", "1", '"x"', "{}", "[" * 100_000, '{"kind": 1}', '{"kind": "none"}', "\ud800"),
    *('{"kind": "KIND", "more": 1}', '{"kind": "KIND", "files": []}', '{"kind": "KIND", "files": {"a": 1}}'),
    '{"kind": "KIND", "versions": ' + "9" * 5000 + "}",
]


@pytest.mark.parametrize("kind", KINDS)
def test_an_arbitrary_manifest_is_one_sentence(kind: str, tmp_path: Path) -> None:
    schema, open_it = KINDS[kind]
    for number, content in enumerate(CONTENTS):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        (folder / MANIFEST).write_bytes(content.replace("KIND", kind).encode(errors="surrogatepass"))
        with pytest.raises(DamagedError):
            open_it(folder)
        refused(partial(read_manifest, folder, schema))


@pytest.mark.parametrize("kind", KINDS)
def test_something_else_than_an_artifact_is_one_sentence(kind: str, tmp_path: Path) -> None:
    _, open_it = KINDS[kind]
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder" / MANIFEST).mkdir(parents=True)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("none", "file", "file/below", "folder", "loop", "x" * 300):
        # A long name is shortened.
        assert str(tmp_path / name)[:250] in refused(partial(open_it, tmp_path / name))


def test_a_damaged_table_is_one_sentence(
    small_records: Records, tmp_path: Path, own_dataset: Dataset
) -> None:
    table = own_dataset.path / "images.parquet"
    content = table.read_bytes()
    for damage in (
        b"",
        content[:100],
        content[: len(content) // 2],
        b"x" * 200,
        content[:200] + bytes(300) + content[500:],
    ):
        table.write_bytes(damage)
        said = refused(lambda: (open_dataset(own_dataset.path).images, None))
        assert said.startswith(f"{table} is") and "run the step that makes it again" in said
        refused(lambda: list(own_dataset.image_rows(["filename"])))
    table.unlink()
    assert f"{table} is missing or damaged" in refused(lambda: open_dataset(own_dataset.path).images)


def test_a_damaged_record_is_one_sentence(own_shards: Path) -> None:
    records = open_records(own_shards)
    path = Path(records.shard_paths("valid")[0])
    content = path.read_bytes()
    for damage in (content[:-5], content[:40] + b"xxxx" + content[44:], None):
        path.unlink()
        if damage is not None:
            path.write_bytes(damage)

        def read() -> None:
            with reading_explained(records):
                list(load_split(records, "valid", 32).as_numpy_iterator())

        assert f"A TFRecord file in {own_shards} is missing or damaged" in refused(read)
        path.touch()


def test_a_damaged_model_is_one_sentence(tmp_path: Path) -> None:
    with publish(tmp_path / "model") as draft:
        (draft.path / "model.keras").write_bytes(b"weights")
        draft.manifest = ModelManifest()
    (tmp_path / "model" / "model.keras").write_bytes(b"weigh")
    said = refused(lambda: load_model(open_model(tmp_path / "model")))
    assert said == f"{tmp_path}/model/model.keras is missing or not what manifest.json says."
