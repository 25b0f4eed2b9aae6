"""Roboflow: downloads a version of a project as an export.

The SDK provides the service's address (`API_URL`, regions). Its `Version.download` is not used: it checks
neither the status nor the size nor the paths in the archive, prints the signed link if a download fails, and
waits without a time limit while Roboflow prepares an export. The SDK's functions that request the link do not
report the status of an error response and have no time limit either, so this module sends that request
itself.

The key and the signed link, which gives access to the data, stay in this module: messages contain no URL and
no response text, and no error is chained to one that may contain them.
"""

import base64
import hashlib
import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import requests
import urllib3
from dotenv import dotenv_values, find_dotenv
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_exponential_jitter,
)

from brain_tumor.config import RoboflowDataset
from brain_tumor.ingest.formats.registry import read_export
from brain_tumor.ingest.sources import mirror
from brain_tumor.ingest.sources.archive import BrokenArchiveError, unpack
from brain_tumor.ingest.sources.secret_manager import read_secret
from brain_tumor.runtime.errors import InputError, UnavailableError
from brain_tumor.runtime.progress import Progress
from brain_tumor.stores.locations import check_writable

KEY = "ROBOFLOW_API_KEY"
KEY_SECRET = "ROBOFLOW_API_KEY_SECRET"
KEY_PAGE = "https://app.roboflow.com/settings/api"
ATTEMPTS = 5
BACK_OFF = wait_exponential_jitter(initial=1, max=30)
TIMEOUT = (10, 60)  # seconds to connect, and between two reads
EXPORT_POLL = 5.0  # seconds between two polls of an export in preparation
EXPORT_LIMIT = 1800.0  # seconds that the preparation may take
CHUNK = 1 << 20
# The errors of requests, and those that it does not wrap: urllib3's, and ValueError for an invalid URL.
NETWORK_ERRORS = (requests.RequestException, urllib3.exceptions.HTTPError, ValueError)
LONGEST_LENGTH = 18  # digits


class _TransientError(Exception):
    """An error that a retry may fix. The message contains no secret."""


def fetch(config: RoboflowDataset, scratch: Path) -> Path:
    """Downloads an export from the mirror, if it is there, otherwise from Roboflow.

    The key comes from the environment variable ROBOFLOW_API_KEY, a `.env` file in the working folder or one
    above it, or the secret of Google Cloud's Secret Manager that ROBOFLOW_API_KEY_SECRET names. The mirror
    needs no key. A damaged archive in the mirror is an error, and is not replaced: it may have been changed
    on purpose.

    Args:
        config: The version, and the mirror if there is one.
        scratch: An empty folder to download to.

    Returns:
        The folder that holds the export.

    Raises:
        UnavailableError: It could not be downloaded in five attempts.
        InputError: There is no key, Roboflow refuses it or does not know the version, or the export is not
            usable.
    """
    path = "/".join(quote(str(part), safe="") for part in _path(config))
    copy = f"{config.mirror.rstrip('/')}/{path}.zip" if config.mirror else ""
    archive, folder = scratch / "export.zip", scratch / path.replace("/", "-")
    if copy and mirror.download(copy, archive):
        logging.info("Using the copy in %s", copy)
        export = unpack(archive, folder, copy)
        _check_export(export, copy, scratch / "check")
    else:
        key = _find_key()
        if copy:
            check_writable(config.mirror)
        logging.info("Downloading %s", _name(config))
        with _without_request_logs():
            export = _download(config, key, path, archive, folder)
        _check_export(export, _name(config), scratch / "check")
        if copy:
            mirror.upload(archive, copy)
            logging.info("Stored as %s", copy)
    archive.unlink()
    return export


def _path(config: RoboflowDataset) -> tuple[str, str, int, str]:
    return config.workspace, config.project, config.version, config.format


def _name(config: RoboflowDataset) -> str:
    return f"Roboflow's {config.workspace}/{config.project} version {config.version} ({config.format})"


def _find_key() -> str:
    try:
        key = os.environ.get(KEY) or dotenv_values(find_dotenv(usecwd=True)).get(KEY) or ""
    except (OSError, UnicodeDecodeError):
        raise InputError(f"The file .env cannot be read; write it as text with a line {KEY}=...") from None
    if not key and (secret := os.environ.get(KEY_SECRET)):
        key = read_secret(secret)
    if not key.strip():
        raise InputError(
            f"dataset=roboflow needs an API key: copy yours from {KEY_PAGE}, and put it into the environment "
            f"variable {KEY} or, as {KEY}=..., into a file .env in the folder that you start from; on a "
            "cluster, into its secret brain-tumor-roboflow."
        )
    return key.strip()


@contextmanager
def _without_request_logs() -> Iterator[None]:
    """Prevents urllib3 from logging URLs: they contain the key."""
    logger = logging.getLogger("urllib3")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


def _download(config: RoboflowDataset, key: str, path: str, archive: Path, folder: Path) -> Path:
    def attempt() -> Path:
        _stream(_find_link(config, key, path), archive)
        shutil.rmtree(folder, ignore_errors=True)
        return unpack(archive, folder, _name(config))

    retrying = Retrying(
        retry=retry_if_exception_type((_TransientError, BrokenArchiveError)),
        stop=stop_after_attempt(ATTEMPTS),
        wait=BACK_OFF,
        before_sleep=_log_retry,
        reraise=True,
    )
    try:
        return retrying(attempt)
    except (_TransientError, BrokenArchiveError) as error:
        problem = str(error).rstrip(".")
    # Raised outside the except block: the error may be chained to one of requests, which contains the URL.
    raise UnavailableError(
        f"{_name(config)} could not be downloaded in {ATTEMPTS} attempts (the last: {problem}); "
        "try again later."
    )


