"""An export in a bucket: a zip archive, or a folder."""

import logging
from pathlib import Path

from brain_tumor.config import BucketDataset
from brain_tumor.ingest.sources.archive import unpack
from brain_tumor.runtime.errors import InputError
from brain_tumor.stores.folders import download_file, download_folder
from brain_tumor.stores.paths import open_path


def fetch(config: BucketDataset, scratch: Path) -> Path:
    """Downloads an export. If an object has exactly this name, it is a zip archive, otherwise a folder.

    Args:
        config: The config with the address.
        scratch: An empty folder to download to.

    Returns:
        The folder that holds the export.

    Raises:
        InputError: Nothing is there, or it cannot be read or unpacked.
    """
    source = open_path(config.uri)
    archive, folder = scratch / "archive.zip", scratch / "export"
    logging.info("Downloading %s", source)
    if download_file(source, archive):
        export = unpack(archive, folder, str(source))
        archive.unlink()
        return export
    folder.mkdir()
    if not download_folder(source, folder):
        raise InputError(
            f"{source} holds nothing; dataset.uri must be a zip archive or the folder of an export."
        )
    return folder
