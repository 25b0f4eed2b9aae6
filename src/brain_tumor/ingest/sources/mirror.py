"""A mirror of a downloaded archive in a bucket, with its sha256 in a small object next to it.

The sha256 is uploaded first, and objects appear atomically, so an interrupted upload leaves no archive. An
archive without a sha256 (earlier versions of this project stored it in the object's metadata) cannot be
verified, so it is neither used nor replaced.
"""

import logging
import tempfile
from pathlib import Path

from brain_tumor.runtime.errors import InputError
from brain_tumor.stores.files import hash_file
from brain_tumor.stores.folders import download_file, find_file, read_file, upload_file
from brain_tumor.stores.paths import open_path

SUFFIX = ".sha256"


def download(address: str, archive: Path) -> bool:
    """Downloads the archive at an address, and verifies its sha256.

    Returns:
        Whether the mirror has the archive.

    Raises:
        InputError: The bucket cannot be read, the archive is damaged, or its sha256 is missing.
    """
    copy = open_path(address)
    if find_file(copy) is None:
        return False
    digest = read_file(copy.with_name(f"{copy.name}{SUFFIX}"))
    if digest is None:
        raise InputError(
            f"{address} has no {copy.name}{SUFFIX} beside it, so it cannot be verified; put its "
            "sha256 there, or delete it, and run again."
        )
    download_file(copy, archive)
    if hash_file(archive) != digest.decode(errors="replace").strip():
        raise InputError(
            f"{address} is damaged: its sha256 does not match the stored one; delete it, and run again."
        )
    return True


def upload(archive: Path, address: str) -> None:
    """Uploads an archive with its sha256, unless there is one already.

    Two simultaneous runs upload the same bytes, since a version at Roboflow never changes. If they differed,
    the sha256 would not match.

    Raises:
        InputError: The bucket cannot be written.
    """
    place = open_path(address)
    if find_file(place) is not None:
        logging.info("Another run has stored %s in the meantime.", address)
        return
    with tempfile.TemporaryDirectory() as scratch:
        digest = Path(scratch) / SUFFIX
        digest.write_text(f"{hash_file(archive)}\n")
        upload_file(digest, place.with_name(f"{place.name}{SUFFIX}"))
    upload_file(archive, place)
