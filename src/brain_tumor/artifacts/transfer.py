"""Copies artifacts to a bucket or another folder, and back."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from brain_tumor.artifacts.folder import MANIFEST, Manifest, artifact_id, check_files, read_manifest
from brain_tumor.runtime.errors import InputError, os_errors_explained
from brain_tumor.stores.folders import local_folder, read_file, upload_folder
from brain_tumor.stores.paths import AnyPath, open_path


def upload(folder: str | Path, address: str) -> None:
    """Copies an artifact to a folder or bucket, where it becomes visible only when it is complete.

    Idempotent: nothing is copied if the same artifact is there already. An interrupted upload is overwritten.

    Args:
        folder: The artifact's folder.
        address: The new folder or gs:// or s3:// address, including the folder's name.

    Raises:
        InputError: There is another artifact at `address`, or it cannot be written.
    """
    target = open_path(address)
    with os_errors_explained(address):
        existing = read_file(target / MANIFEST)
    if existing is None:
        upload_folder(Path(folder), target, MANIFEST)
    elif existing != (Path(folder) / MANIFEST).read_bytes():
        raise InputError(f"{target} already holds another artifact; give another address.")


@contextmanager
def local_copy(path: AnyPath, schema: type[Manifest]) -> Iterator[Path]:
    """Yields a local folder with an artifact's files, after checking them against the manifest.

    It is the artifact's own folder or, for one in a bucket, a copy that is removed afterwards.

    Raises:
        DamagedError: There is no complete artifact at `path`, or a file does not match the manifest.
        InputError: It cannot be read.
    """
    with local_folder(path) as folder:
        with os_errors_explained():
            check_files(folder, read_manifest(folder, schema, str(path)), str(path))
        yield folder


def publish_copy(folder: str | Path, destination: str) -> str:
    """Copies an artifact to a subfolder of a folder or bucket, named by a hash of its content.

    Returns:
        The copy's address.

    Raises:
        InputError: The bucket or the folder cannot be written.
    """
    address = f"{destination.rstrip('/')}/{artifact_id(folder)[:16]}"
    upload(folder, address)
    logging.info("Published as %s", address)
    return address
