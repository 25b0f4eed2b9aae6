"""Folders of unfinished things, which go with the process that made them.

Each has a file in it that its process keeps locked. One whose file nobody has locked is of a process that was
killed, and whoever comes next deletes it.
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
    """Yields a new folder `<name>-????????.tmp`, which is deleted at the end with all that is in it.

    Those of the same name that killed processes have left are deleted first.

    Args:
        parent: Where.
        name: How its name begins.
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
    """Deletes the folders of a name, or of any, whose processes were killed; those of others stay."""
    with os.scandir(parent) as entries:
        found = [Path(entry) for entry in entries if _is_draft(entry, name)]
    for folder in found:
        try:
            lock = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW)
        except OSError:
            # One that was killed between two lines of `_make`, or is there now and tries again.
            with suppress(OSError):
                folder.rmdir()
            continue
        if _take(lock):
            _delete(folder)
        os.close(lock)


def draft_name(name: str, middle: str = "????????") -> str:
    """What a draft of a name is called."""
    return f"{name}-{middle}{SUFFIX}"


def is_draft(name: str) -> bool:
    """Whether a file or folder that is called so is a draft."""
    return name.endswith(SUFFIX)


def _is_draft(entry: os.DirEntry[str], name: str) -> bool:
    """Whether it is a folder of this user's that `_make` has made; anyone can write to a temporary folder."""
    if not (is_draft(entry.name) and entry.name.startswith(f"{name}-" if name else ".")):
        return False
    with suppress(FileNotFoundError):  # deleted since
        facts = entry.stat(follow_symlinks=False)
        return stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.getuid()
    return False


def _make(parent: Path, name: str) -> tuple[Path, int]:
    """A new folder, and its locked file."""
    while True:
        folder = Path(tempfile.mkdtemp(SUFFIX, f"{name}-", parent))
        # Until it has the lock, another process may take it for a dead one's.
        with suppress(FileNotFoundError):
            lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
            if _take(lock) is not False:
                return folder, lock
            os.close(lock)


def _take(lock: int) -> bool | None:
    """Takes a lock; False if another process has it or has deleted the file, None on a disk without locks."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return os.fstat(lock).st_nlink > 0


def _delete(folder: Path) -> None:
    """Deletes a folder, the lock last, so that whoever is killed meanwhile leaves one that can be told."""
    with suppress(FileNotFoundError):
        for entry in os.scandir(folder):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            elif entry.name != LOCK:
                with suppress(OSError):
                    os.unlink(entry)
    shutil.rmtree(folder, ignore_errors=True)
