"""Images that Pillow decodes but TensorFlow does not are detected before training."""

from pathlib import Path

import pytest
import tensorflow as tf

from brain_tumor.records.build import build_tfrecords
from brain_tumor.runtime.errors import InputError
from tests.unit.exports import write_export
from tests.unit.small_records import CONFIG, make_dataset, read

pytestmark = pytest.mark.slow

ROWS = {
    "train": [
        "volume_1_slice_1.jpg,40,30,label0,1,1,9,9",
        "volume_1_slice_2.jpg,40,30,label0,1,1,19,19",
        "volume_2_slice_1.jpg,40,30,label1,1,1,9,9",
    ]
}


def damage(path: Path) -> None:
    """Inserts an invalid segment in the pixel data: Pillow continues reading, TensorFlow fails."""
    content = bytearray(path.read_bytes())
    content[868:870] = b"\xff\xea"
    path.write_bytes(content)
    with pytest.raises(tf.errors.InvalidArgumentError):
        tf.image.decode_jpeg(bytes(content), channels=1)


def test_an_image_that_only_pillow_decodes_is_left_out_of_the_records(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    export = write_export(tmp_path / "export", **ROWS)
    damage(export / "train" / "volume_1_slice_1.jpg")
    dataset = make_dataset(tmp_path, export)
    assert len(dataset.images) == 12

    records = build_tfrecords(CONFIG, dataset, tmp_path / "records")

    assert "TensorFlow cannot decode train/volume_1_slice_1.jpg (" in caplog.text
    assert records.manifest.left_out == ["train/volume_1_slice_1.jpg"]
    assert sorted(read(records, "train")) == [
        "volume_1_slice_2.jpg",
        "volume_1_slice_3.jpg",
        *(f"volume_2_slice_{number}.jpg" for number in (1, 2, 3)),
    ]
    # It is not counted anywhere else.
    assert (records.manifest.splits["train"].images, records.manifest.splits["train"].boxes) == (5, 2)
    assert records.statistics.class_counts["train"] == {"label0": 1, "label1": 1, "label2": 0}
    assert records.statistics.mean_boxes["label0"] == pytest.approx([1 / 40, 1 / 30, 19 / 40, 19 / 30])
    assert len(records.images("train")) == 5
    assert set(records.annotations("train")["filename"]) == {"volume_1_slice_2.jpg", "volume_2_slice_1.jpg"}


def test_too_many_of_them_stop_the_step(tmp_path: Path) -> None:
    export = write_export(tmp_path / "export", **ROWS)
    damage(export / "train" / "volume_1_slice_1.jpg")
    dataset = make_dataset(tmp_path, export, max_bad_fraction=0.08)

    with pytest.raises(
        InputError, match=r"1 of 12 images \(8\.3%\).*cannot decode train/volume_1_slice_1\.jpg"
    ):
        build_tfrecords(CONFIG, dataset, tmp_path / "records")

    assert not (tmp_path / "records").exists()


def test_a_split_without_usable_images_is_named(tmp_path: Path) -> None:
    export = write_export(tmp_path / "export", **ROWS)
    for path in (export / "test").glob("*.jpg"):
        damage(path)

    with pytest.raises(InputError, match=r"has no usable image in test: all its images are quarantined"):
        build_tfrecords(CONFIG, make_dataset(tmp_path, export), tmp_path / "records")
