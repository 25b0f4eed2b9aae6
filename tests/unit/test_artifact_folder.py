import hashlib
import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import pytest

from brain_tumor.artifacts.folder import Manifest, check_files, publish, read_manifest
from brain_tumor.artifacts.model import ModelManifest
from brain_tumor.artifacts.records import RecordsManifest
from brain_tumor.runtime.drafts import is_draft
from brain_tumor.runtime.errors import DamagedError, InputError
from tests.unit.programs import PROGRAMS


class Counted(Manifest):
    """A manifest with an additional field."""

    kind: Literal["counted"] = "counted"
    count: int


def make_artifact(path: Path, content: str = "content") -> Path:
    with publish(path) as draft:
        (draft.path / "file.txt").write_text(content)
        draft.manifest = ModelManifest()
    return path


def test_an_artifact_is_published_atomically(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "artifact"

    with publish(path) as draft:
        (draft.path / "inner").mkdir()
        (draft.path / "inner" / "file.bin").write_bytes(b"\x00\x01")
        (draft.path / "file.txt").write_text("content")
        draft.manifest = Counted(count=2)
        assert not path.exists()

    assert [entry.name for entry in path.parent.iterdir()] == ["artifact"]
    assert (path / "inner" / "file.bin").read_bytes() == b"\x00\x01"
    manifest = read_manifest(path, Counted)
    assert (manifest.kind, manifest.count) == ("counted", 2)
    assert manifest.files == {
        "file.txt": hashlib.sha256(b"content").hexdigest(),
        "inner/file.bin": hashlib.sha256(b"\x00\x01").hexdigest(),
    }
    assert manifest.versions["brain-tumor"]
    assert path.stat().st_mode & 0o055 == 0o055, "another user must be able to read it"


def test_an_exception_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with publish(tmp_path / "artifact") as draft:
            (draft.path / "file.txt").write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()

    assert list(tmp_path.iterdir()) == []


def test_an_artifact_is_replaced_only_by_a_complete_one(tmp_path: Path) -> None:
    path = make_artifact(tmp_path / "artifact", "old")

    def fail() -> None:
        with publish(path) as draft:
            (draft.path / "other.txt").write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert (path / "file.txt").read_text() == "old"

    make_artifact(path, "new")
    assert (path / "file.txt").read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["artifact"]


def run_and_die(path: Path, moment: str) -> None:
    result = subprocess.run(
        [sys.executable, str(PROGRAMS / "killed_publish.py"), path, moment], capture_output=True, text=True
    )
    assert result.returncode == -signal.SIGKILL, result.stderr


@pytest.mark.parametrize("moment", ["writing", "rename"])
def test_a_killed_process_leaves_no_artifact(tmp_path: Path, moment: str) -> None:
    path = tmp_path / "artifact"

    run_and_die(path, moment)

    assert not path.exists()
    with pytest.raises(InputError, match="no model artifact"):
        read_manifest(path, ModelManifest)
    [left] = tmp_path.iterdir()
    assert is_draft(left.name)
    make_artifact(path)  # the killed process's files do not interfere, and are deleted
    assert read_manifest(path, ModelManifest).kind == "model"
    assert list(tmp_path.iterdir()) == [path]


def test_processes_that_write_the_same_artifact_do_not_disturb_each_other(tmp_path: Path) -> None:
    command = [sys.executable, str(PROGRAMS / "publish_often.py"), str(tmp_path / "artifact")]
    with ExitStack() as stack:
        processes = [
            stack.enter_context(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
            for _ in range(3)
        ]
        for process in processes:
            assert process.communicate()[1] == "" and process.returncode == 0
    check_files(tmp_path / "artifact", read_manifest(tmp_path / "artifact", ModelManifest))
    assert [path.name for path in tmp_path.iterdir()] == ["artifact"]


def test_files_of_a_running_process_are_kept(tmp_path: Path) -> None:
    with publish(tmp_path / "artifact") as first:
        (first.path / "file.txt").write_text("first")
        make_artifact(tmp_path / "artifact", "second")
        assert (first.path / "file.txt").read_text() == "first"
        first.manifest = ModelManifest()
    assert (tmp_path / "artifact" / "file.txt").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["artifact"]


def test_a_process_killed_while_deleting_the_old_artifact_leaves_no_partial_one(tmp_path: Path) -> None:
    path = make_artifact(tmp_path / "artifact", "old")

    # The first deletion removes one file and dies, like a process killed while deleting many files.
    run_and_die(path, "deletion")

    assert (path / "file.txt").read_text() == "new"
    assert read_manifest(path, ModelManifest).files["file.txt"] == hashlib.sha256(b"new").hexdigest()


def test_another_kind_is_refused(tmp_path: Path) -> None:
    path = make_artifact(tmp_path / "artifact")

    with pytest.raises(InputError, match=r"artifact holds a model artifact where a records artifact"):
        read_manifest(path, RecordsManifest)


def test_a_folder_without_manifest_is_not_an_artifact(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no records artifact: no manifest\.json; run the step"):
        read_manifest(tmp_path, RecordsManifest)


@pytest.mark.parametrize(
    "text",
    [
        "",
        '{"kind": "coun',
        "[]",
        '{"kind": "counted"}',
        '{"kind": "counted", "count": "2"}',
        '{"kind": "counted", "count": 2, "more": 1}',
    ],
)
def test_a_truncated_or_wrong_manifest_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(InputError, match=r"manifest\.json is damaged, or another version wrote it; run the"):
        read_manifest(tmp_path, Counted)


def test_a_file_that_does_not_match_the_manifest_is_found(tmp_path: Path) -> None:
    path = make_artifact(tmp_path / "artifact")
    manifest = read_manifest(path, ModelManifest)
    check_files(path, manifest)
    (path / "file.txt").write_text("other")
    with pytest.raises(InputError, match=r"artifact/file\.txt is missing or not what manifest\.json says"):
        check_files(path, manifest)
    (path / "file.txt").unlink()
    with pytest.raises(InputError, match=r"gs://bucket/one/file\.txt is missing"):
        check_files(path, manifest, "gs://bucket/one")


def test_a_pipe_among_an_artifacts_files_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    path = make_artifact(tmp_path / "artifact")
    (path / "images").mkdir()
    os.mkfifo(path / "images" / "x.jpg")
    with pytest.raises(DamagedError, match=r"images/x\.jpg is a pipe or a device, not a file; run the step"):
        read_manifest(path, ModelManifest)
