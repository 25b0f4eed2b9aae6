"""An export in a bucket: a zip archive, or a folder."""

import logging
from pathlib import Path

from brain_tumor.config import BucketDataset, DatasetConfig
from brain_tumor.data.sources.archive import unpack
from brain_tumor.errors import InputError
from brain_tumor.storage import download_file, download_folder, in_bucket


def fetch(config: DatasetConfig, scratch: Path) -> Path:
    """Downloads an export. The object of that very name is a zip archive; else it is a folder.

    Args:
        config: A `BucketDataset`.
        scratch: An empty folder to download to.

    Returns:
        The folder that holds the export.

    Raises:
        InputError: The address is none of a bucket, nothing is there, or it cannot be read or unpacked.
    """
    assert isinstance(config, BucketDataset)
    uri = config.uri.rstrip("/")
    if not in_bucket(uri):
        raise InputError(f"dataset.uri is {config.uri!r}; give a gs:// address.")
    archive, folder = scratch / "archive.zip", scratch / "export"
    logging.info("Downloading %s", uri)
    if download_file(uri, archive):
        export = unpack(archive, folder, uri)
        archive.unlink()
        return export
    folder.mkdir()
    if not download_folder(uri, folder):
        raise InputError(
            f"{uri} holds nothing; dataset.uri must be a zip archive or the folder of an export."
        )
    return folder
