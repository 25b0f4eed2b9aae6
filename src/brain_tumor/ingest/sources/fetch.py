"""Bringing an export to this disk, whatever its source."""

from pathlib import Path

from brain_tumor.config import AnyDataset, BucketDataset, DirectoryDataset, RoboflowDataset, SyntheticDataset
from brain_tumor.ingest.sources import bucket, roboflow, synthetic


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
