"""Errors of a store are one sentence with the address and what to do, without secrets."""

import errno
import os
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from botocore import exceptions as s3
from google.api_core import exceptions as google
from google.auth.exceptions import RefreshError
from google.cloud.storage.exceptions import DataCorruption
from requests import ConnectionError as RequestsConnectionError

from brain_tumor.runtime.errors import InputError, UnavailableError
from brain_tumor.stores.folders import upload_file
from brain_tumor.stores.locations import check_writable, fingerprint
from brain_tumor.stores.paths import explain_errors, open_path
from tests.unit.buckets import Bucket, S3Bucket, free_ports

pytestmark = pytest.mark.slow

WRONG_SECRET = "another-secret"
SECRET = "https://storage.example/object?signature=secret"


def refusal(call: Callable[[], object]) -> str:
    """The message of an error, whose traceback must not contain a secret."""
    with pytest.raises(InputError) as caught:
        call()
    assert "\n" not in str(caught.value)
    said = "".join(traceback.format_exception(caught.value))
    for secret in (S3Bucket.secret, WRONG_SECRET, "Signature="):
        assert secret not in said
    return str(caught.value)


@pytest.mark.parametrize("name", ["GOOGLE_APPLICATION_CREDENTIALS", ""])
def test_without_google_credentials_a_sentence_says_how_to_get_them(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for other in ("STORAGE_EMULATOR_HOST", "GOOGLE_APPLICATION_CREDENTIALS", "CLOUDSDK_CONFIG"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv("NO_GCE_CHECK", "true")  # no check for Google's own machines
    monkeypatch.setenv("HOME", str(tmp_path))
    if name:
        (tmp_path / "key.json").write_text("no key")
        monkeypatch.setenv(name, str(tmp_path / "key.json"))
    assert refusal(lambda: fingerprint("gs://bucket/data")).startswith(
        "gs://bucket/data needs Google credentials: run gcloud auth application-default login"
    )


def test_without_s3_credentials_a_sentence_says_how_to_get_them(
    s3_bucket: S3Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"):
        monkeypatch.delenv(name)
        assert refusal(lambda: fingerprint("s3://bucket/data")).startswith(
            "s3://bucket/data needs S3 credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    assert "check AWS_PROFILE" in refusal(lambda: fingerprint("s3://bucket/data"))


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("AWS_ACCESS_KEY_ID", "nobody", "InvalidAccessKeyId"),
        ("AWS_SECRET_ACCESS_KEY", WRONG_SECRET, "SignatureDoesNotMatch"),
    ],
)
def test_a_wrong_key_is_refused(
    s3_bucket: S3Bucket, monkeypatch: pytest.MonkeyPatch, name: str, value: str, code: str
) -> None:
    s3_bucket.put("data.zip", b"1")
    monkeypatch.setenv(name, value)
    for call in (fingerprint, check_writable):
        said = refusal(partial(call, "s3://bucket/data.zip"))
        assert said.startswith(f"s3://bucket/data.zip: S3 does not accept these credentials ({code}); check")


def test_an_unreachable_or_unknown_service_is_reported(
    s3_bucket: S3Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    [port] = free_ports(1)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    assert "(EndpointConnectionError); check AWS_ENDPOINT_URL" in refusal(
        lambda: fingerprint("s3://bucket/a")
    )
    monkeypatch.setenv("AWS_ENDPOINT_URL", "nonsense")
    assert refusal(lambda: fingerprint("s3://bucket/a")).startswith(
        "AWS_ENDPOINT_URL is not an address; give http"
    )


def answer(code: str) -> s3.ClientError:
    return s3.ClientError({"Error": {"Code": code, "Message": SECRET}}, "GetObject")


@pytest.mark.parametrize(
    ("address", "error", "message"),
    [
        ("gs://b/a", RefreshError(SECRET), "gs://b/a: Google does not accept these credentials"),
        ("gs://b/a", google.Unauthorized(SECRET), "gs://b/a: these credentials lack the permission"),
        ("gs://b/a", google.Forbidden(SECRET), "gs://b/a: these credentials lack the permission"),
        ("gs://b/a", google.NotFound(SECRET), "gs://b/a: there is no such bucket or object"),
        ("gs://b/a", google.ServiceUnavailable(SECRET), "gs://b/a: the bucket's service failed"),
        ("gs://b/a", RequestsConnectionError(SECRET), "gs://b/a: the bucket's service failed"),
        (
            "gs://b/a",
            DataCorruption(None, SECRET),
            "gs://b/a: the transferred bytes do not match the bucket's",
        ),
        ("s3://b/a", answer("AccessDenied"), "s3://b/a: these credentials lack the permission"),
        ("s3://b/a", answer("403"), "s3://b/a: these credentials lack the permission"),
        ("s3://b/a", answer("ExpiredToken"), "s3://b/a: S3 does not accept these credentials"),
        ("s3://b/a", answer("404"), "s3://b/a: there is no such bucket or object"),
        ("s3://b/a", answer("SlowDown"), r"s3://b/a: the bucket's service failed \(SlowDown\)"),
        ("s3://b/a", s3.ReadTimeoutError(endpoint_url=SECRET), "s3://b/a: the bucket's service failed"),
        (
            "s3://b/a",
            s3.FlexibleChecksumError(error_msg=SECRET),
            "s3://b/a: the transferred bytes do not match the bucket's checksum",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_every_failure_of_a_store_is_explained(address: str, error: Exception, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught, explain_errors(address):
        raise error
    passing = "service failed" in message or "transferred bytes" in message
    assert isinstance(caught.value, UnavailableError) == passing
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("address", "place"), [("gs://b/a", "gs://b/a: a file"), ("s3://b/a", "s3://b/a: a file"), ("/a", "/a")]
)
def test_a_full_disk_is_reported(address: str, place: str) -> None:
    with pytest.raises(InputError, match=f"^{place}: No space left on device; free"), explain_errors(address):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_programming_error_is_not_hidden() -> None:
    for address in ("gs://b/a", "s3://b/a", "/a"):
        with pytest.raises(KeyError), explain_errors(address):
            raise KeyError("name")


def test_the_reason_of_a_failed_upload_is_reported(bucket: Bucket, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"1")
    nowhere = f"{bucket.address[:5]}nowhere/file"
    said = refusal(lambda: upload_file(file, open_path(nowhere)))
    assert said.startswith(f"{nowhere}: there is no such bucket")


def test_an_upload_without_write_access_is_refused(
    s3_bucket: S3Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """boto3 raises a different error for an upload than for other operations."""
    (tmp_path / "file").write_bytes(b"1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_bucket.reader_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_bucket.reader_secret)
    said = refusal(lambda: upload_file(tmp_path / "file", open_path("s3://bucket/file")))
    assert said.startswith("s3://bucket/file: these credentials lack the permission")
