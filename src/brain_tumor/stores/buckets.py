"""Buckets of Google Cloud Storage, spoken to by google-cloud-storage, which checks each object's checksum.

It is imported only where a bucket is used.
"""

import hashlib
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from brain_tumor.runtime.errors import InputError
from brain_tumor.stores.files import hash_file, safe_path

# At a time. The client keeps ten connections open.
BUCKET_TRANSFERS = 8


@contextmanager
def open_bucket(uri: str) -> Iterator[tuple[Any, str]]:
    """Yields the bucket of a gs:// address (google.cloud.storage.Bucket) and the name within it.

    Raises:
        InputError: The address is none, there are no credentials, or what is done with the bucket fails. The
            message says which.
    """
    match = re.fullmatch(r"gs://([^/]+)/*(.*?)/*", uri)
    if match is None:
        raise InputError(f"{uri} is no bucket's address; give it as gs://BUCKET/PATH.")
    from google.api_core import exceptions
    from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
    from google.cloud import storage
    from google.cloud.storage.exceptions import DataCorruption
    from requests import RequestException

    # "from None": the causes show addresses of uploads, which let their reader write.
    try:
        yield storage.Client(project=None).bucket(match[1]), match[2]
    except DefaultCredentialsError:
        raise InputError(
            f"{uri} needs Google credentials: run gcloud auth application-default login, or set "
            "GOOGLE_APPLICATION_CREDENTIALS to the path of a key file."
        ) from None
    except GoogleAuthError as error:
        raise InputError(
            f"{uri}: Google does not take these credentials ({type(error).__name__}); log in again."
        ) from None
    except (exceptions.Unauthorized, exceptions.Forbidden):
        raise InputError(
            f"{uri}: these credentials may not do this; give them a role on the bucket, such as "
            "Storage Object User."
        ) from None
    except exceptions.NotFound:
        raise InputError(f"{uri}: there is no such bucket or object; check the address.") from None
    except DataCorruption:
        raise InputError(f"{uri}: what arrived does not have the bucket's checksum; try again.") from None
    except (exceptions.GoogleAPIError, RequestException) as error:
        raise InputError(f"{uri}: the bucket's service failed ({type(error).__name__}); try again.") from None
    except OSError as error:
        raise InputError(
            f"{uri}: {error.filename or 'a file'} cannot be written: {error.strerror}."
        ) from error


def download_file(uri: str, path: Path) -> bool:
    """Downloads one object, and checks it against the sha256 that `upload_file` left with it.

    Returns:
        Whether there is such an object.

    Raises:
        InputError: The bucket cannot be read, or the object is damaged.
    """
    with open_bucket(uri) as (bucket, name):
        blob = bucket.get_blob(name) if name else None
        if blob is None:
            return False
        blob.download_to_filename(str(path))
    if (blob.metadata or {}).get("sha256", "") not in ("", hash_file(path)):
        raise InputError(
            f"{uri} is damaged: its sha256 is not the one it was kept with; delete it, and run again."
        )
    return True


def upload_file(path: Path, uri: str) -> None:
    """Uploads a file, with its sha256 as metadata. An object appears whole, and the first one stays.

    Raises:
        InputError: The bucket cannot be written.
    """
    with open_bucket(uri) as (bucket, name):
        from google.api_core.exceptions import PreconditionFailed

        blob = bucket.blob(name)
        blob.metadata = {"sha256": hash_file(path)}
        try:
            blob.upload_from_filename(str(path), if_generation_match=0)
        except PreconditionFailed:
            logging.info("%s was kept by another run meanwhile.", uri)


def download_folder(uri: str, folder: Path) -> int:
    """Downloads all that is below a gs:// address, some objects at a time, and checks their checksums.

    Returns:
        How many files there are.

    Raises:
        InputError: The bucket cannot be read, or an object's name leaves the folder.
    """
    files = 0
    with open_bucket(uri) as (bucket, name), tqdm(desc="download", unit=" files", disable=None) as bar:
        from google.cloud.storage import transfer_manager

        # Page by page: the list of a whole data set's objects is never in memory.
        for page in _list_objects(bucket, name):
            pairs = [(blob, safe_path(folder, relative, uri)) for relative, blob in page]
            for _, target in pairs:
                target.parent.mkdir(parents=True, exist_ok=True)
            transfer_manager.download_many(
                [(blob, str(target)) for blob, target in pairs],
                worker_type=transfer_manager.THREAD,
                max_workers=BUCKET_TRANSFERS,
                raise_exception=True,
            )
            bar.update(len(pairs))
            files += len(pairs)
    return files


def fingerprint_objects(uri: str) -> str:
    """A short hash of the names, sizes and checksums that a bucket keeps; empty if nothing is there."""
    digest, files = hashlib.sha256(), 0
    with open_bucket(uri) as (bucket, name):
        blob = bucket.get_blob(name) if name else None
        for page in [[("", blob)]] if blob else _list_objects(bucket, name):
            for relative, blob in page:
                digest.update(f"{relative} {blob.size} {blob.crc32c}\n".encode())
                files += 1
    return digest.hexdigest()[:16] if files else ""


def _list_objects(bucket: Any, name: str) -> Iterator[list[tuple[str, Any]]]:
    """The objects below a name, a page at a time, each with its name relative to that."""
    prefix = object_name(name, "")
    for page in bucket.list_blobs(prefix=prefix).pages:
        # Consoles mark an empty folder by an object whose name ends in a slash.
        yield [(blob.name.removeprefix(prefix), blob) for blob in page if not blob.name.endswith("/")]


def object_name(folder: str, name: str) -> str:
    """The name of an object in a folder of a bucket."""
    return f"{folder}/{name}" if folder else name
