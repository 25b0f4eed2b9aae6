"""Bringing an export to this disk, whatever its source."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from brain_tumor.config import AnyDataset, BucketDataset, DirectoryDataset, RoboflowDataset, SyntheticDataset
from brain_tumor.ingest.sources import bucket, roboflow, synthetic
from brain_tumor.runtime.errors import InputError


@contextmanager
def naming(config: AnyDataset, folder: Path) -> Iterator[None]:
    """Lets messages name the source in place of a folder that it was brought to, which is gone by then.

    Args:
        config: The source's config.
        folder: The folder.

    Raises:
        InputError: What was raised inside of it, so named.
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
    """Brings a source's export to this disk.

    Args:
        config: The source's config.
        scratch: An empty folder to work in, removed by the caller afterwards.

    Returns:
        The folder that holds the export: in `scratch`, or the user's own, which is not to be written to.

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
