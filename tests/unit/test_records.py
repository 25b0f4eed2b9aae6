import hashlib
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from exports import directory_config, write_export, write_image
from PIL import Image

from brain_tumor.artifacts.dataset import Dataset, open_dataset
from brain_tumor.artifacts.records import Records, open_records
from brain_tumor.config import RecordsConfig
from brain_tumor.ingest.ingest import ingest
from brain_tumor.records.build import build_tfrecords, write_shards
from brain_tumor.records.read import parse_example
from brain_tumor.records.statistics import Tally
from brain_tumor.records.verify import read_back
from brain_tumor.runtime.errors import InputError
from brain_tumor.stores.files import hash_files

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
    """A TFRecord file's records, by its format: length, its checksum, content, its checksum."""
    content = Path(path).read_bytes()
    while content:
        (length,) = struct.unpack_from("<Q", content)
        yield content[12 : 12 + length]
        content = content[12 + length + 4 :]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A dataset artifact of 6, 3 and 3 images, with boxes and without. Not to be changed."""
    train = [
        "volume_1_slice_1.jpg,40,30,label1,10,6,20,27",
        "volume_1_slice_2.jpg,40,30,label2,0,0,40,30",
        "volume_1_slice_2.jpg,40,30,label0,4,3,8,9",
    ]
    valid = ["volume_3_slice_1.jpg,40,30,label2,0,0,40,30", "volume_3_slice_1.jpg,40,30,label1,10,6,20,27"]
    folder = tmp_path_factory.mktemp("records")
    return make_dataset(folder, write_export(folder / "export", train=train, valid=valid))


@pytest.fixture(scope="module")
def records(dataset: Dataset) -> Records:
    """Its records artifact. Not to be changed."""
    return build_tfrecords(CONFIG, dataset, dataset.path.parent / "records")


@pytest.fixture
def own_dataset(dataset: Dataset, tmp_path: Path) -> Dataset:
    """A copy of `dataset`."""
    return open_dataset(shutil.copytree(dataset.path, tmp_path / "own"))


@pytest.fixture
def own_shards(records: Records, tmp_path: Path) -> Path:
    """A copy of the folder of `records`."""
    return Path(shutil.copytree(records.path, tmp_path / "shards"))


def test_boxes_stand_in_class_slots_normalised_to_the_original(records: Records) -> None:
    train = read(records, "train")

    only_second = train["volume_1_slice_1.jpg"]
    np.testing.assert_array_equal(only_second["labels"], [0, 1, 0])
    np.testing.assert_allclose(only_second["boxes"], [[0.0] * 4, [0.25, 0.2, 0.5, 0.9], [0.0] * 4], rtol=1e-6)
    two = train["volume_1_slice_2.jpg"]
    np.testing.assert_array_equal(two["labels"], [1, 0, 1])
    np.testing.assert_allclose(
        two["boxes"], [[0.1, 0.1, 0.2, 0.3], [0.0] * 4, [0.0, 0.0, 1.0, 1.0]], rtol=1e-6
    )
    negative = train["volume_1_slice_3.jpg"]
    np.testing.assert_array_equal(negative["labels"], [0, 0, 0])
    np.testing.assert_array_equal(negative["boxes"], np.zeros((3, 4)))
    assert two["labels"].dtype == two["boxes"].dtype == np.float32


def test_a_record_carries_the_original_bytes_and_who_it_is(tmp_path: Path) -> None:
    export = write_export(tmp_path / "export")
    write_image(export / "test" / "scan.jpg", 64, 20)
    records = build_tfrecords(CONFIG, make_dataset(tmp_path, export), tmp_path / "records")

    test = read(records, "test")

    assert {name: example["encoded"] for name, example in test.items()} == {
        path.name: path.read_bytes() for path in (export / "test").glob("*.jpg")
    }
    known, unknown = test["volume_4_slice_2.jpg"], test["scan.jpg"]
    assert (known["patient_id"], known["slice"], known["width"], known["height"]) == (b"4", 2, 40, 30)
    assert (unknown["patient_id"], unknown["slice"], unknown["width"], unknown["height"]) == (
        b"scan",
        -1,
        64,
        20,
    )
    assert (known["source_id"], known["filename"]) == (b"test/volume_4_slice_2.jpg", b"volume_4_slice_2.jpg")
    assert tf.io.decode_jpeg(unknown["encoded"]).shape == (20, 64, 1)
    assert {known[name].dtype for name in ("slice", "width", "height")} == {np.dtype(np.int32)}


def test_the_keys_and_types_are_those_of_the_object_detection_api(dataset: Dataset, records: Records) -> None:
    first, second, _ = plain_records(*records.shard_paths("valid"))

    content = (dataset.image_folder / "valid" / "volume_3_slice_1.jpg").read_bytes()
    name = b"volume_3_slice_1.jpg"
    expected: dict[str, list[Any]] = {
        "image/encoded": [content],
        "image/format": [b"jpeg"],
        "image/filename": [name],
        "image/source_id": [b"valid/" + name],
        "image/key/sha256": [hashlib.sha256(content).hexdigest().encode()],
        "image/height": [30],
        "image/width": [40],
        "image/patient_id": [b"3"],
        "image/slice": [1],
        "image/object/bbox/xmin": [0.25, 0.0],
        "image/object/bbox/ymin": [6 / 30, 0.0],
        "image/object/bbox/xmax": [0.5, 1.0],
        "image/object/bbox/ymax": [27 / 30, 1.0],
        "image/object/class/label": [2, 3],  # class slot + 1
        "image/object/class/text": [b"label1", b"label2"],
    }
    assert first == serialized_by_tensorflow(expected)
    other = (dataset.image_folder / "valid" / "volume_3_slice_2.jpg").read_bytes()
    assert second == serialized_by_tensorflow(
        expected
        | {key: [] for key in expected if "/object/" in key}
        | {
            "image/encoded": [other],
            "image/filename": [b"volume_3_slice_2.jpg"],
            "image/source_id": [b"valid/volume_3_slice_2.jpg"],
            "image/key/sha256": [hashlib.sha256(other).hexdigest().encode()],
            "image/slice": [2],
        }
    )


def serialized_by_tensorflow(features: dict[str, list[Any]]) -> bytes:
    def feature(key: str, values: list[Any]) -> Any:
        if "/bbox/" in key:
            return tf.train.Feature(float_list=tf.train.FloatList(value=values))
        if key.endswith(("height", "width", "slice", "label")):
            return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))

    features = {key: feature(key, values) for key, values in features.items()}
    example = tf.train.Example(features=tf.train.Features(feature=features))
    serialized: bytes = example.SerializeToString(deterministic=True)
    return serialized


def test_the_files_are_those_that_tensorflow_would_write(records: Records, tmp_path: Path) -> None:
    with tf.io.TFRecordWriter(str(tmp_path / "other.tfrecord")) as writer:
        for record in plain_records(records.path / FIRST_SHARD):
            writer.write(record)

    assert (records.path / FIRST_SHARD).read_bytes() == (tmp_path / "other.tfrecord").read_bytes()


def test_names_in_any_script_and_a_single_class(tmp_path: Path) -> None:
    label, name = 'Tumör, "groß"', "Größe 大脑 volume_1_slice_7.jpg"
    export = write_export(tmp_path / "export")
    write_image(export / "train" / name)
    (export / "train" / "_annotations.csv").write_text(
        f'filename,width,height,class,xmin,ymin,xmax,ymax\n{name},40,30,"Tumör, ""groß""",0,0,20,30\n',
        encoding="utf-8",
    )

    records = build_tfrecords(CONFIG, make_dataset(tmp_path, export, labels=[label]), tmp_path / "records")

    figures, example = records.metrics(), read(records, "train", num_classes=1)[name]
    assert example["encoded"] == (export / "train" / name).read_bytes()
    assert (example["source_id"].decode(), example["patient_id"]) == (f"train/{name}", b"1")
    assert (example["labels"].tolist(), example["boxes"].tolist()) == ([1.0], [[0.0, 0.0, 0.5, 1.0]])
    assert (figures[f"class_weight_{label}"], figures["valid_boxes"]) == (6.0, 0)


