"""Fetches an export from any source to the local disk."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from brain_tumor.config import AnyDataset, BucketDataset, DirectoryDataset, RoboflowDataset, SyntheticDataset
from brain_tumor.ingest.sources import bucket, roboflow, synthetic
from brain_tumor.runtime.errors import InputError


@contextmanager
def errors_name_source(config: AnyDataset, folder: Path) -> Iterator[None]:
    """Replaces a temporary folder's path in error messages by the source's name.

    Args:
        config: The source's config.
        folder: The temporary folder.

    Raises:
        InputError: The error raised in the context, of the same type, with the source's name.
    """
    try:
        yield
    except InputError as error:
        match config:
            case DirectoryDataset():
                raise
            case BucketDataset():
                name = config.uri
            case _:
                name = f"the {config.source} export"
        raise type(error)(str(error).replace(str(folder), name)) from error


def fetch(config: AnyDataset, scratch: Path) -> Path:
    """Fetches a source's export to the local disk.

    Args:
        config: The source's config.
        scratch: An empty working folder, removed by the caller afterwards.

    Returns:
        The folder that holds the export: in `scratch`, or the user's folder, which must not be written to.

    Raises:
        InputError: The source cannot be read.
    """
    match config:
        case SyntheticDataset():
            synthetic.write_export(scratch, config)
            return scratch
        case DirectoryDataset():
            return Path(config.path)
        case RoboflowDataset():
            return roboflow.fetch(config, scratch)
        case BucketDataset():
            return bucket.fetch(config, scratch)
