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
    """A short hash of the names and bytes of a file or a folder's files; empty if nothing is there.

    Nothing is downloaded from a bucket: the stored names, sizes and checksums are hashed. S3's ETags also
    depend on the part size of a multipart upload and on the encryption: the same bytes can have different
    hashes there, but different bytes never have the same one.

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

    Stores have no request for that, so a small file is written and deleted.

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
