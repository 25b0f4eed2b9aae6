"""Artifacts: folders that appear whole or not at all, on disk and in a bucket.

An artifact is a folder that a step hands to the next one. It is written under a temporary name, gets its
`manifest.json` last, and is renamed, so that no reader ever sees half of one. In a bucket, where no folder
can be renamed, an artifact is whole once it has its manifest.

A gs:// address is read and written with google-cloud-storage, which checks each object against its checksum.
It is imported only for such an address.
"""

import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tqdm import tqdm

from brain_tumor.errors import InputError

MANIFEST = "manifest.json"
BUCKET_SCHEME = "gs://"
# At a time. The client keeps ten connections open.
BUCKET_TRANSFERS = 8


@dataclass
class Draft:
    """An artifact being written.

    Attributes:
        path: The temporary folder to write files into.
        manifest: What the manifest will say besides kind, files and versions. Fill it before the draft ends.
    """

    path: Path
    manifest: dict[str, Any] = field(default_factory=dict)


@contextmanager
def publish(path: str | Path, kind: str, indexed: Collection[str] = ()) -> Iterator[Draft]:
    """Writes an artifact: yields a draft, and at the end adds the manifest and renames it to `path`.

    On an exception nothing is left under `path`. An artifact that already stands there is replaced.

    Args:
        path: The artifact's folder. Its parent is made if needed.
        kind: What the artifact is, checked by `read_manifest`.
        indexed: Folders in it whose files have their sha256 in another of its files. The manifest's `files`
            leaves them out: with one entry an image it would grow with the data set.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    # mkdtemp's folder is private to the user; another user's pod must be able to read an artifact.
    temporary.chmod(0o755)
    replaced = temporary.with_name(f"{temporary.name}-replaced")
    try:
        draft = Draft(temporary)
        yield draft
        manifest = {
            "kind": kind,
            **draft.manifest,
            "files": hash_files(temporary, indexed),
            "versions": {"brain-tumor": version("brain-tumor")},
        }
        write_json(temporary / MANIFEST, manifest)
        if path.is_dir():
            # Moved away, not deleted in place: a reader must not see half of the old artifact either.
            os.rename(path, replaced)
        os.rename(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)


def read_manifest(path: str | Path, kind: str) -> dict[str, Any]:
    """Reads an artifact's manifest.

    Raises:
        InputError: There is no whole artifact at `path`, or it is of another kind.
    """
    file = Path(path) / MANIFEST
    if not file.is_file():
        raise InputError(
            f"{path} is no {kind} artifact: it has no {MANIFEST}; run the step that makes it first."
        )
    manifest: dict[str, Any] = json.loads(file.read_text())
    if manifest.get("kind") != kind:
        raise InputError(f"{path} holds a {manifest.get('kind')} artifact where a {kind} artifact is needed.")
    return manifest


def write_json(path: str | Path, content: Any) -> None:
    """Writes readable JSON with sorted keys. NaN is refused, since it is no JSON."""
    write_file(path, json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n")


def write_file(path: str | Path, content: str) -> None:
    """Writes a text file that appears whole or not at all. Its folder is made if needed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(content, encoding="utf-8")
    os.replace(temporary, path)


def hash_files(folder: Path, skipped: Collection[str] = ()) -> dict[str, str]:
    """The sha256 of each file below a folder, by its path relative to the folder, sorted.

    Args:
        folder: The folder.
        skipped: Names of files and folders right below it that are left out.
    """
    tops = [path for path in folder.iterdir() if path.name not in skipped]
    files = sorted(path for top in tops for path in (top, *top.rglob("*")) if path.is_file())
    with ThreadPoolExecutor() as pool:
        digests = pool.map(hash_file, files)
        return {
            file.relative_to(folder).as_posix(): digest for file, digest in zip(files, digests, strict=True)
        }


def hash_file(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(path: str | Path) -> str:
    """A short hash of a file's, or of all a folder's files', names and bytes; empty if nothing is there.

    Of a gs:// address nothing is downloaded: the names, sizes and checksums that the bucket keeps are hashed.

    Raises:
        InputError: A bucket cannot be read.
    """
    if in_bucket(path):
        return _fingerprint_objects(str(path))
    path = Path(path)
    if path.is_file():
        return hash_file(path)[:16]
    if not path.is_dir():
        return ""
    lines = (f"{name} {digest}\n" for name, digest in hash_files(path).items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]


def publish_copy(folder: str | Path, destination: str) -> str:
    """Copies an artifact to a subfolder of a gs:// address or of a folder, named by a hash of its content.

    Returns:
        The copy's address.

    Raises:
        InputError: The bucket or the folder cannot be written.
    """
    folder = Path(folder)
    address = f"{destination.rstrip('/')}/{hash_file(folder / MANIFEST)[:16]}"
    if in_bucket(destination):
        upload(folder, address)
    elif not Path(address).exists():
        with _explain_disk(destination):
            Path(destination).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".", dir=destination) as scratch:
                os.rename(shutil.copytree(folder, Path(scratch) / "artifact"), address)
    logging.info("Published as %s", address)
    return address


def check_writable(destination: str) -> None:
    """Finds out before hours of work whether something can be written to a gs:// address or a folder.

    Raises:
        InputError: It cannot.
    """
    if not in_bucket(destination):
        with _explain_disk(destination):
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

        whole = bucket.get_blob(_object_name(name, MANIFEST))
        if whole is not None:
            if whole.download_as_bytes() != manifest.read_bytes():
                raise InputError(f"{uri} holds another artifact already; give another address.")
            return
        files = sorted(path for path in folder.rglob("*") if path.is_file() and path != manifest)
        pairs = [
            (str(path), bucket.blob(_object_name(name, path.relative_to(folder).as_posix())))
            for path in files
        ]
        transfer_manager.upload_many(
            pairs, worker_type=transfer_manager.THREAD, max_workers=BUCKET_TRANSFERS, raise_exception=True
        )
        bucket.blob(_object_name(name, MANIFEST)).upload_from_filename(str(manifest))


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
        for name, digest in json.loads((draft / MANIFEST).read_text())["files"].items():
            if not (draft / name).is_file() or hash_file(draft / name) != digest:
                raise InputError(f"{uri}/{name} is missing or not what {MANIFEST} says; publish it again.")
        os.rename(draft, folder)


def in_bucket(path: str | Path) -> bool:
    """Whether something is a gs:// address."""
    return str(path).startswith(BUCKET_SCHEME)


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


def safe_path(folder: Path, name: str, origin: str) -> Path:
    """Where a file of an archive or a bucket goes.

    Args:
        folder: The folder it must stay in.
        name: Its name there, with slashes.
        origin: What a message calls the archive or bucket.

    Raises:
        InputError: The name leaves the folder.
    """
    parts = re.split(r"[/\\]", name)
    if not parts[0] or ".." in parts or "\0" in name:
        raise InputError(f"{origin} holds {name!r}, a name that leaves its folder; nothing of it is used.")
    return folder / name


def _fingerprint_objects(uri: str) -> str:
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
    prefix = _object_name(name, "")
    for page in bucket.list_blobs(prefix=prefix).pages:
        # Consoles mark an empty folder by an object whose name ends in a slash.
        yield [(blob.name.removeprefix(prefix), blob) for blob in page if not blob.name.endswith("/")]


def _object_name(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


@contextmanager
def _explain_disk(destination: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{destination} cannot be written: {error.strerror}.") from error