def test_the_manifest_says_whether_all_images_are_grey(records: Records, tmp_path: Path) -> None:
    export = write_export(tmp_path / "export")
    Image.new("RGB", (40, 30), (200, 30, 30)).save(export / "test" / "volume_4_slice_1.jpg", "JPEG")

    color = build_tfrecords(CONFIG, make_dataset(tmp_path, export), tmp_path / "color")

    assert (records.manifest.channels, color.manifest.channels) == (1, 3)


def test_shards_hold_each_image_once_and_the_manifest_counts(dataset: Dataset, tmp_path: Path) -> None:
    records = build_tfrecords(CONFIG, dataset, tmp_path / "records")

    paths = records.shard_paths("train")
    assert [Path(path).name for path in paths] == [FIRST_SHARD, "train-00001-of-00002.tfrecord"]
    assert [len(list(plain_records(path))) for path in paths] == [4, 2]
    images = (dataset.image_folder / "train").glob("*.jpg")
    assert set(read(records, "train")) == {path.name for path in images}
    manifest = open_records(tmp_path / "records").manifest
    assert manifest == records.manifest
    assert {split: counts.model_dump() for split, counts in manifest.splits.items()} == {
        "train": {"images": 6, "boxes": 3, "patients": 2, "shards": 2},
        "valid": {"images": 3, "boxes": 2, "patients": 1, "shards": 1},
        "test": {"images": 3, "boxes": 0, "patients": 1, "shards": 1},
    }
    assert manifest.labels == ["label0", "label1", "label2"]
    assert (manifest.source, manifest.notice) == ("directory", "")
    figures = records.metrics()
    assert (figures["train_images"], figures["train_shards"], figures["class_weight_label1"]) == (6, 2, 5.0)
    with pytest.raises(InputError, match="has no split 'validation'"):
        records.shard_paths("validation")


