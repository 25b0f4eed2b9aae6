"""Where images come from: each source says where on this disk its export is."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from brain_tumor.config import (
    BucketDataset,
    DatasetConfig,
    DirectoryDataset,
    RoboflowDataset,
    SyntheticDataset,
    from_json,
)
from brain_tumor.data.sources import bucket, roboflow, synthetic
from brain_tumor.errors import InputError


def _draw(config: DatasetConfig, scratch: Path) -> Path:
    assert isinstance(config, SyntheticDataset)
    synthetic.write_export(scratch, config)
    return scratch


def _directory(config: DatasetConfig, scratch: Path) -> Path:
    assert isinstance(config, DirectoryDataset)
    return Path(config.path)


@dataclass(frozen=True)
class Source:
    """A source of images.

    Attributes:
        config: The dataclass of its config.
        fetch: Gets the config and an empty folder to work in, and says where the export is.
    """

    config: type[DatasetConfig]
    fetch: Callable[[DatasetConfig, Path], Path]


SOURCES = {
    "synthetic": Source(SyntheticDataset, _draw),
    "directory": Source(DirectoryDataset, _directory),
    "roboflow": Source(RoboflowDataset, roboflow.fetch),
    "bucket": Source(BucketDataset, bucket.fetch),
}


def parse_dataset_config(text: str) -> DatasetConfig:
    """Parses the config of whichever source it names (JSON).

    Raises:
        InputError: The text is no JSON object, its source is unknown, or it is no config of that source.
    """
    try:
        source = json.loads(text).get("source")
    except (json.JSONDecodeError, AttributeError) as error:
        raise InputError(f"The config of the data set is no JSON object: {text!r}.") from error
    return from_json(find_source(source).config, text, "dataset")


def find_source(name: str | None) -> Source:
    """The source of a name.

    Raises:
        InputError: There is none of that name.
    """
    if name not in SOURCES:
        raise InputError(f"dataset.source is {name!r}; give one of {', '.join(SOURCES)}.")
    return SOURCES[name]


def fetch(config: DatasetConfig, scratch: Path) -> Path:
    """Brings a source's export to this disk.

    Args:
        config: The source's config.
        scratch: An empty folder to work in, removed by the caller afterwards.

    Returns:
        The folder that holds the export: in `scratch`, or the user's own, which is not to be written to.

    Raises:
        InputError: The source cannot be read.
    """
    return find_source(config.source).fetch(config, scratch)
