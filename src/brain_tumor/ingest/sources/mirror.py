"""A bucket that keeps an archive, with its sha256 in a small object beside it.

The sha256 comes first and an object appears whole, so that an upload that is killed leaves no archive. An
archive without a sha256 beside it, such as earlier versions of this project left (theirs was in the object's
metadata), is neither used nor replaced: nobody can say whether it is what was kept.
"""

import logging
import tempfile
from pathlib import Path

from brain_tumor.runtime.errors import InputError
from brain_tumor.stores.files import hash_file
from brain_tumor.stores.folders import download_file, find_file, read_file, upload_file
from brain_tumor.stores.paths import open_path

SUFFIX = ".sha256"


def take(address: str, archive: Path) -> bool:
    """Downloads the archive that is kept at an address, and compares it with its sha256.

    Returns:
        Whether there is one.

    Raises:
        InputError: The bucket cannot be read, the archive is damaged, or it has no sha256 beside it.
    """
    kept = open_path(address)
    if find_file(kept) is None:
        return False
    digest = read_file(kept.with_name(f"{kept.name}{SUFFIX}"))
    if digest is None:
        raise InputError(
            f"{address} has no {kept.name}{SUFFIX} beside it to check it against; put its sha256 there, or "
            "delete it, and run again."
        )
    download_file(kept, archive)
    if hash_file(archive) != digest.decode(errors="replace").strip():
        raise InputError(
            f"{address} is damaged: its sha256 is not the one it was kept with; delete it, and run again."
        )
    return True


def keep(archive: Path, address: str) -> None:
    """Uploads an archive with its sha256. One that is there stays.

    Two runs that do so at once upload the same bytes, since a version at Roboflow never changes. Were they
    others, the sha256 would tell.

    Raises:
        InputError: The bucket cannot be written.
    """
    place = open_path(address)
    if find_file(place) is not None:
        logging.info("%s was kept by another run meanwhile.", address)
        return
    with tempfile.TemporaryDirectory() as scratch:
        digest = Path(scratch) / SUFFIX
        digest.write_text(f"{hash_file(archive)}\n")
        upload_file(digest, place.with_name(f"{place.name}{SUFFIX}"))
    upload_file(archive, place)
