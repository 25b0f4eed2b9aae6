"""Google Cloud Storage: client, listing, download, and error messages.

cloudpathlib uses google-cloud-storage's client, which checks checksums of uploads and downloads.
"""

from collections.abc import Iterator
from pathlib import Path

from cloudpathlib import GSClient
from google.api_core import exceptions
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
from google.cloud import storage
from google.cloud.storage.exceptions import DataCorruption
from requests import RequestException

from brain_tumor.runtime.errors import InputError, UnavailableError
from brain_tumor.stores.files import NO_CACHE, FileInfo


def make_client() -> GSClient:
    """A client with the environment's credentials; it honors STORAGE_EMULATOR_HOST.

    Raises:
        google.auth.exceptions.DefaultCredentialsError: There are no credentials.
    """
    # Without credentials, cloudpathlib would create an anonymous client, which reads only public buckets.
    return GSClient(
        storage_client=storage.Client(project=None),
        file_cache_mode="persistent",
        local_cache_dir=NO_CACHE,
        content_type_method=None,
    )


def list_objects(client: GSClient, bucket: str, prefix: str, limit: int | None = None) -> Iterator[FileInfo]:
    """The objects whose names begin with `prefix`, sorted; one request per thousand."""
    fields = "items(name,size,crc32c,updated),nextPageToken"
    for blob in client.client.list_blobs(bucket, prefix=prefix, max_results=limit, fields=fields):
        yield FileInfo(blob.name, blob.size, blob.crc32c or "", blob.updated.timestamp())


def download_object(client: GSClient, bucket: str, info: FileInfo, target: Path) -> None:
    """Downloads an object. cloudpathlib's function would need three more requests."""
    client.client.bucket(bucket).blob(info.name).download_to_filename(str(target))


def explain(error: Exception, address: str) -> InputError | None:
    """The error to raise instead of a store's error; None for other errors.

    It quotes nothing from the service or the client: that may contain signed URLs.

    Args:
        error: What the client raised.
        address: The address in the bucket, for the message.
    """
    match error:
        case DefaultCredentialsError():
            return InputError(
                f"{address} needs Google credentials: run gcloud auth application-default login, or set "
                "GOOGLE_APPLICATION_CREDENTIALS to the path of a key file."
            )
        case GoogleAuthError():
            return InputError(
                f"{address}: Google does not accept these credentials ({type(error).__name__}); log in again."
            )
        case exceptions.Unauthorized() | exceptions.Forbidden():
            return InputError(
                f"{address}: these credentials lack the permission; give them a role on the bucket, such as "
                "Storage Object User."
            )
        case exceptions.NotFound():
            return InputError(f"{address}: there is no such bucket or object; check the address.")
        case DataCorruption():
            return UnavailableError(
                f"{address}: the transferred bytes do not match the bucket's checksum; try again."
            )
        case exceptions.GoogleAPIError() | RequestException():
            return UnavailableError(
                f"{address}: the bucket's service failed ({type(error).__name__}); try again."
            )
    return None
