"""Local files and folders: atomic writes, hashes, and checks that a path stays inside its folder."""

import hashlib
import json
import os
import re
import stat
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, NamedTuple

from brain_tumor.runtime.drafts import draft_folder
from brain_tumor.runtime.errors import InputError, refusals_explained

# Where cloudpathlib may keep copies of what it reads: nowhere. What would make one fails instead.
NO_CACHE = os.devnull


class FileFacts(NamedTuple):
    """What a listing says of a file."""

    name: str
    """With slashes."""
    size: int
    """In bytes."""
    checksum: str
    """What a bucket keeps: of the same kind for all its files, and empty on this machine."""
    changed: float
    """When it was last written, in seconds since 1970."""


def write_json(path: str | Path, content: Any) -> None:
    """Writes readable JSON. NaN is refused, since it is not JSON."""
    write_file(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_file(path: str | Path, content: str) -> None:
    """Writes a text file that appears whole or not at all. Its folder is made if needed.

    Raises:
        InputError: The disk is full, its owner refuses it, or something else than a file is there.
    """
    with refusals_explained(path):
        check_kind(path, "file")
        path = Path(os.path.realpath(path))  # of a link its target is replaced
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft_folder(path.parent, f".{path.name}") as draft:
            new = draft / "new"
            new.write_text(content, encoding="utf-8")
            os.replace(new, path)


def check_kind(path: str | Path, kind: Literal["file", "folder"]) -> None:
    """Refuses to put a file or a folder where something of another kind is, such as a pipe or /dev/null.

    Raises:
        InputError: It is.
    """
    try:
        mode = os.stat(path).st_mode  # asked once: another process may replace it
        same = stat.S_ISREG(mode) if kind == "file" else stat.S_ISDIR(mode)
    except OSError:
        same = not os.path.islink(path)  # nothing is there, or a link that leads nowhere
    if not same:
        raise InputError(f"{path} is not a {kind} and is not replaced; give another path.")


def hash_files(folder: Path, skipped: Collection[str] = ()) -> dict[str, str]:
    """The sha256 of each file below a folder, by its path relative to the folder, sorted.

    Args:
        folder: The folder.
        skipped: Names of files and folders right below it that are left out.
    """
    files = sorted(
        file
        for path in folder.iterdir()
        if path.name not in skipped
        for file in ([path] if path.is_file() else walk_files(path))
    )
    with ThreadPoolExecutor() as pool:
        digests = pool.map(hash_file, files)
        return {
            file.relative_to(folder).as_posix(): digest for file, digest in zip(files, digests, strict=True)
        }


def walk_files(folder: Path) -> Iterator[Path]:
    """All files below a folder, those behind links to folders too; none if there is no such folder.

    A link to a folder that it lies in is not followed.

    Raises:
        OSError: A folder cannot be read.
    """

    def fail(error: OSError) -> None:
        if folder.is_dir():
            raise error

    # Each folder that was reached, and what it is: by links it may lie in itself.
    inside = {str(folder): [os.path.realpath(folder)]}
    for place, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        within = inside.pop(place)
        real = {name: os.path.realpath(os.path.join(place, name)) for name in folders}
        folders[:] = [name for name in folders if real[name] not in within]
        for name in folders:
            inside[os.path.join(place, name)] = [*within, real[name]]
        for name in names:
            if os.path.isfile(path := Path(place, name)):
                yield path


def hash_file(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def safe_path(folder: Path, name: str, origin: str) -> Path:
    """Where a file of an archive or a bucket goes.

    Args:
        folder: The folder it must stay in.
        name: Its name there, with slashes.
        origin: What a message calls the archive or bucket.

    Raises:
        InputError: The name leaves the folder.
    """
    parts = re.split(r"[/\\]", name)
    if not parts[0] or ".." in parts or "\0" in name:
        raise InputError(f"{origin} holds {name!r}, a name that leaves its folder; nothing of it is used.")
    return folder / name
