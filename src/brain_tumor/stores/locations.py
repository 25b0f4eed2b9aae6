"""Checks of a local path or bucket address before a run: a fingerprint, and whether it is writable."""

import hashlib
import tempfile
from collections.abc import Iterable
from pathlib import Path
from uuid import uuid4

from brain_tumor.stores.files import hash_file, hash_files
from brain_tumor.stores.folders import find_file, list_files, upload_file
from brain_tumor.stores.paths import explain_errors, open_path


def fingerprint(address: str | Path) -> str:
    """A short hash of the names and bytes of a file or a folder's files; empty if nothing is there.

    Nothing is downloaded from a bucket: the stored names, sizes and checksums are hashed. S3's ETags also
    depend on a multipart upload's part size and on the encryption, so the same bytes can have different
    fingerprints there, but different bytes do not have the same one.

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
    """Checks before hours of work that a local folder or a bucket is writable.

    Stores have no API to ask for that, so an empty file is written and deleted.

    Raises:
        InputError: It is not writable.
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