def test_statistics_of_rare_common_absent_and_constant_labels(tmp_path: Path) -> None:
    names = [f"volume_{patient}_slice_{index}.jpg" for patient in (1, 2) for index in (1, 2, 3)]
    rows = [f"{name},40,30,always,0,0,40,30" for name in names]
    rows += [f"{name},40,30,common,0,0,20,30" for name in names[:4]]
    rows += [f"{names[0]},40,30,rare,0,0,20,15", f"{names[0]},40,30,common,0,0,40,30"]
    export = write_export(
        tmp_path / "export", train=rows, valid=["volume_3_slice_1.jpg,40,30,absent,1,1,2,2"]
    )
    labels = ["always", "common", "rare", "absent"]
    config = RecordsConfig(images_per_shard=100, max_class_weight=4.0)

    records = build_tfrecords(config, make_dataset(tmp_path, export, labels=labels), tmp_path / "records")

    statistics = records.statistics
    assert statistics.class_counts["train"] == {"always": 6, "common": 4, "rare": 1, "absent": 0}
    assert statistics.class_counts["valid"] == {"always": 0, "common": 0, "rare": 0, "absent": 1}
    assert statistics.class_weights == {"always": 0.25, "common": 0.5, "rare": 4.0, "absent": 4.0}
    assert statistics.mean_boxes == {
        "always": [0, 0, 1, 1],
        "common": [0, 0, 0.625, 1],  # the larger of the first image's two boxes, and three half images
        "rare": [0, 0, 0.5, 0.5],
        "absent": None,
    }


def test_the_mean_box_is_a_mean_of_normalised_boxes(tmp_path: Path) -> None:
    rows = ["volume_1_slice_1.jpg,40,30,label0,0,0,40,30", "wide.jpg,100,20,label0,0,0,20,10"]
    export = write_export(tmp_path / "export", train=rows)
    write_image(export / "train" / "wide.jpg", 100, 20)

    records = build_tfrecords(CONFIG, make_dataset(tmp_path, export), tmp_path / "records")

    box = records.statistics.mean_boxes["label0"]
    assert box == pytest.approx([0, 0, 0.6, 0.75])


def test_leakage_is_what_ingest_measured(tmp_path: Path) -> None:
    export = write_export(tmp_path / "export")
    write_image(export / "valid" / "volume_1_slice_9.jpg")  # patient 1 of train, another image
    image = (export / "train" / "volume_2_slice_1.jpg").read_bytes()
    (export / "test" / "volume_4_slice_9.jpg").write_bytes(image)
    dataset = make_dataset(tmp_path, export, near_duplicate_distance=0)

    records = build_tfrecords(CONFIG, dataset, tmp_path / "records")

    assert records.statistics.leakage == dataset.manifest.leakage
    figures = records.metrics()
    assert figures["train_valid_shared_patients"] == 1
    assert figures["train_test_identical_images"] == figures["train_test_near_duplicates"] == 1
    assert figures["valid_test_near_duplicates"] == 0


