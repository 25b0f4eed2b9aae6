"""Paths on this machine, in Google Cloud Storage (gs://) and in S3 (s3://).

A local path is a pathlib.Path, an address in a bucket a cloudpathlib path. Everything specific to a store,
such as its errors, is in the module named after its scheme, imported only if a bucket is used.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TypeAlias, Union

from brain_tumor.config.fields import is_bucket
from brain_tumor.runtime.errors import InputError, explain_os_error

if TYPE_CHECKING:
    from cloudpathlib import CloudPath

AnyPath: TypeAlias = Union[Path, "CloudPath"]
"""A local path, or an address in a bucket."""


def open_path(address: str) -> AnyPath:
    """Makes a path from a string in a configuration. No store is contacted yet.

    Raises:
        InputError: It is an invalid bucket address, or there are no credentials.
    """
    if not is_bucket(address):
        return Path(address)
    found = re.fullmatch(r"((?:gs|s3)://[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?)(?:/(.*?))?/*", address, re.ASCII)
    name = found[2] or "" if found else ""
    # Path classes normalize these parts, but object names keep them.
    if found is None or (name and {"", ".", ".."} & set(name.split("/"))):
        raise InputError(
            f"{address} is not a bucket address; give it as {address[:5]}BUCKET/PATH, without an empty part, "
            ". or .."
        )
    with explain_errors(address):
        path: CloudPath = store_of(address).make_client().CloudPath(f"{found[1]}/{name}".rstrip("/"))
        return path


def store_of(path: str | AnyPath) -> ModuleType:
    """The module for an address's store: `brain_tumor.stores.gs` or `.s3`."""
    if str(path).startswith("gs://"):
        from brain_tumor.stores import gs

        return gs
    from brain_tumor.stores import s3

    return s3


@contextmanager
def explain_errors(path: str | AnyPath) -> Iterator[None]:
    """Turns the errors of a store or a disk into one sentence that names `path`.

    Raises:
        UnavailableError: The store is not reachable or fails.
        InputError: The store or the disk raised another error.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        in_bucket = is_bucket(str(path))
        explained = store_of(path).explain(error, str(path)) if in_bucket else None
        if not explained and isinstance(error, OSError):
            about = f"{path}: {explain_os_error(error, 'a file')}"
            explained = InputError(about if in_bucket else explain_os_error(error, path))
        if not explained:
            raise
        # "from None": the cause may contain upload URLs, which grant write access.
        raise explained from None
