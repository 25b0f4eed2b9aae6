"""What can be a path of this machine or an address in a bucket."""

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from brain_tumor.config.fields import is_bucket
from brain_tumor.runtime.errors import InputError
from brain_tumor.stores.buckets import fingerprint_objects, open_bucket
from brain_tumor.stores.files import hash_file, hash_files


def fingerprint(path: str | Path) -> str:
    """A short hash of a file's, or of all a folder's files', names and bytes; empty if nothing is there.

    Of a gs:// address nothing is downloaded: the names, sizes and checksums that the bucket keeps are hashed.

    Raises:
        InputError: A bucket cannot be read.
    """
    if is_bucket(str(path)):
        return fingerprint_objects(str(path))
    path = Path(path)
    if path.is_file():
        return hash_file(path)[:16]
    if not path.is_dir():
        return ""
    lines = (f"{name} {digest}\n" for name, digest in hash_files(path).items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]


def check_writable(destination: str) -> None:
    """Finds out before hours of work whether something can be written to a gs:// address or a folder.

    Raises:
        InputError: It cannot.
    """
    if not is_bucket(destination):
        with explain_disk(destination):
            Path(destination).mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=destination).close()
        return
    needed = ["storage.objects.create", "storage.objects.get"]
    with open_bucket(destination) as (bucket, _):
        missing = sorted(set(needed) - set(bucket.test_iam_permissions(needed)))
    if missing:
        raise InputError(
            f"{destination}: these credentials lack {' and '.join(missing)}; give them a role that has it."
        )


@contextmanager
def explain_disk(destination: str) -> Iterator[None]:
    """Says of what a full or unwritable disk refuses that it was about `destination`.

    Raises:
        InputError: It refused something.
    """
    try:
        yield
    except OSError as error:
        raise InputError(f"{destination} cannot be written: {error.strerror}.") from error
