"""Files and folders wherever they are: listing, copying from and to this machine, replacing, deleting.

No folder of a bucket can be renamed. So one of its files is its mark, uploaded last and deleted first: a
folder without it is none. On this machine a folder is renamed when it is whole.
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
from brain_tumor.stores.files import FileFacts, check_kind, safe_path
from brain_tumor.stores.paths import AnyPath, explain_errors, store_of

TRANSFERS = 8  # at a time
NEW = "new"  # what a draft will become, within its folder


def list_files(folder: AnyPath) -> Iterator[FileFacts]:
    """All files below a folder, their names relative to it. None if nothing is there.

    Of a bucket it takes one request for a thousand files.

    Raises:
        InputError: The bucket cannot be read.
        OSError: A folder cannot.
    """
    if isinstance(folder, Path):
        for parent, _, names in os.walk(folder, onerror=_raise_unless_gone):
            for path in (Path(parent, name) for name in names):
                with suppress(FileNotFoundError):  # deleted since
                    if path.is_file():
                        facts, name = path.stat(), path.relative_to(folder).as_posix()
                        yield FileFacts(name, facts.st_size, "", facts.st_mtime)
        return
    name = _object_name(folder)
    prefix = f"{name}/" if name else ""
    with explain_errors(folder):
        for facts in store_of(folder).list_objects(folder.client, folder.drive, prefix):
            # Consoles mark an empty folder by an object whose name ends in a slash.
            if not facts.name.endswith("/"):
                yield facts._replace(name=facts.name.removeprefix(prefix))


def _raise_unless_gone(error: OSError) -> None:
    """What is not a folder, or no longer there, has no files."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def find_file(path: AnyPath) -> FileFacts | None:
    """What is known of a file, its name left empty; None if there is none.

    Raises:
        InputError: The bucket cannot be read.
    """
    if isinstance(path, Path):
        facts = path.stat() if path.is_file() else None
        return facts and FileFacts("", facts.st_size, "", facts.st_mtime)
    name = _object_name(path)
    with explain_errors(path):
        # A listing instead of a question for the object: a refusal of that has no body that says why.
        found = list(store_of(path).list_objects(path.client, path.drive, name, limit=1)) if name else []
    return found[0]._replace(name="") if found and found[0].name == name else None


def read_file(path: AnyPath) -> bytes | None:
    """The bytes of a small file, or None if there is none.

    Raises:
        InputError: The bucket cannot be read.
    """
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "copy"
        return copy.read_bytes() if download_file(path, copy) else None


def download_file(path: AnyPath, target: Path) -> bool:
    """Copies a file to this machine.

    Returns:
        Whether there is such a file.

    Raises:
        InputError: It cannot be read, or `target` not be written.
    """
    facts = find_file(path)
    if facts is None:
        return False
    with explain_errors(path):
        try:
            _download(path, facts, target)
        except FileNotFoundError:
            if isinstance(path, Path) and not path.exists():  # deleted since
                return False
            raise
    return True


def download_folder(folder: AnyPath, target: Path) -> int:
    """Copies all that is below a folder to one of this machine, some files at a time.

    Returns:
        How many files there are.

    Raises:
        InputError: The bucket cannot be read, or a file's name leaves the folder; then nothing is written.
    """
    files = list(list_files(folder))
    targets = [safe_path(target, facts.name, str(folder)) for facts in files]
    with explain_errors(folder):
        for path in targets:
            path.parent.mkdir(parents=True, exist_ok=True)
        _in_threads(partial(_download, folder), "Downloading", files, targets)
    return len(files)


@contextmanager
def local_folder(folder: AnyPath) -> Iterator[Path]:
    """Yields the folder itself if it is on this machine, else a copy, which is removed afterwards.

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
    """Copies a file of this machine to anywhere, where it appears whole and replaces what is there.

    Args:
        source: The file.
        path: Where it is to be.
        origin: The folder that a message names, if not the file.

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


