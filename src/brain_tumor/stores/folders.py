"""Local files and folders and those in buckets: listing, copying, replacing, deleting.

A folder in a bucket cannot be renamed. So one of its files is its completion marker, uploaded last and
deleted first: a folder without it is incomplete. A local folder is renamed when it is complete.
"""

import errno
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from brain_tumor.runtime.drafts import draft_folder
from brain_tumor.runtime.progress import Progress
from brain_tumor.runtime.signals import signals_deferred
from brain_tumor.stores.files import FileInfo, check_kind, safe_path
from brain_tumor.stores.paths import AnyPath, explain_errors, store_of

TRANSFERS = 8  # at a time
NEW = "new"  # the name of the new folder inside the draft


def list_files(folder: AnyPath) -> Iterator[FileInfo]:
    """Lists all files below a folder, with names relative to it; none if it does not exist.

    For a bucket it needs one request per thousand files.

    Raises:
        InputError: The bucket cannot be read.
        OSError: A local folder cannot be read.
    """
    if isinstance(folder, Path):
        for parent, _, names in os.walk(folder, onerror=_raise_unless_gone):
            for path in (Path(parent, name) for name in names):
                with suppress(FileNotFoundError):  # deleted since
                    if path.is_file():
                        info, name = path.stat(), path.relative_to(folder).as_posix()
                        yield FileInfo(name, info.st_size, "", info.st_mtime)
        return
    name = _object_name(folder)
    prefix = f"{name}/" if name else ""
    with explain_errors(folder):
        for info in store_of(folder).list_objects(folder.client, folder.drive, prefix):
            # Cloud consoles represent an empty folder by an object whose name ends in a slash.
            if not info.name.endswith("/"):
                yield info._replace(name=info.name.removeprefix(prefix))


