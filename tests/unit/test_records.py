import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from exports import directory_config, write_export, write_image

from brain_tumor.config import RecordsConfig
from brain_tumor.data.dataset import ingest
from brain_tumor.data.records import build_tfrecords, parse_example, read_statistics, shard_paths
from brain_tumor.errors import InputError
from brain_tumor.storage import hash_files, read_manifest

CONFIG = RecordsConfig(images_per_shard=4, max_class_weight=10.0)


def make_dataset(tmp_path: Path, export: Path, **changes: Any) -> Path:
    ingest(directory_config(export, **changes), tmp_path / "dataset", tmp_path / "report.html")
    return tmp_path / "dataset"


def read(records: Path, split: str, num_classes: int = 3) -> dict[str, dict[str, Any]]:
    """A split's parsed records by file name."""
    dataset = tf.data.TFRecordDataset(shard_paths(records, split)).map(
        lambda record: parse_example(record, num_classes)
    )
    return {example["filename"].decode(): example for example in dataset.as_numpy_iterator()}


def test_boxes_stand_in_class_slots_normalised_to_the_original(tmp_path: Path) -> None:
    rows = [
        "volume_1_slice_1.jpg,40,30,label1,10,6,20,27",
        "volume_1_slice_2.jpg,40,30,label2,0,0,40,30",
        "volume_1_slice_2.jpg,40,30,label0,4,3,8,9",
    ]
    dataset = make_dataset(tmp_path, write_export(tmp_path / "export", train=rows))

    build_tfrecords(CONFIG, dataset, tmp_path / "records")

    train = read(tmp_path / "records", "train")
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
    build_tfrecords(CONFIG, make_dataset(tmp_path, export), tmp_path / "records")

    test = read(tmp_path / "records", "test")

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
    assert tf.io.decode_jpeg(unknown["encoded"]).shape == (20, 64, 1)
    assert {known[name].dtype for name in ("slice", "width", "height")} == {np.dtype(np.int32)}


def test_the_keys_are_those_of_the_object_detection_api(tmp_path: Path) -> None:
    rows = ["volume_3_slice_1.jpg,40,30,label2,0,0,40,30", "volume_3_slice_1.jpg,40,30,label1,10,6,20,27"]
    export = write_export(tmp_path / "export", valid=rows)
    build_tfrecords(CONFIG, make_dataset(tmp_path, export), tmp_path / "records")

    first = next(iter(tf.data.TFRecordDataset(shard_paths(tmp_path / "records", "valid")))).numpy()
    features = tf.train.Example.FromString(first).features.feature

    def texts(key: str) -> list[bytes]:
        return list(features[key].bytes_list.value)

    content = (export / "valid" / "volume_3_slice_1.jpg").read_bytes()
    assert texts("image/encoded") == [content]
    assert texts("image/format") == [b"jpeg"]
    assert texts("image/filename") == texts("image/source_id") == [b"volume_3_slice_1.jpg"]
    assert texts("image/key/sha256") == [hashlib.sha256(content).hexdigest().encode()]
    assert texts("image/object/class/text") == [b"label1", b"label2"]
    assert list(features["image/object/class/label"].int64_list.value) == [2, 3]  # class slot + 1
    assert list(features["image/object/bbox/xmin"].float_list.value) == [0.25, 0.0]
    assert list(features["image/height"].int64_list.value) == [30]
    assert set(features) == {
        *("image/encoded", "image/format", "image/filename", "image/source_id", "image/key/sha256"),
        *("image/height", "image/width", "image/patient_id", "image/slice"),
        *(f"image/object/bbox/{name}" for name in ("xmin", "ymin", "xmax", "ymax")),
        *("image/object/class/label", "image/object/class/text"),
    }


def test_shards_hold_each_image_once_and_the_manifest_counts(tmp_path: Path) -> None:
    export = write_export(tmp_path / "export", train=["volume_1_slice_1.jpg,40,30,label1,10,6,20,27"])

    figures = build_tfrecords(CONFIG, make_dataset(tmp_path, export), tmp_path / "records")

    paths = shard_paths(tmp_path / "records", "train")
    assert [Path(path).name for path in paths] == [
        "train-00000-of-00002.tfrecord",
        "train-00001-of-00002.tfrecord",
    ]
    assert [sum(1 for _ in tf.data.TFRecordDataset(path)) for path in paths] == [4, 2]
    assert set(read(tmp_path / "records", "train")) == {
        path.name for path in (export / "train").glob("*.jpg")
    }
    manifest = read_manifest(tmp_path / "records", "records")
    assert manifest["splits"] == {
        "train": {"images": 6, "boxes": 1, "patients": 2, "shards": 2},
        "valid": {"images": 3, "boxes": 0, "patients": 1, "shards": 1},
        "test": {"images": 3, "boxes": 0, "patients": 1, "shards": 1},
    }
    assert manifest["labels"] == ["label0", "label1", "label2"]
    assert (manifest["source"], manifest["notice"]) == ("directory", "")
    assert (figures["train_images"], figures["train_shards"], figures["class_weight_label1"]) == (6, 2, 5.0)
    with pytest.raises(InputError, match="has no split 'validation'"):
        shard_paths(tmp_path / "records", "validation")


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

    build_tfrecords(config, make_dataset(tmp_path, export, labels=labels), tmp_path / "records")

    statistics = read_statistics(tmp_path / "records")
    assert statistics["class_counts"]["train"] == {"always": 6, "common": 4, "rare": 1, "absent": 0}
    assert statistics["class_counts"]["valid"] == {"always": 0, "common": 0, "rare": 0, "absent": 1}
    assert statistics["class_weights"] == {"always": 0.25, "common": 0.5, "rare": 4.0, "absent": 4.0}
    assert statistics["mean_boxes"] == {
        "always": [0, 0, 1, 1],
        "common": [0, 0, 0.625, 1],  # the larger of the first image's two boxes, and three half images
        "rare": [0, 0, 0.5, 0.5],
        "absent": None,
    }