def upload_folder(source: Path, folder: AnyPath, mark: str) -> None:
    """Copies a folder of this machine to where none is, anywhere.

    Args:
        source: The folder.
        folder: Where it is to be. In a bucket, what is left there of an earlier attempt is overwritten.
        mark: The name of its file that comes last.

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
        names = sorted(facts.name for facts in list_files(source) if facts.name != mark)
        _in_threads(lambda name: upload_file(source / name, folder / name, folder), "Uploading", names)
        upload_file(source / mark, folder / mark, folder)


def _copy_folder(source: Path, target: Path) -> None:
    """Copies a folder of this machine. shutil's own function ends with a list of all that went wrong."""
    target.mkdir()
    for facts in list_files(source):
        (target / facts.name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / facts.name, target / facts.name)


@contextmanager
def replace_folder(folder: AnyPath, mark: str) -> Iterator[Path]:
    """Yields a temporary folder, whose content then takes the place of a folder; on an exception it does not.

    Args:
        folder: The folder. On this machine its parent is made if needed.
        mark: The name of its file that comes last.

    Raises:
        InputError: The bucket cannot be written, or something else than a folder is there.
    """
    if not isinstance(folder, Path):
        with tempfile.TemporaryDirectory() as scratch:
            yield Path(scratch)
            delete_folder(folder, mark)
            upload_folder(Path(scratch), folder, mark)
        return
    check_kind(folder, "folder")
    folder = Path(os.path.realpath(folder))  # of a link its target is replaced
    folder.parent.mkdir(parents=True, exist_ok=True)
    with draft_folder(folder.parent, f".{folder.name}") as draft:
        new = draft / NEW
        new.mkdir()
        # Whatever this user's files are by default: another user's pod must be able to read it.
        new.chmod(0o755)
        yield new
        with signals_deferred():  # between two renames there is neither the old folder nor the new one
            _put_in_place(new, folder, draft)


def _put_in_place(new: Path, folder: Path, draft: Path) -> None:
    """Gives a folder its name, and moves away what has that: a reader must not see half of the old one.

    Another process may do the same at the same time; of two, the later one's stays.
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


def delete_folder(folder: AnyPath, mark: str) -> None:
    """Deletes a folder, if there is one: first the files below it that are marks, so that half of it is none.

    Raises:
        InputError: It cannot be deleted.
    """
    marks: list[str] = []
    others: list[str] = []
    for name in sorted(facts.name for facts in list_files(folder)):
        (marks if PurePosixPath(name).name == mark else others).append(name)
    with explain_errors(folder):
        for names in (marks, others):
            # Another process may delete the same.
            _in_threads(lambda name: (folder / name).unlink(missing_ok=True), "Deleting", names)
        if isinstance(folder, Path) and folder.is_dir():
            with suppress(FileNotFoundError):
                shutil.rmtree(folder)


def _download(folder: AnyPath, facts: FileFacts, target: Path) -> None:
    """Copies a file below a folder or, with an empty name, what is not a folder."""
    if isinstance(folder, Path):
        shutil.copyfile(folder / facts.name, target)
        return
    name = "/".join(filter(None, (_object_name(folder), facts.name)))
    store_of(folder).download_object(folder.client, folder.drive, facts._replace(name=name), target)


def _object_name(path: AnyPath) -> str:
    """The name of an object within its bucket; of a bucket itself, an empty text."""
    return str(path).removeprefix(f"{path.anchor}{path.drive}").strip("/")


def _in_threads(call: Callable[..., object], what: str, *arguments: list[Any]) -> None:
    """Calls a function with each item of lists, some at a time. After an error no further call is begun."""
    with (
        ThreadPoolExecutor(TRANSFERS) as pool,
        Progress(what, len(arguments[0]), "files") as progress,
    ):
        for _ in pool.map(call, *arguments):
            progress.update()
