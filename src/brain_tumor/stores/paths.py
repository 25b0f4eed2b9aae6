"""One kind of path for this machine, Google Cloud Storage (gs://) and S3 (s3://).

A path of this machine is a pathlib.Path, an address in a bucket is one of cloudpathlib's. What a store alone
knows, such as its errors, is in the module named after its scheme, imported only where a bucket is used.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TypeAlias, Union

from brain_tumor.config.fields import is_bucket
from brain_tumor.runtime.errors import InputError, explain_refusal

if TYPE_CHECKING:
    from cloudpathlib import CloudPath

AnyPath: TypeAlias = Union[Path, "CloudPath"]
"""A path of this machine, or an address in a bucket."""


def open_path(address: str) -> AnyPath:
    """A path from a configuration's text. Nothing is asked of a store yet.

    Raises:
        InputError: It begins like a bucket's address and is none, or there are no credentials.
    """
    if not is_bucket(address):
        return Path(address)
    found = re.fullmatch(r"((?:gs|s3)://[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?)(?:/(.*?))?/*", address, re.ASCII)
    name = found[2] or "" if found else ""
    # Paths would be joined and compared without these parts, and the names of objects have them.
    if found is None or (name and {"", ".", ".."} & set(name.split("/"))):
        raise InputError(
            f"{address} is not a bucket address; give it as {address[:5]}BUCKET/PATH, with no empty part, "
            "and none that is . or .."
        )
    with explain_errors(address):
        path: CloudPath = store_of(address).make_client().CloudPath(f"{found[1]}/{name}".rstrip("/"))
        return path


def store_of(path: str | AnyPath) -> ModuleType:
    """What knows the store of a bucket's address: `brain_tumor.stores.gs` or `.s3`."""
    if str(path).startswith("gs://"):
        from brain_tumor.stores import gs

        return gs
    from brain_tumor.stores import s3

    return s3


@contextmanager
def explain_errors(path: str | AnyPath) -> Iterator[None]:
    """Makes one sentence that names `path` of what a store or a disk refuses.

    Raises:
        InputError: It refused something.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        in_bucket = is_bucket(str(path))
        reason = store_of(path).explain(error) if in_bucket else ""
        if reason:
            message = f"{path}{reason}"
        elif isinstance(error, OSError):
            about = f"{path}: {explain_refusal(error, 'a file')}"
            message = about if in_bucket else explain_refusal(error, path)
        else:
            raise
        # "from None": the causes show addresses of uploads, which let their reader write.
        raise InputError(message) from None
