"""Draft folders: temporary folders that are deleted with the process that made them.

Each holds a lock file that its process keeps locked. A draft whose lock is free was left by a killed process,
and the next process deletes it.
"""

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from brain_tumor.runtime.signals import signals_deferred

LOCK = "lock"
SUFFIX = ".tmp"


@contextmanager
def draft_folder(parent: Path, name: str) -> Iterator[Path]:
    """Yields a new folder `<name>-????????.tmp`, which is deleted at the end with its content.

    Drafts of the same name left by killed processes are deleted first.

    Args:
        parent: The folder to make it in.
        name: The prefix of its name.
    """
    delete_abandoned(parent, name)
    made: list[tuple[Path, int]] = []
    try:
        with signals_deferred():
            made.append(_make(parent, name))
        yield made[0][0]
    finally:
        with signals_deferred():
            for folder, lock in made:
                _delete(folder)
                os.close(lock)


def delete_abandoned(parent: Path, name: str = "") -> None:
    """Deletes the drafts (of one name, or all) whose processes were killed."""
    with os.scandir(parent) as entries:
        found = [Path(entry) for entry in entries if _is_draft(entry, name)]
    for folder in found:
        try:
            lock = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW)
        except OSError:
            # Its process was killed within `_make`, or is still there and will retry.
            with suppress(OSError):
                folder.rmdir()
            continue
        if _try_lock(lock):
            _delete(folder)
        os.close(lock)


def draft_name(name: str, middle: str = "????????") -> str:
    """The name of a draft folder."""
    return f"{name}-{middle}{SUFFIX}"


def is_draft(name: str) -> bool:
    """Whether a name is that of a draft."""
    return name.endswith(SUFFIX)


def _is_draft(entry: os.DirEntry[str], name: str) -> bool:
    """Whether an entry is a draft of this user: anyone can create files in a shared temporary folder."""
    if not (is_draft(entry.name) and entry.name.startswith(f"{name}-" if name else ".")):
        return False
    with suppress(FileNotFoundError):  # deleted since
        facts = entry.stat(follow_symlinks=False)
        return stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.getuid()
    return False


def _make(parent: Path, name: str) -> tuple[Path, int]:
    """Makes a folder; returns it and the descriptor of its locked file."""
    while True:
        folder = Path(tempfile.mkdtemp(SUFFIX, f"{name}-", parent))
        # Until it is locked, another process may consider it abandoned and delete it.
        with suppress(FileNotFoundError):
            lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
            if _try_lock(lock) is not False:
                return folder, lock
            os.close(lock)


def _try_lock(lock: int) -> bool | None:
    """Locks a file: False if another process holds or deleted it, None if the file system has no locks."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return os.fstat(lock).st_nlink > 0


def _delete(folder: Path) -> None:
    """Deletes a draft, its lock file last, so that a killed process leaves a recognizable draft."""
    with suppress(FileNotFoundError):
        for entry in os.scandir(folder):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            elif entry.name != LOCK:
                with suppress(OSError):
                    os.unlink(entry)
    shutil.rmtree(folder, ignore_errors=True)
