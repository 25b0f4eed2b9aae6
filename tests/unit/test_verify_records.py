from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from brain_tumor.artifacts.dataset import Dataset
from brain_tumor.artifacts.records import Records
from brain_tumor.records.statistics import Tally
from brain_tumor.records.verify import read_back
from brain_tumor.runtime.errors import DamagedError
from tests.unit.small_records import FIRST_SHARD, plain_records

pytestmark = pytest.mark.slow


def rewrite(shard: Path, change: Callable[[list[Any]], None]) -> None:
    """Changes a shard's examples, and writes them with correct checksums."""
    examples = [tf.train.Example.FromString(record) for record in plain_records(shard)]
    change(examples)
    with tf.io.TFRecordWriter(str(shard)) as writer:
        for example in examples:
            writer.write(example.SerializeToString(deterministic=True))


def set_label(examples: list[Any]) -> None:
    examples[1].features.feature["image/object/class/label"].int64_list.value[0] = 2


def shift_box(examples: list[Any]) -> None:
    examples[1].features.feature["image/object/bbox/xmin"].float_list.value[1] += 1e-6


def move_box_to_next(examples: list[Any]) -> None:
    for key, feature in examples[1].features.feature.items():
        if "/object/" in key:
            kind = feature.WhichOneof("kind")
            values = getattr(feature, kind).value
            getattr(examples[2].features.feature[key], kind).value.append(values.pop())


def remove_image(examples: list[Any]) -> None:
    del examples[0].features.feature["image/encoded"]


def test_written_records_are_read_back_and_counted(small_dataset: Dataset, small_records: Records) -> None:
    shards = list(read_back(small_dataset, 4, small_records.path))
    assert [(shard.split, len(shard), len(shard.boxes["slot"])) for shard in shards] == [
        ("train", 4, 3),
        ("train", 2, 0),
        ("valid", 3, 2),
        ("test", 3, 0),
    ]
    tally = Tally(small_dataset.manifest.labels)
    for shard in shards:
        tally.add(shard)
    tally.check(small_records.manifest.splits)
    with pytest.raises(DamagedError, match=r"train have \(12, 6, 2\) images, .* \(6, 3, 2\)"):
        for shard in shards:
            tally.add(shard)
        tally.check(small_records.manifest.splits)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda examples: examples.pop(), "differs from the dataset in"),
        (lambda examples: examples.append(examples[0]), "differs from the dataset in"),
        (lambda examples: examples.reverse(), "differs from the dataset in image/"),
        (set_label, "differs from the dataset in image/object/class/label "),
        (shift_box, "differs from the dataset in image/object/bbox/xmin "),
        (move_box_to_next, "differs from the dataset in image/object/bbox/xmin counts "),
        (remove_image, "cannot be read back: .*image/encoded"),
    ],
)
def test_reading_back_finds_differences(
    small_dataset: Dataset, own_shards: Path, change: Callable[[list[Any]], None], words: str
) -> None:
    rewrite(own_shards / FIRST_SHARD, change)

    with pytest.raises(RuntimeError, match=f"{FIRST_SHARD} .*{words}"):
        list(read_back(small_dataset, 4, own_shards))


@pytest.mark.parametrize("position", [0, 9, 500, -1])
def test_reading_back_finds_a_damaged_shard(small_dataset: Dataset, own_shards: Path, position: int) -> None:
    content = bytearray((own_shards / FIRST_SHARD).read_bytes())
    content[position] ^= 1
    (own_shards / FIRST_SHARD).write_bytes(content)

    with pytest.raises(RuntimeError, match=f"{FIRST_SHARD} cannot be read back: "):
        list(read_back(small_dataset, 4, own_shards))


def test_reading_back_finds_a_missing_and_a_truncated_shard(small_dataset: Dataset, own_shards: Path) -> None:
    last = own_shards / "train-00001-of-00002.tfrecord"
    last.write_bytes(last.read_bytes()[:-10])
    with pytest.raises(RuntimeError, match=f"{last.name} cannot be read back: "):
        list(read_back(small_dataset, 4, own_shards))
    last.unlink()
    with pytest.raises(RuntimeError, match=f"{last.name} cannot be read back: "):
        list(read_back(small_dataset, 4, own_shards))
