"""Google Cloud Storage: the client, the listing, a download, and what its errors mean.

cloudpathlib's client is google-cloud-storage's, which checks each object's checksum on both ways.
"""

from collections.abc import Iterator
from pathlib import Path

from cloudpathlib import GSClient
from google.api_core import exceptions
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
from google.cloud import storage
from google.cloud.storage.exceptions import DataCorruption
from requests import RequestException

from brain_tumor.stores.files import NO_CACHE, FileFacts


def make_client() -> GSClient:
    """A client with the machine's own credentials; it honours STORAGE_EMULATOR_HOST.

    Raises:
        google.auth.exceptions.DefaultCredentialsError: There are none.
    """
    # cloudpathlib would make one without credentials where it finds none, which sees public buckets alone.
    return GSClient(
        storage_client=storage.Client(project=None),
        file_cache_mode="persistent",
        local_cache_dir=NO_CACHE,
        content_type_method=None,
    )


def list_objects(client: GSClient, bucket: str, prefix: str, limit: int | None = None) -> Iterator[FileFacts]:
    """The objects whose names begin with `prefix`, by name; one request gives a thousand."""
    fields = "items(name,size,crc32c,updated),nextPageToken"
    for blob in client.client.list_blobs(bucket, prefix=prefix, max_results=limit, fields=fields):
        yield FileFacts(blob.name, blob.size, blob.crc32c or "", blob.updated.timestamp())


def download_object(client: GSClient, bucket: str, facts: FileFacts, target: Path) -> None:
    """Downloads an object. cloudpathlib's own function would ask three times more whether it is there."""
    client.client.bucket(bucket).blob(facts.name).download_to_filename(str(target))


def explain(error: Exception) -> str:
    """What a message says of an error after the address; empty if it is none of the store's.

    It repeats nothing that the service or the client said, which may be signed addresses.
    """
    match error:
        case DefaultCredentialsError():
            return (
                " needs Google credentials: run gcloud auth application-default login, or set "
                "GOOGLE_APPLICATION_CREDENTIALS to the path of a key file."
            )
        case GoogleAuthError():
            return f": Google does not take these credentials ({type(error).__name__}); log in again."
        case exceptions.Unauthorized() | exceptions.Forbidden():
            return (
                ": these credentials may not do this; give them a role on the bucket, such as "
                "Storage Object User."
            )
        case exceptions.NotFound():
            return ": there is no such bucket or object; check the address."
        case DataCorruption():
            return ": what arrived does not have the bucket's checksum; try again."
        case exceptions.GoogleAPIError() | RequestException():
            return f": the bucket's service failed ({type(error).__name__}); try again."
    return ""
