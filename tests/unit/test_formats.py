"""The formats: all give the same table, and layouts of tools other than Roboflow are accepted."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from brain_tumor.config import DirectoryDataset
from brain_tumor.ingest.export import BOX_COLUMNS
from brain_tumor.ingest.formats.registry import read_export
from brain_tumor.ingest.ingest import ingest
from brain_tumor.runtime.errors import InputError
from tests.unit.exports import directory_config
from tests.unit.format_exports import (
    FIVE_LABELS,
    corners,
    edit_json,
    read,
    splits_of,
    train_of,
    write,
)
from tests.unit.format_writers import WRITERS, Picture, write_records

LABEL_SETS = {"five labels": FIVE_LABELS, "one label": ["no"]}
ROW_COLUMNS = ["source", "row"]


@pytest.mark.parametrize("labels", LABEL_SETS.values(), ids=LABEL_SETS)
@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_table(tmp_path: Path, name: str, labels: list[str]) -> None:
    splits = splits_of(labels)

    export = read(write(tmp_path, name, splits, labels))

    assert export.format == name
    assert [split.name for split in export.splits] == ["train", "valid", "test"]
    for split in export.splits:
        pictures = splits[split.name]
        assert split.images == sorted(picture.name for picture in pictures)
        assert split.findings == []
        assert tuple(split.boxes.columns) == BOX_COLUMNS
        expected = pd.DataFrame(
            [
                (picture.name, *box, picture.width, picture.height)
                for picture in pictures
                for box in picture.boxes
            ],
            columns=[column for column in BOX_COLUMNS if column not in ROW_COLUMNS],
        )
        # With one file per image, rows are in the order of the files.
        keys = ["filename", "label"]
        pd.testing.assert_frame_equal(
            split.boxes.drop(columns=ROW_COLUMNS).sort_values(keys, ignore_index=True),
            expected.sort_values(keys, ignore_index=True),
            check_dtype=False,
            check_exact=True,
        )
        for picture in pictures:
            assert (split.folder / picture.name).read_bytes() == picture.jpeg()


def test_every_format_gives_the_same_dataset(tmp_path: Path) -> None:
    tables = {}
    for name in WRITERS:
        folder = write(tmp_path / name, name)
        dataset = ingest(directory_config(folder, labels=FIVE_LABELS), tmp_path / name / "dataset").dataset
        tables[name] = [dataset.images, dataset.annotations]

    images, annotations = tables["tensorflow"]
    assert len(images) == 5
    assert len(annotations) == 8
    for other in tables.values():
        pd.testing.assert_frame_equal(other[0], images)
        pd.testing.assert_frame_equal(other[1], annotations)


@pytest.mark.parametrize(
    ("name", "source", "row"),
    [
        ("tensorflow", "train/_annotations.csv", 3),
        ("coco", "train/_annotations.coco.json", 2),
        ("yolo", "train/labels/volume_1_slice_1.txt", 2),
        ("voc", "train/volume_1_slice_1.xml", 2),
        ("tfrecord", "train/project.tfrecord", 1),
    ],
)
def test_a_box_has_its_file_and_row(tmp_path: Path, name: str, source: str, row: int) -> None:
    boxes = train_of(write(tmp_path, name)).boxes

    second = boxes[(boxes["filename"] == "volume_1_slice_1.jpg") & (boxes["label"] == FIVE_LABELS[1])]
    assert second[ROW_COLUMNS].to_numpy().tolist() == [[source, row]]


# Variants by other tools, as changes to Roboflow's export, by format.


def _validation_folder(folder: Path) -> None:
    (folder / "valid").rename(folder / "val")


def _own_coco_layout(folder: Path) -> None:
    (folder / "annotations").mkdir()
    for split in ("train", "valid", "test"):
        (folder / split / "_annotations.coco.json").rename(folder / f"annotations/instances_{split}.json")


def _own_coco_layout_in_images(folder: Path) -> None:
    _own_coco_layout(folder)
    (folder / "images").mkdir()
    for split in ("train", "valid", "test"):
        (folder / split).rename(folder / "images" / split)


def _own_yolo_layout(folder: Path) -> None:
    for split in ("train", "valid", "test"):
        for kind in ("images", "labels"):
            (folder / kind).mkdir(exist_ok=True)
            (folder / split / kind).rename(folder / kind / split)
        (folder / split).rmdir()


def _text_ids(folder: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        for annotation in content["annotations"]:
            annotation["image_id"] = str(annotation["image_id"])
        for category in content["categories"]:
            category["id"] = str(category["id"])

    edit_json(folder, change)


def _names_by_index(folder: Path) -> None:
    lines = "".join(f"  {index}: {json.dumps(label)}\n" for index, label in enumerate(FIVE_LABELS))
    (folder / "data.yaml").write_text(f"names:\n{lines}", encoding="utf-8")


def _no_file_for_images_without_boxes(folder: Path) -> None:
    (folder / "train/labels/volume_1_slice_3.txt").unlink()


def _windows_line_ends(folder: Path) -> None:
    for path in (folder / "train/labels").iterdir():
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n \r\n")


def _several_record_files(folder: Path) -> None:
    import tensorflow as tf

    path = folder / "train/project.tfrecord"
    records = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
    path.unlink()
    for index, record in enumerate(records):
        write_records(folder / f"train/project.tfrecord-0000{index}-of-00003", [record])


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("tensorflow", _validation_folder),
        ("coco", _own_coco_layout),
        ("coco", _own_coco_layout_in_images),
        ("coco", _text_ids),
        ("yolo", _validation_folder),
        ("yolo", _own_yolo_layout),
        ("yolo", _names_by_index),
        ("yolo", _no_file_for_images_without_boxes),
        ("yolo", _windows_line_ends),
        ("tfrecord", _several_record_files),
    ],
)
def test_common_variants_are_read_equally(
    tmp_path: Path, name: str, change: Callable[[Path], object]
) -> None:
    expected = read(write(tmp_path / "a", name))
    folder = write(tmp_path / "b", name)
    change(folder)

    export = read(folder)

    assert export.format == name
    for split, other in zip(expected.splits, export.splits, strict=True):
        assert (other.name, other.images, other.findings) == (split.name, split.images, [])
        pd.testing.assert_frame_equal(
            other.boxes.drop(columns=ROW_COLUMNS), split.boxes.drop(columns=ROW_COLUMNS)
        )


def test_unquoted_names_in_yaml_are_strings(tmp_path: Path) -> None:
    labels = ["no", "1.0", "2024-01-01", "null"]
    folder = write(tmp_path, "yolo", splits_of(labels), labels)
    (folder / "data.yaml").write_text("names: [no, 1.0, 2024-01-01, null]\n")

    assert list(train_of(folder).boxes["label"].unique()) == ["null", *labels[:3]]


def test_a_polygon_is_read_as_its_bounding_box(tmp_path: Path) -> None:
    folder = write(tmp_path, "yolo")
    (folder / "train/labels/volume_1_slice_1.txt").write_text("0 0.5 0.1 0.75 0.5 0.25 0.9")

    split = train_of(folder)

    assert corners(split)[-1] == [10, 3, 30, 27]
    assert split.findings == []


def test_a_crowd_is_a_box(tmp_path: Path) -> None:
    folder = write(tmp_path, "coco")
    expected = corners(read(folder).splits[0])
    edit_json(folder, lambda content: content["annotations"][0].update(iscrowd=1))

    assert corners(read_export(folder, tmp_path).splits[0]) == expected


@pytest.mark.parametrize("name", ["coco", "voc"])
def test_a_missing_size_is_nan(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path, name)
    if name == "coco":
        edit_json(
            folder,
            lambda content: [image.pop("width") and image.pop("height") for image in content["images"]],
        )
    else:
        for path in (folder / "train").glob("*.xml"):
            path.write_bytes(path.read_bytes().replace(b"size>", b"extent>"))

    split = train_of(folder)

    assert len(split.boxes) == 6
    assert split.boxes[["width", "height"]].isna().to_numpy().all()
    assert split.findings == []


@pytest.mark.parametrize("name", ["coco", "voc"])
def test_an_image_missing_in_complete_annotations_is_a_finding(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path, name)
    if name == "coco":
        edit_json(folder, lambda content: content["images"].pop())
    else:
        (folder / "train/volume_1_slice_3.xml").unlink()

    split = train_of(folder)

    assert "volume_1_slice_3.JPEG" in split.images
    (finding,) = split.findings
    assert (finding.file, finding.kind) == ("volume_1_slice_3.JPEG", "not_annotated")
    assert not finding.bad


POSE = "0 0.5 0.5 0.5 0.4 0.3 0.4 2 0.7 0.6 1"


@pytest.mark.parametrize("shape", ["kpt_shape: [2, 3]\n", ""])
def test_a_pose_is_read_as_its_leading_box_or_is_a_finding(tmp_path: Path, shape: str) -> None:
    folder = write(tmp_path, "yolo")
    (folder / "data.yaml").write_text((folder / "data.yaml").read_text() + shape)
    (folder / "train/labels/volume_1_slice_1.txt").write_text(POSE)

    split = train_of(folder)

    if shape:
        assert corners(split)[-1] == [10, 9, 30, 21]
        assert split.findings == []
    else:
        (finding,) = split.findings
        assert "seems to be a box and keypoints; give the data.yaml its kpt_shape" in finding.message
        assert finding.bad


def test_a_pose_of_another_shape_is_a_finding(tmp_path: Path) -> None:
    folder = write(tmp_path, "yolo")
    (folder / "data.yaml").write_text((folder / "data.yaml").read_text() + "kpt_shape: [3, 3]\n")
    (folder / "train/labels/volume_1_slice_1.txt").write_text(POSE)

    (finding,) = train_of(folder).findings

    assert "has 11 values; a class and four numbers, and 9 of keypoints are needed" in finding.message


@pytest.mark.parametrize("shape", ["17", "[a, b]", "[1, 2, 3]", "[17]", "{a: b}", "[[1], 2]", "[9999, 2]"])
def test_an_invalid_kpt_shape_is_refused(tmp_path: Path, shape: str) -> None:
    folder = write(tmp_path, "yolo")
    (folder / "data.yaml").write_text((folder / "data.yaml").read_text() + f"kpt_shape: {shape}\n")

    with pytest.raises(InputError, match=r"data\.yaml has a kpt_shape that is not two numbers"):
        train_of(folder)


POINTS = {  # numbers after the class in every line of an export
    "keypoints": ("0.5 0.5 0.5 0.4 0.3 0.4 0.7 0.6", "0.2 0.3 0.4 0.6 0.1 0.1 0.4 0.6"),
    "one is not seen": ("0.5 0.5 0.5 0.4 0.3 0.4 0.7 0.6", "0.2 0.3 0.4 0.6 0.1 0.1 0 0"),
    "polygons": ("0.5 0.5 0.5 0.4 0.3 0.4 0.7 0.6", "0.9 0.9 0.8 0.9 0.8 0.8 0.9 0.7"),
    "a triangle among them": ("0.5 0.5 0.5 0.4 0.3 0.4 0.7 0.6", "0.5 0.5 0.5 0.4 0.3 0.4"),
    "a box among them": ("0.5 0.5 0.5 0.4 0.3 0.4 0.7 0.6", "0.5 0.5 0.5 0.4"),
    "rectangles": ("0.4 0.4 0.5 0.4 0.5 0.5 0.4 0.5", "0.45 0.4 0.5 0.45 0.45 0.5 0.4 0.45"),
}


@pytest.mark.parametrize("name", POINTS)
def test_lines_that_can_be_boxes_with_keypoints_are_refused(tmp_path: Path, name: str) -> None:
    pictures = {split: [Picture(f"volume_{split}_slice_1.jpg")] for split in ("train", "valid", "test")}
    folder = write(tmp_path, "yolo", pictures)
    for split, numbers in zip(("train", "test"), POINTS[name], strict=True):
        (folder / split / "labels" / f"volume_{split}_slice_1.txt").write_text(f"0 {numbers}\n")

    if name in ("keypoints", "one is not seen"):
        with pytest.raises(
            InputError, match=r"volume_train_slice_1\.txt row 1: .* 2 keypoints .* kpt_shape: \[2, 2\], or"
        ):
            train_of(folder)
        for shape, expected in (("[2, 2]", [10, 9, 30, 21]), ("[0, 0]", [12, 12, 28, 18])):
            declared = f"{yaml.safe_dump({'names': FIVE_LABELS})}kpt_shape: {shape}\n"
            (folder / "data.yaml").write_text(declared)
            assert corners(read_export(folder, tmp_path).splits[0]) == [expected]
    else:
        assert train_of(folder).findings == []


COMPOSED, APART = "volume_1_slice_7 ü.jpg", "volume_1_slice_7 u\u0308.jpg"


@pytest.mark.parametrize("name", ["tensorflow", "coco", "yolo", "voc"])
@pytest.mark.parametrize(("annotated", "stored"), [(COMPOSED, APART), (APART, COMPOSED)])
def test_names_in_different_unicode_forms_are_the_same(
    tmp_path: Path, name: str, annotated: str, stored: str
) -> None:
    label = "Ödem"
    pictures = {split: [Picture(f"volume_{split}_slice_1.jpg")] for split in ("valid", "test")}
    folder = write(
        tmp_path, name, {"train": [Picture(annotated, [(label, 1, 1, 9, 9)])], **pictures}, [label]
    )
    for path in folder.glob(f"train/**/{annotated}"):
        path.rename(path.with_name(stored))

    split = train_of(folder)

    assert split.findings == []
    assert split.images == [stored]
    assert split.boxes["filename"].tolist() == [stored]
    assert DirectoryDataset(source="directory", path="/", labels=["O\u0308dem"]).labels == [label]
