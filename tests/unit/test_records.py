import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from brain_tumor.artifacts.dataset import Dataset, open_dataset
from brain_tumor.artifacts.records import Records, open_records
from brain_tumor.config import RecordsConfig, Split
from brain_tumor.records.build import build_tfrecords
from brain_tumor.runtime.errors import DamagedError, InputError
from brain_tumor.stores.files import hash_files
from tests.unit.exports import write_export, write_image
from tests.unit.small_records import CONFIG, FIRST_SHARD, make_dataset, plain_records, read

pytestmark = pytest.mark.slow


def test_boxes_are_in_class_slots_normalised_to_the_original(small_records: Records) -> None:
    train = read(small_records, "train")

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


def test_a_record_has_the_original_bytes_and_its_identity(tmp_path: Path) -> None:
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
        b"",
        -1,
        64,
        20,
    )
    assert (known["source_id"], known["filename"]) == (b"test/volume_4_slice_2.jpg", b"volume_4_slice_2.jpg")
    assert records.manifest.splits["test"].patients is None
    assert "test_patients" not in records.metrics()
    assert tf.io.decode_jpeg(unknown["encoded"]).shape == (20, 64, 1)
    assert {known[name].dtype for name in ("slice", "width", "height")} == {np.dtype(np.int32)}


def test_the_keys_and_types_are_those_of_the_object_detection_api(
    small_dataset: Dataset, small_records: Records
) -> None:
    first, second, _ = plain_records(*small_records.shard_paths("valid"))

    content = (small_dataset.image_folder / "valid" / "volume_3_slice_1.jpg").read_bytes()
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
    other = (small_dataset.image_folder / "valid" / "volume_3_slice_2.jpg").read_bytes()
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


def test_the_files_equal_those_written_by_tensorflow(small_records: Records, tmp_path: Path) -> None:
    with tf.io.TFRecordWriter(str(tmp_path / "other.tfrecord")) as writer:
        for record in plain_records(small_records.path / FIRST_SHARD):
            writer.write(record)

    assert (small_records.path / FIRST_SHARD).read_bytes() == (tmp_path / "other.tfrecord").read_bytes()


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


def test_the_manifest_says_whether_all_images_are_grey(small_records: Records, tmp_path: Path) -> None:
    export = write_export(tmp_path / "export")
    Image.new("RGB", (40, 30), (200, 30, 30)).save(export / "test" / "volume_4_slice_1.jpg", "JPEG")

    color = build_tfrecords(CONFIG, make_dataset(tmp_path, export), tmp_path / "color")

    assert (small_records.manifest.channels, color.manifest.channels) == (1, 3)


def test_shards_contain_each_image_once_and_the_manifest_has_counts(
    small_dataset: Dataset, tmp_path: Path
) -> None:
    records = build_tfrecords(CONFIG, small_dataset, tmp_path / "records")

    paths = records.shard_paths("train")
    assert [Path(path).name for path in paths] == [FIRST_SHARD, "train-00001-of-00002.tfrecord"]
    assert [len(list(plain_records(path))) for path in paths] == [4, 2]
    images = (small_dataset.image_folder / "train").glob("*.jpg")
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
        records.shard_paths("validation")  # type: ignore[arg-type]  # an invalid split


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


def test_leakage_equals_that_of_ingest(tmp_path: Path) -> None:
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
    small_dataset: Dataset, tmp_path: Path
) -> None:
    config = RecordsConfig(images_per_shard=2, max_class_weight=10.0)

    for run, workers in {"default": None, "one": 1, "two": 2, "three": 3}.items():
        build_tfrecords(config, small_dataset, tmp_path / run, workers)

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

    with pytest.raises(InputError, match=r"train/volume_1_slice_3\.jpg was deleted .*run ingest again"):
        build_tfrecords(CONFIG, own_dataset, tmp_path / "out" / "records")

    assert list((tmp_path / "out").iterdir()) == []


def test_records_that_do_not_agree_with_the_dataset_are_an_error(
    own_dataset: Dataset, tmp_path: Path
) -> None:
    manifest = json.loads((own_dataset.path / "manifest.json").read_text())
    manifest["counts"]["valid"]["images"] += 1
    (own_dataset.path / "manifest.json").write_text(json.dumps(manifest))

    with pytest.raises(
        DamagedError, match=r"do not match the manifest.*test/volume_4_slice_1\.jpg is in valid"
    ):
        build_tfrecords(CONFIG, open_dataset(own_dataset.path), tmp_path / "out" / "records")

    assert list((tmp_path / "out").iterdir()) == []


def test_a_dataset_is_not_accepted_as_records(small_dataset: Dataset) -> None:
    with pytest.raises(InputError, match="holds a dataset artifact where a records artifact is needed"):
        open_records(small_dataset.path)


def test_the_records_have_the_exports_boxes(small_dataset: Dataset, small_records: Records) -> None:
    counts: dict[Split, int] = {"train": 6, "valid": 3, "test": 3}
    for split, images in counts.items():
        own = small_records.images(split)
        names = [example["source_id"].decode() for example in read(small_records, split).values()]
        assert own["source_id"].tolist() == names
        assert len(own) == images
    boxes, own = small_records.annotations("train"), small_dataset.annotations
    assert boxes.to_dict("list") == own[own["split"] == "train"].to_dict("list")
    assert boxes.iloc[0][["xmin", "ymin", "xmax", "ymax"]].tolist() == [10.0, 6.0, 20.0, 27.0]