def test_the_mean_box_is_a_mean_of_normalised_boxes(tmp_path: Path) -> None:
    rows = ["volume_1_slice_1.jpg,40,30,label0,0,0,40,30", "wide.jpg,100,20,label0,0,0,20,10"]
    export = write_export(tmp_path / "export", train=rows)
    write_image(export / "train" / "wide.jpg", 100, 20)

    build_tfrecords(CONFIG, make_dataset(tmp_path, export), tmp_path / "records")

    box = read_statistics(tmp_path / "records")["mean_boxes"]["label0"]
    assert box == pytest.approx([0, 0, 0.6, 0.75])


def test_leakage_names_shared_patients_and_identical_images(tmp_path: Path) -> None:
    export = write_export(tmp_path / "export")
    write_image(export / "valid" / "volume_1_slice_9.jpg")  # patient 1 of train, another image
    image = (export / "train" / "volume_2_slice_1.jpg").read_bytes()
    (export / "test" / "volume_4_slice_9.jpg").write_bytes(image)

    figures = build_tfrecords(CONFIG, make_dataset(tmp_path, export), tmp_path / "records")

    assert read_statistics(tmp_path / "records")["leakage"] == {
        "train/valid": {"shared_patients": 1, "patients": ["1"], "identical_images": 0},
        "train/test": {"shared_patients": 0, "patients": [], "identical_images": 1},
        "valid/test": {"shared_patients": 0, "patients": [], "identical_images": 0},
    }
    assert figures["train_valid_shared_patients"] == 1
    assert figures["train_test_identical_images"] == 1


def test_the_same_dataset_gives_the_same_bytes(tmp_path: Path) -> None:
    rows = [f"volume_1_slice_1.jpg,40,30,label{index},10,6,20,27" for index in range(3)]
    dataset = make_dataset(tmp_path, write_export(tmp_path / "export", train=rows))

    for run in ("first", "second"):
        build_tfrecords(CONFIG, dataset, tmp_path / run)

    assert hash_files(tmp_path / "first") == hash_files(tmp_path / "second")
    # Between processes, protobuf keeps the order of a map's keys only if it is told to sort them.
    for record in tf.data.TFRecordDataset(shard_paths(tmp_path / "first", "train")).as_numpy_iterator():
        assert record == tf.train.Example.FromString(record).SerializeToString(deterministic=True)


def test_a_split_without_usable_images_is_refused(tmp_path: Path) -> None:
    export = write_export(tmp_path / "export")
    for path in (export / "train").glob("*.jpg"):
        path.write_bytes(b"")
    dataset = make_dataset(tmp_path, export)

    with pytest.raises(InputError, match="dataset has no usable image in train"):
        build_tfrecords(CONFIG, dataset, tmp_path / "out" / "records")

    assert not (tmp_path / "out").exists()


def test_an_image_changed_after_ingest_is_refused(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, write_export(tmp_path / "export"))
    write_image(dataset / "images" / "valid" / "volume_3_slice_1.jpg", 50, 50)

    with pytest.raises(InputError, match=r"valid/volume_3_slice_1\.jpg has changed"):
        build_tfrecords(CONFIG, dataset, tmp_path / "out" / "records")

    assert list((tmp_path / "out").iterdir()) == []


def test_records_that_do_not_agree_with_the_dataset_are_an_error(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, write_export(tmp_path / "export"))
    manifest = json.loads((dataset / "manifest.json").read_text())
    manifest["counts"]["valid"]["images"] += 1
    (dataset / "manifest.json").write_text(json.dumps(manifest))

    with pytest.raises(RuntimeError, match=r"'images': 3, .*'images': 4, "):
        build_tfrecords(CONFIG, dataset, tmp_path / "out" / "records")

    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (RecordsConfig(images_per_shard=0, max_class_weight=10.0), "images_per_shard is 0"),
        (RecordsConfig(images_per_shard=4, max_class_weight=0.5), "max_class_weight is 0.5"),
        (RecordsConfig(images_per_shard=4, max_class_weight=float("nan")), "max_class_weight is nan"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(tmp_path: Path, config: RecordsConfig, words: str) -> None:
    dataset = make_dataset(tmp_path, write_export(tmp_path / "export"))

    with pytest.raises(InputError, match=words):
        build_tfrecords(config, dataset, tmp_path / "records")


def test_a_dataset_is_not_taken_for_records(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, write_export(tmp_path / "export"))

    with pytest.raises(InputError, match="holds a dataset artifact where a records artifact is needed"):
        read_statistics(dataset)
