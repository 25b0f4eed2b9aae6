"""Defects of one image's annotation in each format: a finding, and nothing else is lost."""

from collections.abc import Callable
from pathlib import Path

import pytest

from brain_tumor.ingest.findings import QUARANTINED, ROW_IGNORED, Finding
from tests.unit.format_exports import (
    NAME,
    append_text,
    edit_annotation,
    edit_image,
    edit_json,
    edit_record,
    put_bytes,
    replace_text,
    train_of,
    write,
)

TXT, XML = "train/labels/volume_1_slice_1.txt", "train/volume_1_slice_1.xml"
BOMB = b'<!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;">]><annotation><size>&y;</size></annotation>'

DEFECTS: dict[str, tuple[str, Callable[[Path], object], str, int | None, str]] = {
    "CSV: a value too few": (
        "tensorflow",
        replace_text("train/_annotations.csv", "1.jpg,40,", "1.jpg,"),
        "malformed_row",
        2,
        "has 7 values",
    ),
    "CSV: no number": (
        "tensorflow",
        replace_text("train/_annotations.csv", "1.jpg,40", "1.jpg,forty"),
        "not_a_number",
        2,
        "width 'forty'",
    ),
    "CSV: NaN": (
        "tensorflow",
        replace_text("train/_annotations.csv", "1.jpg,40", "1.jpg,nan"),
        "not_a_number",
        2,
        "width 'nan'",
    ),
    "COCO: unknown category": ("coco", edit_annotation(category_id=9), "malformed_row", 3, "category_id 9"),
    "COCO: box of three": ("coco", edit_annotation(bbox=[1, 2, 3]), "not_a_number", 3, "not four numbers"),
    "COCO: box of texts": ("coco", edit_annotation(bbox="1234"), "not_a_number", 3, "not four numbers"),
    "COCO: infinite box": (
        "coco",
        edit_annotation(bbox=[1e308, 0, 1e308, 1]),
        "not_a_number",
        3,
        "not finite numbers",
    ),
    "COCO: an image's size": ("coco", edit_image(width="wide"), "not_a_number", 1, "size 'wide' x 30"),
    "YOLO: unknown class": ("yolo", put_bytes(TXT, b"\n5 .5 .5 .1 .1"), "malformed_row", 2, "class '5'"),
    "YOLO: no number": ("yolo", put_bytes(TXT, b"0 .5 .5 .1 x"), "not_a_number", 1, "has 'x'"),
    "YOLO: half a line": ("yolo", put_bytes(TXT, b"0 .5 .5"), "malformed_row", 1, "has 3 values"),
    "YOLO: a prediction's line": ("yolo", put_bytes(TXT, b"0 .5 .5 .1 .1 .9"), "malformed_row", 1, "has 6"),
    "YOLO: UTF-16": (
        "yolo",
        put_bytes(TXT, "0 .5 .5 .1 .1".encode("utf-16")),
        "malformed_file",
        None,
        "cannot be read",
    ),
    "VOC: half a file": (
        "voc",
        put_bytes(XML, b"<annotation><obj"),
        "malformed_file",
        None,
        "cannot be read",
    ),
    "VOC: empty file": ("voc", put_bytes(XML, b""), "malformed_file", None, "cannot be read"),
    "VOC: entities": ("voc", put_bytes(XML, BOMB), "malformed_file", None, "cannot be read"),
    "VOC: unknown encoding": (
        "voc",
        put_bytes(XML, b'<?xml version="1.0" encoding="zip"?><annotation/>'),
        "malformed_file",
        None,
        "cannot be read",
    ),
    "VOC: an encoding of several bytes": (
        "voc",
        put_bytes(XML, b'<?xml version="1.0" encoding="shift_jis"?><annotation/>'),
        "malformed_file",
        None,
        "cannot be read",
    ),
    "VOC: HTML": ("voc", put_bytes(XML, b"<html/>"), "malformed_file", None, "another kind: 'html'"),
    "VOC: tags that do not match": (
        "voc",
        replace_text(XML, "bndbox>", "box>"),
        "malformed_file",
        None,
        "cannot be read",
    ),
    "VOC: no number": ("voc", replace_text(XML, "<xmin>1", "<xmin>a1"), "not_a_number", 1, "xmin 'a1"),
    "VOC: size": ("voc", replace_text(XML, "<width>4", "<width>x"), "not_a_number", None, "size"),
    "TFRecord: labels": (
        "tfrecord",
        edit_record(object__class__text=b"one"),
        "malformed_row",
        1,
        "1 image/object/class/text but 5 boxes",
    ),
    "TFRecord: no width": ("tfrecord", edit_record(width=[1.0]), "malformed_row", 1, "no image/width"),
    "TFRecord: NaN": (
        "tfrecord",
        edit_record(object__bbox__xmin=[float("nan")] * 5),
        "not_a_number",
        1,
        "not finite numbers",
    ),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_bad_row_is_a_finding_only_about_its_image(tmp_path: Path, defect: str) -> None:
    name, spoil, kind, row, words = DEFECTS[defect]
    folder = write(tmp_path, name)
    spoil(folder)

    split = train_of(folder)

    assert split.images == sorted(["volume_1_slice_1.jpg", NAME, "volume_1_slice_3.JPEG"])
    assert {finding.file for finding in split.findings} == {"volume_1_slice_1.jpg"}, split.findings
    finding = split.findings[0]
    assert (finding.kind, finding.row, finding.action) == (kind, row, QUARANTINED)
    assert words in finding.message
    assert finding.message.startswith("train/")
    assert finding.message.endswith(".")
    other = split.boxes[split.boxes["filename"] == NAME]
    assert other[["xmin", "ymin", "xmax", "ymax"]].to_numpy().tolist() == [[0, 0, 139, 132]]


# Annotations without an image: how to make one, and the finding's file and words.


def _extra_image(folder: Path) -> None:
    edit_json(folder, lambda content: content["images"].append({"id": 77, "file_name": "gone.jpg"}))


def _extra_annotation(folder: Path) -> None:
    edit_json(folder, lambda content: content["annotations"].append({"image_id": [], "bbox": {}}))


STRAYS: dict[str, tuple[str, Callable[[Path], object], str, str]] = {
    "CSV": (
        "tensorflow",
        lambda folder: append_text(folder / "train/_annotations.csv", "../gone.jpg,4"),
        "../gone.jpg",
        "row 8: '../gone.jpg' has 2 values",
    ),
    "COCO image": ("coco", _extra_image, "gone.jpg", "'gone.jpg' does not exist"),
    "COCO annotation": ("coco", _extra_annotation, "", "image_id a list"),
    "YOLO": (
        "yolo",
        put_bytes("train/labels/gone.txt", b"0 .5 .5 .1 .1"),
        "gone.txt",
        "no image of the same name",
    ),
    "VOC": ("voc", put_bytes("train/gone.xml", b"<annotation/>"), "gone.xml", "no image of the same name"),
}


@pytest.mark.parametrize("stray", STRAYS)
def test_annotations_without_an_image_are_ignored_with_a_finding(tmp_path: Path, stray: str) -> None:
    name, spoil, file, words = STRAYS[stray]
    folder = write(tmp_path, name)
    spoil(folder)

    split = train_of(folder)

    (finding,) = split.findings
    assert (finding.file, finding.action) == (file, ROW_IGNORED)
    assert words in finding.message
    assert len(split.boxes) == 6


@pytest.mark.parametrize(
    ("filename", "words"),
    [
        (b"../outside.jpg", "not the name of a file"),
        (b"/tmp/outside.jpg", "not the name of a file"),
        (b"..\\outside.jpg", "not the name of a file"),
        (b"nul\0.jpg", "not the name of a file"),
        (b"", "not the name of a file"),
        (b"\xff.jpg", "not UTF-8"),
        (b"x" * 252 + b".jpg", "longer than 255 bytes"),
        (b"image.bmp", "not a JPEG's or PNG's"),
    ],
)
def test_a_record_with_an_invalid_file_name_is_not_written(
    tmp_path: Path, filename: bytes, words: str
) -> None:
    folder = write(tmp_path, "tfrecord")
    edit_record(filename=filename)(folder)
    before = sorted(path for path in tmp_path.rglob("*"))

    split = train_of(folder)

    (finding,) = split.findings
    assert (finding.row, finding.action) == (1, ROW_IGNORED)
    assert words in finding.message
    assert split.images == [NAME, "volume_1_slice_3.JPEG"]
    new = {path.relative_to(tmp_path) for path in tmp_path.rglob("*")} - {
        path.relative_to(tmp_path) for path in before
    }
    assert all(path.parts[0] == "scratch" for path in new)
    assert (
        sorted(path.name for path in new if len(path.parts) == 3 and path.parts[1] == "train") == split.images
    )


def test_an_invalid_record_is_ignored(tmp_path: Path) -> None:
    folder = write(tmp_path, "tfrecord")
    edit_record()(folder)

    (finding,) = train_of(folder).findings

    assert (finding.row, finding.action) == (1, ROW_IGNORED)
    assert "is not a tf.train.Example" in finding.message


def test_two_records_of_the_same_name_are_a_finding(tmp_path: Path) -> None:
    folder = write(tmp_path, "tfrecord")
    edit_record(filename=NAME.encode())(folder)

    (finding,) = train_of(folder).findings

    assert (finding.kind, finding.file, finding.action) == ("duplicate_name", NAME, QUARANTINED)


def test_a_coco_image_without_id_is_a_finding_and_so_are_its_annotations(tmp_path: Path) -> None:
    folder = write(tmp_path, "coco")
    edit_image(id=None)(folder)

    split = train_of(folder)

    assert list(split.boxes["filename"]) == [NAME]
    first, *others = [finding for finding in split.findings if finding.bad]
    assert (first.file, first.row, first.action) == ("volume_1_slice_1.jpg", 1, QUARANTINED)
    assert "images row 1" in first.message
    assert [(finding.row, finding.action) for finding in others] == [
        (row, ROW_IGNORED) for row in range(1, 6)
    ]


def test_two_coco_images_with_the_same_id_are_findings(tmp_path: Path) -> None:
    folder = write(tmp_path, "coco")
    edit_json(folder, lambda content: content["images"][0].update(id=content["images"][1]["id"]))

    findings = train_of(folder).findings

    ambiguous = [finding for finding in findings if finding.kind == "ambiguous_id"]
    assert {finding.file for finding in ambiguous} == {"volume_1_slice_1.jpg", NAME}
    assert all(finding.action == QUARANTINED for finding in ambiguous)


@pytest.mark.parametrize("name", ["yolo", "voc"])
def test_two_images_that_share_an_annotation_file_are_findings(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path, name)
    split = folder / "train" if name == "voc" else folder / "train/images"
    (split / "volume_1_slice_1.jpeg").write_bytes((split / "volume_1_slice_1.jpg").read_bytes())

    findings = [finding for finding in train_of(folder).findings if finding.kind == "ambiguous_name"]

    assert {finding.file for finding in findings} == {"volume_1_slice_1.jpg", "volume_1_slice_1.jpeg"}
    assert all(finding.action == QUARANTINED for finding in findings)


def test_an_unreadable_image_has_no_yolo_boxes(tmp_path: Path) -> None:
    folder = write(tmp_path, "yolo")
    (folder / "train/images/volume_1_slice_1.jpg").write_bytes(b"no JPEG")

    split = train_of(folder)

    assert "volume_1_slice_1.jpg" in split.images
    assert list(split.boxes["filename"]) == [NAME]


def test_a_name_that_is_not_text_is_a_finding(tmp_path: Path) -> None:
    folder = write(tmp_path, "tensorflow")
    # As unpacked from an archive with another encoding.
    (folder / "train" / "\udcff.jpg").write_bytes(b"")

    split = train_of(folder)

    assert split.findings == [
        Finding(
            "train",
            "\\udcff.jpg",
            None,
            "unusable_image",
            "train/'\\udcff.jpg' has a name that is not UTF-8 text; rename it.",
            "image left out",
        )
    ]
