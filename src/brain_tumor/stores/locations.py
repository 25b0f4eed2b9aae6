"""Checks of a local path or a bucket address before a run: what it holds, and whether it is writable."""

import hashlib
import tempfile
from collections.abc import Iterable
from pathlib import Path
from uuid import uuid4

from brain_tumor.stores.files import hash_file, hash_files
from brain_tumor.stores.folders import find_file, list_files, upload_file
from brain_tumor.stores.paths import explain_errors, open_path


def fingerprint(address: str | Path) -> str:
    """A short hash of a file's, or of all a folder's files', names and bytes; empty if nothing is there.

    Of a bucket nothing is downloaded: the names, sizes and checksums that it keeps are hashed. S3's (ETags)
    depend on the size of the parts that a large object came in and on the bucket's encryption, too: the same
    bytes, uploaded by another program, can be other input there, and other bytes are never the same.

    Raises:
        InputError: A file, a folder or a bucket cannot be read.
    """
    path = open_path(str(address))
    if isinstance(path, Path):
        with explain_errors(path):
            if path.is_file():
                return hash_file(path)[:16]
            if not path.is_dir():
                return ""
            return _short_hash(f"{name} {digest}\n" for name, digest in hash_files(path).items())
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


def _short_hash(lines: Iterable[str]) -> str:
    return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()[:16]