def test_the_same_dataset_gives_the_same_bytes_from_any_number_of_workers(
    dataset: Dataset, tmp_path: Path
) -> None:
    config = RecordsConfig(images_per_shard=2, max_class_weight=10.0)

    for run, workers in {"default": None, "one": 1, "two": 2, "three": 3}.items():
        build_tfrecords(config, dataset, tmp_path / run, workers)

    hashes = hash_files(tmp_path / "default")
    assert len(hashes) == 3 + 2 + 2 + len(["manifest", "statistics", "images", "annotations"])
    assert all(hash_files(tmp_path / run) == hashes for run in ("one", "two", "three"))


def test_a_split_without_usable_images_is_refused(tmp_path: Path) -> None:
    export = write_export(tmp_path / "export")
    for path in (export / "train").glob("*.jpg"):
        path.write_bytes(b"")
    dataset = make_dataset(tmp_path, export)

    with pytest.raises(InputError, match="dataset has no usable image in train"):
        build_tfrecords(CONFIG, dataset, tmp_path / "out" / "records")

    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_an_image_changed_after_ingest_is_refused(own_dataset: Dataset, tmp_path: Path, workers: int) -> None:
    write_image(own_dataset.image_folder / "valid" / "volume_3_slice_1.jpg", 50, 50)

    with pytest.raises(InputError, match=r"valid/volume_3_slice_1\.jpg has changed .*run ingest again"):
        build_tfrecords(CONFIG, own_dataset, tmp_path / "out" / "records", workers)

    assert list((tmp_path / "out").iterdir()) == []


def test_an_image_deleted_after_ingest_is_refused(own_dataset: Dataset, tmp_path: Path) -> None:
    (own_dataset.image_folder / "train" / "volume_1_slice_3.jpg").unlink()

    with pytest.raises(InputError, match=r"train/volume_1_slice_3\.jpg is gone .*run ingest again"):
        build_tfrecords(CONFIG, own_dataset, tmp_path / "out" / "records")

    assert list((tmp_path / "out").iterdir()) == []


def rewrite(shard: Path, change: Callable[[list[Any]], None]) -> None:
    """Changes a shard's examples, and writes them with the right checksums."""
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


def test_what_was_written_is_read_back_and_counted(dataset: Dataset, records: Records) -> None:
    shards = list(read_back(dataset, 4, records.path))
    assert [(shard.split, len(shard), len(shard.boxes["slot"])) for shard in shards] == [
        ("train", 4, 3),
        ("train", 2, 0),
        ("valid", 3, 2),
        ("test", 3, 0),
    ]
    tally = Tally(dataset.manifest.labels)
    for shard in shards:
        tally.add(shard)
    tally.check(records.manifest.splits)
    with pytest.raises(RuntimeError, match=r"records of train hold \(12, 6, 2\) .* counts \(6, 3, 2\)"):
        for shard in shards:
            tally.add(shard)
        tally.check(records.manifest.splits)


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
def test_reading_back_finds_what_differs(
    dataset: Dataset, own_shards: Path, change: Callable[[list[Any]], None], words: str
) -> None:
    rewrite(own_shards / FIRST_SHARD, change)

    with pytest.raises(RuntimeError, match=f"{FIRST_SHARD} .*{words}"):
        list(read_back(dataset, 4, own_shards))


@pytest.mark.parametrize("position", [0, 9, 500, -1])
def test_reading_back_finds_a_damaged_shard(dataset: Dataset, own_shards: Path, position: int) -> None:
    content = bytearray((own_shards / FIRST_SHARD).read_bytes())
    content[position] ^= 1
    (own_shards / FIRST_SHARD).write_bytes(content)

    with pytest.raises(RuntimeError, match=f"{FIRST_SHARD} cannot be read back: "):
        list(read_back(dataset, 4, own_shards))


def test_reading_back_finds_a_missing_and_a_cut_shard(dataset: Dataset, own_shards: Path) -> None:
    last = own_shards / "train-00001-of-00002.tfrecord"
    last.write_bytes(last.read_bytes()[:-10])
    with pytest.raises(RuntimeError, match=f"{last.name} cannot be read back: "):
        list(read_back(dataset, 4, own_shards))
    last.unlink()
    with pytest.raises(RuntimeError, match=f"{last.name} cannot be read back: "):
        list(read_back(dataset, 4, own_shards))