def _log_retry(state: RetryCallState) -> None:
    assert state.outcome and state.next_action
    logging.warning(
        "%s Next attempt in %.0f s (%d of %d failed).",
        state.outcome.exception(),
        state.next_action.sleep,
        state.attempt_number,
        ATTEMPTS,
    )


def _find_link(config: RoboflowDataset, key: str, path: str) -> str:
    """Requests the export's link, and waits while Roboflow prepares the export."""
    from roboflow.config import resolve_url

    address, started = f"{resolve_url('API_URL')}/{path}", time.monotonic()
    while True:
        with _get(address, params={"api_key": key, "nocache": "true"}) as response:
            _check_status(response.status_code, config)
            try:
                answer = response.json()
            except (*NETWORK_ERRORS, RecursionError):  # not JSON, a huge number, or too deeply nested
                answer = None
        if response.status_code != 202:
            break
        if time.monotonic() - started > EXPORT_LIMIT:
            raise InputError(
                f"{_name(config)} is still being exported after {EXPORT_LIMIT / 60:.0f} minutes; "
                "run again later."
            )
        logging.info("%s is being exported.", _name(config))
        time.sleep(EXPORT_POLL)
    export = answer.get("export") if isinstance(answer, dict) else None
    link = export.get("link") if isinstance(export, dict) else None
    if not isinstance(link, str) or not link.startswith(("https://", "http://")):
        raise _TransientError("Roboflow answered without the link of an export.")
    return link


def _check_status(status: int, config: RoboflowDataset) -> None:
    if status in (200, 202):
        return
    if status in (401, 403):
        raise InputError(
            f"Roboflow refuses the key for {config.workspace}/{config.project} (status {status}): "
            f"check {KEY} against {KEY_PAGE}."
        )
    if status == 404:
        raise InputError(
            f"{_name(config)} does not exist, or not for this key (status 404): check dataset.workspace, "
            "dataset.project, dataset.version and dataset.format."
        )
    if status in (408, 429) or status >= 500:
        raise _TransientError(f"Roboflow answered with status {status}.")
    raise InputError(f"Roboflow refuses to export {_name(config)} (status {status}): check dataset.format.")


def _stream(link: str, path: Path) -> None:
    """Downloads a file, and checks its status, size and, if the server sends one, its checksum."""
    # With compression, the size would not be the announced one.
    with _get(link, stream=True, headers={"Accept-Encoding": "identity"}) as response:
        if response.status_code != 200:
            # An expired link is rejected too: the next attempt requests a new one.
            raise _TransientError(
                f"The download of the export was answered with status {response.status_code}."
            )
        length = response.headers.get("Content-Length", "")
        announced = int(length) if length.isdecimal() and len(length) <= LONGEST_LENGTH else None
        size, md5, problem = 0, hashlib.md5(usedforsecurity=False), ""
        with (
            open(path, "wb") as file,
            Progress("Downloading", announced, "bytes") as progress,
        ):
            try:
                for chunk in response.iter_content(CHUNK):
                    file.write(chunk)
                    md5.update(chunk)
                    size += len(chunk)
                    progress.update(len(chunk))
            except NETWORK_ERRORS as error:
                problem = f" ({type(error).__name__})"
    if problem or announced not in (None, size):
        raise _TransientError(f"The download of the export was cut off after {size:,} bytes{problem}.")
    if not size:
        raise _TransientError("The download of the export was empty.")
    # Roboflow stores exports in Google Cloud Storage, which sends checksums.
    hashes = [value.strip() for value in response.headers.get("x-goog-hash", "").split(",")]
    expected = [value.removeprefix("md5=") for value in hashes if value.startswith("md5=")]
    if expected and expected != [base64.b64encode(md5.digest()).decode()]:
        raise _TransientError("The download of the export does not match the server's checksum.")


def _get(address: str, **options: object) -> requests.Response:
    from roboflow.util import http

    try:
        response: requests.Response = http.get(address, timeout=TIMEOUT, **options)
    except NETWORK_ERRORS as error:
        raise _TransientError(f"Roboflow could not be reached ({type(error).__name__}).") from None
    except OSError:
        raise InputError(
            "The certificates for verifying Roboflow's cannot be read; fix or unset REQUESTS_CA_BUNDLE and "
            "CURL_CA_BUNDLE."
        ) from None
    return response


def _check_export(export: Path, origin: str, scratch: Path) -> None:
    """Reads the annotations, and checks that every image that they name exists.

    Validation handles all other problems, image by image. But a missing image in an export made by Roboflow
    means that the export is incomplete.
    """
    scratch.mkdir()
    for split in read_export(export, scratch).splits:
        named = split.boxes["filename"]
        missing = named[~named.isin(split.images)].unique()
        if len(missing):
            raise InputError(
                f"{origin} is incomplete: {split.name} lacks {len(missing)} of the images that its "
                f"annotations name, the first is {missing[0]}; generate the version at Roboflow again."
            )
    shutil.rmtree(scratch)
