"""S3 (Amazon's or a compatible server): client, listing, download, and error messages.

boto3 finds credentials, region and endpoint (AWS_ENDPOINT_URL) like Amazon's own tools. With a custom
endpoint, buckets are addressed by path, as such servers require.
"""

import logging
from collections.abc import Iterator
from pathlib import Path

import botocore.session
from boto3.exceptions import Boto3Error, S3UploadFailedError
from boto3.session import Session
from botocore import exceptions
from botocore.config import Config
from cloudpathlib import S3Client
from tenacity import retry, retry_if_exception_type, stop_after_attempt

from brain_tumor.runtime.errors import InputError, UnavailableError
from brain_tumor.stores.files import NO_CACHE, FileInfo

# botocore logs the source of the credentials for each client.
logging.getLogger("botocore.credentials").setLevel(logging.WARNING)

# For eight transfers at a time, each of several parts if the object is large.
CONNECTIONS = 32
# In bytes. boto3's own download requests an object's size first and starts threads for its parts, which is
# three times slower for small objects.
SMALL_OBJECT = 8 << 20
ATTEMPTS = 5
TRANSIENT_ERRORS = (
    exceptions.HTTPClientError,
    exceptions.IncompleteReadError,
    exceptions.FlexibleChecksumError,
)
REJECTED_CREDENTIALS = {
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "InvalidToken",
    "ExpiredToken",
    "TokenRefreshRequired",
    "AuthorizationHeaderMalformed",
    "RequestTimeTooSkewed",
    "InvalidSecurity",
    "401",
}
MISSING_PERMISSION = {"AccessDenied", "AllAccessDisabled", "AccountProblem", "Forbidden", "403"}
MISSING = {"NoSuchBucket", "NoSuchKey", "NotFound", "404"}


def make_client() -> S3Client:
    """A client with the credentials that boto3 finds; without any, its first request fails.

    Raises:
        botocore.exceptions.BotoCoreError: The AWS configuration cannot be read.
        InputError: AWS_ENDPOINT_URL is not an address.
    """
    session = botocore.session.Session()
    session.set_default_client_config(Config(max_pool_connections=CONNECTIONS))
    try:
        return S3Client(
            boto3_session=Session(botocore_session=session),
            file_cache_mode="persistent",
            local_cache_dir=NO_CACHE,
            content_type_method=None,
        )
    except ValueError as error:
        if isinstance(error, exceptions.BotoCoreError):
            raise
        raise InputError(
            "AWS_ENDPOINT_URL is not an address; give http://HOST:PORT or https://HOST, or unset it for "
            "Amazon's own S3."
        ) from None


def list_objects(client: S3Client, bucket: str, prefix: str, limit: int | None = None) -> Iterator[FileInfo]:
    """The objects whose names begin with `prefix`, sorted; one request per thousand."""
    pages = client.client.get_paginator("list_objects_v2").paginate(
        Bucket=bucket, Prefix=prefix, PaginationConfig={"MaxItems": limit, "PageSize": limit}
    )
    for page in pages:
        for item in page.get("Contents", []):
            yield FileInfo(item["Key"], item["Size"], item["ETag"], item["LastModified"].timestamp())


def download_object(client: S3Client, bucket: str, info: FileInfo, target: Path) -> None:
    """Downloads an object; verifies its checksum if the server has one and it is not a multipart upload."""
    if info.size > SMALL_OBJECT:
        client.client.download_file(bucket, info.name, str(target))
    else:
        target.write_bytes(_read_object(client, bucket, info.name))


@retry(retry=retry_if_exception_type(TRANSIENT_ERRORS), stop=stop_after_attempt(ATTEMPTS), reraise=True)
def _read_object(client: S3Client, bucket: str, name: str) -> bytes:
    content: bytes = client.client.get_object(Bucket=bucket, Key=name)["Body"].read()
    return content


def explain(error: BaseException | None, address: str) -> InputError | None:
    """The error to raise instead of a store's error; None for other errors.

    It quotes nothing from the service or the client: that may contain signed URLs.

    Args:
        error: What the client raised.
        address: The address in the bucket, for the message.
    """
    match error:
        case S3UploadFailedError():
            # It contains only the original error's text.
            return explain(error.__context__, address) or UnavailableError(
                f"{address}: the upload failed ({type(error).__name__}); try again."
            )
        case exceptions.NoCredentialsError() | exceptions.PartialCredentialsError():
            return InputError(
                f"{address} needs S3 credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and for "
                "a server that is not Amazon's AWS_ENDPOINT_URL, or run aws configure."
            )
        case exceptions.ClientError():
            return _explain_answer(str(error.response.get("Error", {}).get("Code", "")), address)
        case exceptions.FlexibleChecksumError() | exceptions.IncompleteReadError():
            return UnavailableError(
                f"{address}: the transferred bytes do not match the bucket's checksum or size; try again."
            )
        case exceptions.ParamValidationError():
            return InputError(f"{address} is not a valid S3 address; check the bucket's name.")
        case (
            exceptions.CredentialRetrievalError()
            | exceptions.SSOError()
            | exceptions.TokenRetrievalError()
            | exceptions.ProfileNotFound()
            | exceptions.ConfigParseError()
            | exceptions.ConfigNotFound()
            | exceptions.InvalidConfigError()
        ):
            return InputError(
                f"{address}: the S3 credentials cannot be read ({type(error).__name__}); check AWS_PROFILE "
                "and what aws configure wrote, or log in again."
            )
        case exceptions.BotoCoreError() | Boto3Error():
            return UnavailableError(
                f"{address}: the bucket's service failed ({type(error).__name__}); check AWS_ENDPOINT_URL "
                "and the network, and try again."
            )
    return None


def _explain_answer(code: str, address: str) -> InputError:
    """The error to raise for an error response's code."""
    if code in REJECTED_CREDENTIALS:
        return InputError(
            f"{address}: S3 does not accept these credentials ({code}); check AWS_ACCESS_KEY_ID, "
            "AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL."
        )
    if code in MISSING_PERMISSION:
        return InputError(
            f"{address}: these credentials lack the permission; allow them to list the bucket and to get, "
            "put and delete its objects."
        )
    if code in MISSING:
        return InputError(f"{address}: there is no such bucket or object; check the address.")
    return UnavailableError(f"{address}: the bucket's service failed ({code or 'no code'}); try again.")
