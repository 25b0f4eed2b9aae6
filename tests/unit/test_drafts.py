"""Drafts of ended processes are deleted, and nothing else is."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from brain_tumor.runtime.drafts import LOCK, delete_abandoned, draft_folder
from tests.unit.programs import PROGRAMS


def leave(folder: Path, name: str) -> str:
    """Runs a process that is killed while it has a draft. Returns the draft's name."""
    before = set(os.listdir(folder))
    result = subprocess.run(
        [sys.executable, str(PROGRAMS / "killed_draft.py"), str(folder), name], check=False
    )
    assert result.returncode == -signal.SIGKILL
    [left] = set(os.listdir(folder)) - before
    return left


def test_a_draft_is_deleted_at_its_end(tmp_path: Path) -> None:
    with pytest.raises(KeyError), draft_folder(tmp_path, ".model") as draft:
        assert draft.parent == tmp_path
        (draft / "file").write_text("half")
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_the_next_start_deletes_drafts_of_a_killed_process(tmp_path: Path) -> None:
    leave(tmp_path, ".model")
    other = leave(tmp_path, ".records")
    with draft_folder(tmp_path, ".model") as draft:
        assert sorted(os.listdir(tmp_path)) == sorted([draft.name, other])
        delete_abandoned(tmp_path)
        assert os.listdir(tmp_path) == [draft.name], "drafts of any name, but not of a running process"


def test_nothing_else_is_deleted(tmp_path: Path) -> None:
    mine = tmp_path / ".model-mine.tmp"
    mine.mkdir()
    (mine / "notes.txt").write_text("mine")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / LOCK).touch()
    (tmp_path / ".model-link.tmp").symlink_to(tmp_path / "elsewhere")
    (tmp_path / ".model-file.tmp").touch()
    before = sorted(tmp_path.rglob("*"))

    with draft_folder(tmp_path, ".model"):
        pass

    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_without_a_lock_is_left_to_its_creator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between creation and locking it has no owner; if another process deletes it, it is created again."""
    opened = os.open

    def late(path: str, flags: int, *rest: int) -> int:
        monkeypatch.undo()
        delete_abandoned(tmp_path)
        assert list(tmp_path.iterdir()) == []
        return opened(path, flags, *rest)

    monkeypatch.setattr(os, "open", late)
    with draft_folder(tmp_path, ".model") as draft:
        assert list(tmp_path.iterdir()) == [draft]


def test_a_signal_while_a_draft_is_deleted_waits(tmp_path: Path) -> None:
    command = [sys.executable, str(PROGRAMS / "terminated_late.py"), str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (7, "deleted\n"), result.stderr
    assert list(tmp_path.iterdir()) == []
