"""What is asked of a path of this machine or an address in a bucket before a run: what it holds, and whether
it can be written to."""

import hashlib
import os
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Literal
from uuid import uuid4

from brain_tumor.runtime.drafts import draft_name
from brain_tumor.runtime.errors import InputError, refusals_explained
from brain_tumor.stores.files import hash_file, hash_files
from brain_tumor.stores.folders import find_file, list_files, upload_file
from brain_tumor.stores.paths import explain_errors, open_path


def fingerprint(address: str | Path) -> str:
    """A short hash of a file's, or of all a folder's files', names and bytes; empty if nothing is there.

    Of a bucket nothing is downloaded: the names, sizes and checksums that it keeps are hashed. S3's (ETags)
    depend on the size of the parts that a large object came in and on the bucket's encryption, too: the same
    bytes, uploaded by another program, can be other input there, and other bytes are never the same.

    Raises:
        InputError: A bucket cannot be read.
    """
    path = open_path(str(address))
    if isinstance(path, Path):
        if path.is_file():
            return hash_file(path)[:16]
        lines = [f"{name} {digest}\n" for name, digest in hash_files(path).items()] if path.is_dir() else None
        return "" if lines is None else _short_hash(lines)
    found = find_file(path)
    files = [found] if found else sorted(list_files(path))
    return _short_hash(f"{file.name} {file.size} {file.checksum}\n" for file in files) if files else ""


def check_writable(destination: str) -> None:
    """Finds out before hours of work whether a folder, anywhere, can be written to.

    No store can be asked that, so a small file is written and deleted.

    Raises:
        InputError: It cannot.
    """
    path = open_path(destination)
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / f".brain-tumor-{uuid4().hex}"
        file.touch()
        upload_file(file, path / file.name, path)
    with explain_errors(path):
        (path / file.name).unlink()


def check_output(path: str | Path, kind: Literal["folder", "file"]) -> None:
    """Finds out before hours of work whether an output can be put to a path of this machine.

    Nothing is left there, and what is there stays as it is.

    Args:
        path: The path, whose parent need not be there yet.
        kind: What is to be there.

    Raises:
        InputError: It cannot.
    """
    place = Path(os.path.realpath(path))
    if kind == "folder" and Path.cwd().is_relative_to(place):
        raise InputError(
            f"{path} is the folder that this is run in, or holds it; name a new one to write to."
        )
    with refusals_explained(path):
        if place.exists() and not (place.is_dir() if kind == "folder" else place.is_file()):
            raise InputError(f"{path} is no {kind}, and stays as it is; name another one.")
        parent = next(folder for folder in place.parents if folder.exists())
        draft = place.with_name(draft_name(f".{place.name}")) / "file"
        # Names that are too long are told by asking for them, each where folders are.
        for path_to_ask in (draft, *(parent / name for name in draft.relative_to(parent).parts)):
            with suppress(FileNotFoundError):
                os.lstat(path_to_ask)
        try:
            with tempfile.TemporaryFile(dir=parent) as file:
                file.write(bytes(4096))
        except FileNotFoundError:  # as below /proc
            raise InputError(f"{path} cannot be made: {parent} takes no files; name another one.") from None


def _short_hash(lines: Iterable[str]) -> str:
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]