def test_a_shard_that_cannot_be_written_is_named(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "full" / FIRST_SHARD).mkdir(parents=True)  # where a file should go

    with pytest.raises(RuntimeError, match=f"{FIRST_SHARD} could not be written: IsADirectoryError"):
        write_shards(dataset, 4, tmp_path / "full", workers=2)


def stall(dataset: Dataset) -> Path:
    """Puts a named pipe in place of an image: whoever reads it waits until someone has written to it."""
    path = dataset.image_folder / "train" / "volume_2_slice_3.jpg"
    path.unlink()
    os.mkfifo(path)
    return path


def readers(path: Path) -> list[int]:
    """Which processes have a file open."""
    found = []
    for links in Path("/proc").glob("[0-9]*/fd"):
        try:
            if any(os.readlink(link) == str(path) for link in links.iterdir()):
                found.append(int(links.parent.name))
        except OSError:  # it has ended, or is another user's
            continue
    return found


def test_the_death_of_a_worker_is_an_error_that_names_its_shard(own_dataset: Dataset, tmp_path: Path) -> None:
    pipe = stall(own_dataset)

    def kill() -> None:
        with open(pipe, "wb"):  # waits for the worker
            for process in set(readers(pipe)) - {os.getpid()}:
                os.kill(process, signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()
    with pytest.raises(RuntimeError, match=r"A process died .* while it wrote one of .*train-00001-of-00002"):
        build_tfrecords(CONFIG, own_dataset, tmp_path / "out" / "records", workers=2)

    assert list((tmp_path / "out").iterdir()) == []


INTERRUPTED = """
import sys
from brain_tumor.config import RecordsConfig
from brain_tumor.artifacts.dataset import open_dataset
from brain_tumor.records.build import build_tfrecords
build_tfrecords(RecordsConfig(images_per_shard=4), open_dataset(sys.argv[1]), sys.argv[2], workers=2)
"""


def test_an_interrupt_ends_the_workers_and_leaves_nothing(own_dataset: Dataset, tmp_path: Path) -> None:
    pipe = stall(own_dataset)
    arguments = [sys.executable, "-c", INTERRUPTED, own_dataset.path, tmp_path / "out" / "records"]
    step = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)

    with open(pipe, "wb"):  # waits for a worker of it
        assert len(readers(pipe)) > 1
        step.send_signal(signal.SIGINT)
        _, error = step.communicate(timeout=60)
        while set(readers(pipe)) - {os.getpid()}:
            time.sleep(0.05)

    assert step.returncode != 0
    assert "KeyboardInterrupt" in error
    assert list((tmp_path / "out").iterdir()) == []


def test_records_that_do_not_agree_with_the_dataset_are_an_error(
    own_dataset: Dataset, tmp_path: Path
) -> None:
    manifest = json.loads((own_dataset.path / "manifest.json").read_text())
    manifest["counts"]["valid"]["images"] += 1
    (own_dataset.path / "manifest.json").write_text(json.dumps(manifest))

    with pytest.raises(RuntimeError, match=r"is not sorted: test/volume_4_slice_1\.jpg is in valid"):
        build_tfrecords(CONFIG, open_dataset(own_dataset.path), tmp_path / "out" / "records")

    assert list((tmp_path / "out").iterdir()) == []


def test_a_dataset_is_not_taken_for_records(dataset: Dataset) -> None:
    with pytest.raises(InputError, match="holds a dataset artifact where a records artifact is needed"):
        open_records(dataset.path)


def test_the_records_have_the_boxes_as_the_export_has_them(dataset: Dataset, records: Records) -> None:
    for split, images in {"train": 6, "valid": 3, "test": 3}.items():
        own = records.images(split)
        names = [example["source_id"].decode() for example in read(records, split).values()]
        assert own["source_id"].tolist() == names
        assert len(own) == images
    boxes, own = records.annotations("train"), dataset.annotations
    assert boxes.to_dict("list") == own[own["split"] == "train"].to_dict("list")
    assert boxes.iloc[0][["xmin", "ymin", "xmax", "ymax"]].tolist() == [10.0, 6.0, 20.0, 27.0]
