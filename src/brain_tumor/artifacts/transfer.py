"""Artifacts on their way to a bucket or another folder, and back.

In a bucket, where no folder can be renamed, an artifact is whole once it has its manifest, which is uploaded
last. What comes back is compared with it.
"""

import logging
import os
import shutil
import tempfile
from pathlib import Path

from brain_tumor.artifacts.folder import MANIFEST, AnyManifest, artifact_id, check_files
from brain_tumor.config import from_json
from brain_tumor.config.fields import is_bucket
from brain_tumor.runtime.errors import InputError
from brain_tumor.stores.buckets import (
    BUCKET_TRANSFERS,
    download_file,
    download_folder,
    object_name,
    open_bucket,
)
from brain_tumor.stores.locations import explain_disk


def upload(folder: str | Path, uri: str) -> None:
    """Copies an artifact into a bucket, where it becomes visible by its manifest, uploaded last.

    An artifact that stands there already is left as it is. What an interrupted upload left is overwritten.

    Args:
        folder: The artifact's folder.
        uri: Its gs:// address, the folder's own name included.

    Raises:
        InputError: Another artifact stands at `uri`, or the bucket cannot be written.
    """
    folder = Path(folder)
    manifest = folder / MANIFEST
    with open_bucket(uri) as (bucket, name):
        from google.cloud.storage import transfer_manager

        whole = bucket.get_blob(object_name(name, MANIFEST))
        if whole is not None:
            if whole.download_as_bytes() != manifest.read_bytes():
                raise InputError(f"{uri} holds another artifact already; give another address.")
            return
        files = sorted(path for path in folder.rglob("*") if path.is_file() and path != manifest)
        pairs = [
            (str(path), bucket.blob(object_name(name, path.relative_to(folder).as_posix()))) for path in files
        ]
        transfer_manager.upload_many(
            pairs, worker_type=transfer_manager.THREAD, max_workers=BUCKET_TRANSFERS, raise_exception=True
        )
        bucket.blob(object_name(name, MANIFEST)).upload_from_filename(str(manifest))


def download(uri: str, folder: str | Path) -> None:
    """Copies an artifact from a bucket to a new folder, which appears whole or not at all.

    Args:
        uri: The artifact's gs:// address.
        folder: Where it is to be; must not exist.

    Raises:
        InputError: There is no whole artifact at `uri`, a file is not the one of its manifest, or `folder`
            exists.
    """
    folder, uri = Path(folder), uri.rstrip("/")
    if folder.exists():
        raise InputError(f"{folder} exists already; give another folder.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        draft = Path(scratch) / "artifact"
        draft.mkdir()
        if not download_file(f"{uri}/{MANIFEST}", draft / MANIFEST):
            raise InputError(
                f"{uri} is no artifact: it has no {MANIFEST}; give the address of a published one."
            )
        download_folder(uri, draft)
        manifest = from_json(AnyManifest, (draft / MANIFEST).read_bytes(), f"{uri}/{MANIFEST}")
        check_files(draft, manifest, uri)
        os.rename(draft, folder)


def publish_copy(folder: str | Path, destination: str) -> str:
    """Copies an artifact to a subfolder of a gs:// address or of a folder, named by a hash of its content.

    Returns:
        The copy's address.

    Raises:
        InputError: The bucket or the folder cannot be written.
    """
    folder = Path(folder)
    address = f"{destination.rstrip('/')}/{artifact_id(folder)[:16]}"
    if is_bucket(destination):
        upload(folder, address)
    elif not Path(address).exists():
        with explain_disk(destination):
            Path(destination).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".", dir=destination) as scratch:
                os.rename(shutil.copytree(folder, Path(scratch) / "artifact"), address)
    logging.info("Published as %s", address)
    return address