def _raise_unless_gone(error: OSError) -> None:
    """Ignores the error for a path that is not a folder or does not exist: it has no files."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def find_file(path: AnyPath) -> FileInfo | None:
    """A file's metadata, with an empty name; None if it does not exist.

    Raises:
        InputError: The bucket cannot be read.
    """
    if isinstance(path, Path):
        info = path.stat() if path.is_file() else None
        return info and FileInfo("", info.st_size, "", info.st_mtime)
    name = _object_name(path)
    with explain_errors(path):
        # A listing instead of a HEAD request, whose error response has no body with the reason.
        found = list(store_of(path).list_objects(path.client, path.drive, name, limit=1)) if name else []
    return found[0]._replace(name="") if found and found[0].name == name else None


def read_file(path: AnyPath) -> bytes | None:
    """Reads a small file; None if it does not exist.

    Raises:
        InputError: The bucket cannot be read.
    """
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "copy"
        return copy.read_bytes() if download_file(path, copy) else None


def download_file(path: AnyPath, target: Path) -> bool:
    """Copies a file to this machine.

    Returns:
        Whether the file exists.

    Raises:
        InputError: The file cannot be read, or `target` cannot be written.
    """
    info = find_file(path)
    if info is None:
        return False
    with explain_errors(path):
        try:
            _download(path, info, target)
        except FileNotFoundError:
            if isinstance(path, Path) and not path.exists():  # deleted since
                return False
            raise
    return True


def download_folder(folder: AnyPath, target: Path) -> int:
    """Copies the content of a folder to a local one, several files at a time.

    Returns:
        The number of files.

    Raises:
        InputError: The bucket cannot be read, or a file's path is outside of the folder; then nothing is
            written.
    """
    files = list(list_files(folder))
    targets = [safe_path(target, info.name, str(folder)) for info in files]
    with explain_errors(folder):
        for path in targets:
            path.parent.mkdir(parents=True, exist_ok=True)
        _in_threads(partial(_download, folder), "Downloading", files, targets)
    return len(files)


@contextmanager
def local_folder(folder: AnyPath) -> Iterator[Path]:
    """Yields a local folder itself, or a temporary local copy of one in a bucket.

    Raises:
        InputError: The bucket cannot be read.
    """
    if isinstance(folder, Path):
        yield folder
        return
    with tempfile.TemporaryDirectory() as scratch:
        download_folder(folder, Path(scratch))
        yield Path(scratch)


def upload_file(source: Path, path: AnyPath, origin: AnyPath | None = None) -> None:
    """Copies a local file to a path or bucket address atomically, replacing an existing file.

    Args:
        source: The file.
        path: The target.
        origin: The folder to name in error messages instead of the target.

    Raises:
        InputError: It cannot be written.
    """
    with explain_errors(origin or path):
        if not isinstance(path, Path):
            path.upload_from(source, force_overwrite_to_cloud=True)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft_folder(path.parent, f".{path.name}") as draft:
            os.replace(shutil.copyfile(source, draft / NEW), path)


def upload_folder(source: Path, folder: AnyPath, marker: str) -> None:
    """Copies a local folder to a new path or bucket address.

    Args:
        source: The folder.
        folder: The target. In a bucket, an incomplete earlier upload is overwritten.
        marker: The name of its completion marker, the file that is uploaded last.

    Raises:
        InputError: It cannot be written.
    """
    with explain_errors(folder):
        if isinstance(folder, Path):
            folder.parent.mkdir(parents=True, exist_ok=True)
            with draft_folder(folder.parent, f".{folder.name}") as draft:
                _copy_folder(source, draft / NEW)
                os.rename(draft / NEW, folder)
            return
        names = sorted(info.name for info in list_files(source) if info.name != marker)
        _in_threads(lambda name: upload_file(source / name, folder / name, folder), "Uploading", names)
        upload_file(source / marker, folder / marker, folder)


def _copy_folder(source: Path, target: Path) -> None:
    """Copies a local folder. Unlike shutil.copytree, it stops at the first error."""
    target.mkdir()
    for info in list_files(source):
        (target / info.name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / info.name, target / info.name)


@contextmanager
def replace_folder(folder: AnyPath, marker: str) -> Iterator[Path]:
    """Yields a temporary folder, which replaces a folder at the end, unless an exception is raised.

    Args:
        folder: The folder. A local one's parent is created if needed.
        marker: The name of its completion marker.

    Raises:
        InputError: The bucket cannot be written, or something other than a folder is there.
    """
    if not isinstance(folder, Path):
        with tempfile.TemporaryDirectory() as scratch:
            yield Path(scratch)
            delete_folder(folder, marker)
            upload_folder(Path(scratch), folder, marker)
        return
    check_kind(folder, "folder")
    folder = Path(os.path.realpath(folder))  # replaces the target of a link
    folder.parent.mkdir(parents=True, exist_ok=True)
    with draft_folder(folder.parent, f".{folder.name}") as draft:
        new = draft / NEW
        new.mkdir()
        # A temporary folder is private, but another user's pod must be able to read this one.
        new.chmod(0o755)
        yield new
        with signals_deferred():  # a signal between the two renames would leave neither folder
            _put_in_place(new, folder, draft)


def _put_in_place(new: Path, folder: Path, draft: Path) -> None:
    """Renames a folder to its final name, after moving an existing one away as a whole.

    If several processes do this at the same time, the last one's folder remains.
    """
    for turn in itertools.count():
        if folder.is_dir():
            with suppress(FileNotFoundError):
                os.rename(folder, draft / f"old-{turn}")
        try:
            os.rename(new, folder)
            return
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise


def delete_folder(folder: AnyPath, marker: str) -> None:
    """Deletes a folder, if it exists.

    Files with the marker's name are deleted first, so that a partly deleted folder counts as incomplete.

    Raises:
        InputError: It cannot be deleted.
    """
    markers: list[str] = []
    others: list[str] = []
    for name in sorted(info.name for info in list_files(folder)):
        (markers if PurePosixPath(name).name == marker else others).append(name)
    with explain_errors(folder):
        for names in (markers, others):
            # Another process may be deleting it too.
            _in_threads(lambda name: (folder / name).unlink(missing_ok=True), "Deleting", names)
        if isinstance(folder, Path) and folder.is_dir():
            with suppress(FileNotFoundError):
                shutil.rmtree(folder)


def _download(folder: AnyPath, info: FileInfo, target: Path) -> None:
    """Copies a file below a folder or, with an empty name, the path itself."""
    if isinstance(folder, Path):
        shutil.copyfile(folder / info.name, target)
        return
    name = "/".join(filter(None, (_object_name(folder), info.name)))
    store_of(folder).download_object(folder.client, folder.drive, info._replace(name=name), target)


def _object_name(path: AnyPath) -> str:
    """The key of an object in its bucket; an empty string for a bucket itself."""
    return str(path).removeprefix(f"{path.anchor}{path.drive}").strip("/")


def _in_threads(call: Callable[..., object], what: str, *arguments: list[Any]) -> None:
    """Maps a function over lists in threads. After an error no further call is started."""
    with (
        ThreadPoolExecutor(TRANSFERS) as pool,
        Progress(what, len(arguments[0]), "files") as progress,
    ):
        for _ in pool.map(call, *arguments):
            progress.update()
