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
from brain_tumor.runtime.errors import InputError, os_errors_explained

# Instead of cloudpathlib's local cache, which is not used: an attempt to write to it fails.
NO_CACHE = os.devnull


class FileInfo(NamedTuple):
    """A file's metadata."""

    name: str
    """The file's path in the listed folder, with slashes."""
    size: int
    """In bytes."""
    checksum: str
    """The checksum that the store reports; empty for local files."""
    changed: float
    """Time of the last modification, in seconds since 1970."""


def write_json(path: str | Path, content: Any) -> None:
    """Writes indented JSON, see `write_file`.

    Raises:
        ValueError: The content has a NaN or an infinity, which JSON does not support.
    """
    write_file(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_file(path: str | Path, content: str) -> None:
    """Writes a text file atomically. Its folder is created if needed.

    Raises:
        InputError: The disk is full, a permission is missing, or something other than a file is there.
    """
    with os_errors_explained(path):
        check_kind(path, "file")
        path = Path(os.path.realpath(path))  # replaces the target of a link
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft_folder(path.parent, f".{path.name}") as draft:
            new = draft / "new"
            new.write_text(content, encoding="utf-8")
            os.replace(new, path)


def check_kind(path: str | Path, kind: Literal["file", "folder"]) -> None:
    """Checks that a path does not exist or is a file (or folder), not something else such as a pipe.

    Raises:
        InputError: It is of another kind.
    """
    try:
        mode = os.stat(path).st_mode  # read once: another process may replace it
        same = stat.S_ISREG(mode) if kind == "file" else stat.S_ISDIR(mode)
    except OSError:
        same = not os.path.islink(path)  # nothing is there, or a broken link
    if not same:
        raise InputError(f"{path} is not a {kind} and is not replaced; give another path.")


def hash_files(folder: Path, skipped: Collection[str] = ()) -> dict[str, str]:
    """The sha256 of each file below a folder, by its path relative to the folder, sorted.

    Args:
        folder: The folder.
        skipped: Names of files and folders directly in it to leave out.
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
    """All files below a folder, including those in linked folders; none if the folder does not exist.

    A link to one of its own parent folders is not followed.

    Raises:
        OSError: A folder cannot be read.
    """

    def fail(error: OSError) -> None:
        if folder.is_dir():
            raise error

    # The real paths of each folder and its parents: through links a folder may contain itself.
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


def is_special(path: Path) -> bool:
    """Whether a path is a pipe, socket or device, from which reading may block forever."""
    return path.exists() and not path.is_file() and not path.is_dir()


def find_special_file(folder: str | Path) -> str:
    """The path of a pipe, socket or device below a folder, or an empty string."""
    folders = [os.fspath(folder)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif not entry.is_file() and is_special(Path(entry.path)):
                    return entry.path
    return ""


def hash_file(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def safe_path(folder: Path, name: str, origin: str) -> Path:
    """The local path for a file of an archive or a bucket.

    Args:
        folder: The folder that the path must be in.
        name: The file's name in the archive or bucket, with slashes.
        origin: The name of the archive or bucket in messages.

    Raises:
        InputError: The path is outside of the folder.
    """
    parts = re.split(r"[/\\]", name)
    if not parts[0] or ".." in parts or "\0" in name:
        raise InputError(f"{origin} holds {name!r}, a path outside of its folder, so it is rejected.")
    return folder / name
