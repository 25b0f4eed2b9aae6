"""A small dataset and its records, for the tests of records."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf

from brain_tumor.artifacts.dataset import Dataset
from brain_tumor.artifacts.records import Records
from brain_tumor.config import RecordsConfig
from brain_tumor.ingest.ingest import ingest
from brain_tumor.records.read import parse_example
from tests.unit.exports import directory_config

CONFIG = RecordsConfig(images_per_shard=4, max_class_weight=10.0)
FIRST_SHARD = "train-00000-of-00002.tfrecord"


def make_dataset(tmp_path: Path, export: Path, **changes: Any) -> Dataset:
    return ingest(directory_config(export, **changes), tmp_path / "dataset").dataset


def read(records: Records, split: Any, num_classes: int = 3) -> dict[str, dict[str, Any]]:
    """A split's parsed records by file name."""
    dataset = tf.data.TFRecordDataset(records.shard_paths(split)).map(
        lambda record: parse_example(record, num_classes)
    )
    return {example["filename"].decode(): example for example in dataset.as_numpy_iterator()}


def plain_records(path: str | Path) -> Iterator[bytes]:
    """Parses a TFRecord file: length, checksum of the length, content, checksum of the content."""
    content = Path(path).read_bytes()
    while content:
        (length,) = struct.unpack_from("<Q", content)
        yield content[12 : 12 + length]
        content = content[12 + length + 4 :]
