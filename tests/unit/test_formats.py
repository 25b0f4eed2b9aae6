"""Each format's reader on its own: what it accepts beside Roboflow's layout, and what it says of a defect."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from exports import directory_config
from format_writers import WRITERS, Picture, Splits, write_records

from brain_tumor.data.annotations import BOX_COLUMNS, Export, ExportSplit, read_export
from brain_tumor.data.dataset import ingest
from brain_tumor.data.findings import QUARANTINED, ROW_IGNORED, Finding
from brain_tumor.errors import InputError

FIVE_LABELS = ["glioma, grade IV", 'the "core"', "опухоль", "腫瘍 部位", "it's <b> & no: 1.0"]
LABEL_SETS = {"five labels": FIVE_LABELS, "one label": ["no"]}
ROW_COLUMNS = ["source", "row"]
NAME = "volume 1 срез_2, the 'first'.jpg"


def splits_of(labels: list[str]) -> Splits:
    """A few images: with a box of every label, with boxes at the edges, without a box."""
    every = [(label, 2.0 * index, 1, 20, 9.5 + index) for index, label in enumerate(labels)]
    last = labels[-1]
    return {
        "train": [
            Picture("volume_1_slice_1.jpg", every),
            Picture(NAME, [(last, 0, 0, 139, 132)], 139, 132),
            Picture("volume_1_slice_3.JPEG"),
        ],
        "valid": [Picture("volume_2_slice_1_jpg.rf.0a1b.jpg", [(last, 31, 7, 139, 13)], 139, 132)],
        "test": [Picture("volume_3_slice_1.jpg", [(labels[0], 0, 3, 1, 4)])],
    }


def write(folder: Path, name: str, splits: Splits | None = None, labels: list[str] = FIVE_LABELS) -> Path:
    """An export in a format."""
    folder = folder / "export"
    WRITERS[name](folder, splits or splits_of(labels), labels)
    return folder


def read(folder: Path) -> Export:
    scratch = folder.parent / "scratch"
    scratch.mkdir()
    return read_export(folder, scratch)


def train_of(folder: Path) -> ExportSplit:
    return read(folder).splits[0]


def corners(split: ExportSplit) -> list[list[float]]:
    return split.boxes[["xmin", "ymin", "xmax", "ymax"]].to_numpy().tolist()


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
        # A format with a file an image has its rows in the files' order.
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
        output = tmp_path / name / "dataset"
        ingest(directory_config(folder, labels=FIVE_LABELS), output, tmp_path / name / "report.html")
        tables[name] = [pd.read_parquet(output / f"{table}.parquet") for table in ("images", "annotations")]

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
def test_a_box_says_where_it_was_read(tmp_path: Path, name: str, source: str, row: int) -> None:
    boxes = train_of(write(tmp_path, name)).boxes

    second = boxes[(boxes["filename"] == "volume_1_slice_1.jpg") & (boxes["label"] == FIVE_LABELS[1])]
    assert second[ROW_COLUMNS].to_numpy().tolist() == [[source, row]]


# What other tools write, by format: the change to Roboflow's export.


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
    def change(content: dict) -> None:
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


def edit_json(folder: Path, change: Callable[[dict], None]) -> None:
    path = folder / "train" / "_annotations.coco.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


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
def test_usual_variants_are_read_alike(tmp_path: Path, name: str, change: Callable[[Path], None]) -> None:
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


def test_unquoted_names_in_yaml_are_texts(tmp_path: Path) -> None:
    labels = ["no", "1.0", "2024-01-01", "null"]
    folder = write(tmp_path, "yolo", splits_of(labels), labels)
    (folder / "data.yaml").write_text("names: [no, 1.0, 2024-01-01, null]\n")

    assert list(train_of(folder).boxes["label"].unique()) == ["null", *labels[:3]]


def test_a_polygon_stands_for_its_bounding_box(tmp_path: Path) -> None:
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
def test_a_size_that_is_not_said_is_nan(tmp_path: Path, name: str) -> None:
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
def test_an_image_that_complete_annotations_lack_is_remarked_on(tmp_path: Path, name: str) -> None:
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


# A defect of one image's annotation: how to make it, and the finding's kind, row and words.


def _replace(path: str, old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = (folder / path).read_text(encoding="utf-8")
        assert old in content
        (folder / path).write_text(content.replace(old, new, 1), encoding="utf-8")

    return change


def _put(path: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / path).write_bytes(content) and None


def _annotation(**values: object) -> Callable[[Path], None]:
    return lambda folder: edit_json(folder, lambda content: content["annotations"][2].update(values))


def _image(**values: object) -> Callable[[Path], None]:
    return lambda folder: edit_json(folder, lambda content: content["images"][0].update(values))


def _record(**values: object) -> Callable[[Path], None]:
    """Replaces features of the first record; without a value, it is no record at all."""

    def change(folder: Path) -> None:
        import tensorflow as tf

        path = folder / "train/project.tfrecord"
        records = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
        parsed = tf.train.Example.FromString(records[0])
        for key, value in values.items():
            feature = parsed.features.feature[f"image/{key.replace('__', '/')}"]
            feature.Clear()
            if isinstance(value, bytes):
                feature.bytes_list.value.append(value)
            else:
                feature.float_list.value.extend(value)
        records[0] = parsed.SerializeToString() if values else b"\xff\xff"
        write_records(path, records)

    return change


TXT, XML = "train/labels/volume_1_slice_1.txt", "train/volume_1_slice_1.xml"
BOMB = b'<!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;">]><annotation><size>&y;</size></annotation>'

DEFECTS: dict[str, tuple[str, Callable[[Path], None], str, int | None, str]] = {
    "CSV: a value too few": (
        "tensorflow",
        _replace("train/_annotations.csv", "1.jpg,40,", "1.jpg,"),
        "malformed_row",
        2,
        "has 7 values",
    ),
    "CSV: no number": (
        "tensorflow",
        _replace("train/_annotations.csv", "1.jpg,40", "1.jpg,forty"),
        "not_a_number",
        2,
        "width 'forty'",
    ),
    "CSV: NaN": (
        "tensorflow",
        _replace("train/_annotations.csv", "1.jpg,40", "1.jpg,nan"),
        "not_a_number",
        2,
        "width 'nan'",
    ),
    "COCO: unknown category": ("coco", _annotation(category_id=9), "malformed_row", 3, "category_id 9"),
    "COCO: box of three": ("coco", _annotation(bbox=[1, 2, 3]), "not_a_number", 3, "not four numbers"),
    "COCO: box of texts": ("coco", _annotation(bbox="1234"), "not_a_number", 3, "not four numbers"),
    "COCO: infinite box": (
        "coco",
        _annotation(bbox=[1e308, 0, 1e308, 1]),
        "not_a_number",
        3,
        "no finite numbers",
    ),
    "COCO: an image's size": ("coco", _image(width="wide"), "not_a_number", 1, "size 'wide' x 30"),
    "YOLO: unknown class": ("yolo", _put(TXT, b"\n5 .5 .5 .1 .1"), "malformed_row", 2, "class '5'"),
    "YOLO: no number": ("yolo", _put(TXT, b"0 .5 .5 .1 x"), "not_a_number", 1, "has 'x'"),
    "YOLO: half a line": ("yolo", _put(TXT, b"0 .5 .5"), "malformed_row", 1, "has 3 values"),
    "YOLO: a prediction's line": ("yolo", _put(TXT, b"0 .5 .5 .1 .1 .9"), "malformed_row", 1, "has 6"),
    "YOLO: UTF-16": (
        "yolo",
        _put(TXT, "0 .5 .5 .1 .1".encode("utf-16")),
        "malformed_file",
        None,
        "cannot be read",
    ),
    "VOC: half a file": ("voc", _put(XML, b"<annotation><obj"), "malformed_file", None, "cannot be read"),
    "VOC: empty file": ("voc", _put(XML, b""), "malformed_file", None, "cannot be read"),
    "VOC: entities": ("voc", _put(XML, BOMB), "malformed_file", None, "cannot be read"),
    "VOC: unknown encoding": (
        "voc",
        _put(XML, b'<?xml version="1.0" encoding="zip"?><annotation/>'),
        "malformed_file",
        None,
        "cannot be read",
    ),
    "VOC: an encoding of several bytes": (
        "voc",
        _put(XML, b'<?xml version="1.0" encoding="shift_jis"?><annotation/>'),
        "malformed_file",
        None,
        "cannot be read",
    ),
    "VOC: HTML": ("voc", _put(XML, b"<html/>"), "malformed_file", None, "another kind: 'html'"),
    "VOC: tags that do not match": (
        "voc",
        _replace(XML, "bndbox>", "box>"),
        "malformed_file",
        None,
        "cannot be read",
    ),
    "VOC: no number": ("voc", _replace(XML, "<xmin>1", "<xmin>a1"), "not_a_number", 1, "xmin 'a1"),
    "VOC: size": ("voc", _replace(XML, "<width>4", "<width>x"), "not_a_number", None, "size"),
    "TFRecord: labels": (
        "tfrecord",
        _record(object__class__text=b"one"),
        "malformed_row",
        1,
        "1 image/object/class/text but 5 boxes",
    ),
    "TFRecord: no width": ("tfrecord", _record(width=[1.0]), "malformed_row", 1, "no image/width"),
    "TFRecord: NaN": (
        "tfrecord",
        _record(object__bbox__xmin=[float("nan")] * 5),
        "not_a_number",
        1,
        "no finite numbers",
    ),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_bad_row_is_a_finding_about_its_image_alone(tmp_path: Path, defect: str) -> None:
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


# What belongs to no image: how to make it, and the finding's file and words.


def _extra_image(folder: Path) -> None:
    edit_json(folder, lambda content: content["images"].append({"id": 77, "file_name": "gone.jpg"}))


def _extra_annotation(folder: Path) -> None:
    edit_json(folder, lambda content: content["annotations"].append({"image_id": [], "bbox": {}}))


STRAYS: dict[str, tuple[str, Callable[[Path], None], str, str]] = {
    "CSV": (
        "tensorflow",
        lambda folder: _append(folder / "train/_annotations.csv", "../gone.jpg,4"),
        "../gone.jpg",
        "row 8: '../gone.jpg' has 2 values",
    ),
    "COCO image": ("coco", _extra_image, "gone.jpg", "'gone.jpg' is not there"),
    "COCO annotation": ("coco", _extra_annotation, "", "image_id a list"),
    "YOLO": ("yolo", _put("train/labels/gone.txt", b"0 .5 .5 .1 .1"), "gone.txt", "no JPEG of the same name"),
    "VOC": ("voc", _put("train/gone.xml", b"<annotation/>"), "gone.xml", "no JPEG of the same name"),
}


def _append(path: Path, text: str) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write(text)


@pytest.mark.parametrize("stray", STRAYS)
def test_what_belongs_to_no_image_is_ignored_with_a_finding(tmp_path: Path, stray: str) -> None:
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
        (b"\xff.jpg", "no UTF-8"),
        (b"x" * 252 + b".jpg", "longer than 255 bytes"),
        (b"image.png", "no JPEG"),
    ],
)
def test_a_record_whose_name_is_not_a_files_is_not_written(
    tmp_path: Path, filename: bytes, words: str
) -> None:
    folder = write(tmp_path, "tfrecord")
    _record(filename=filename)(folder)
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


def test_a_record_that_is_none_is_ignored(tmp_path: Path) -> None:
    folder = write(tmp_path, "tfrecord")
    _record()(folder)

    (finding,) = train_of(folder).findings

    assert (finding.row, finding.action) == (1, ROW_IGNORED)
    assert "is no tf.train.Example" in finding.message


def test_two_records_of_one_name_are_a_finding(tmp_path: Path) -> None:
    folder = write(tmp_path, "tfrecord")
    _record(filename=NAME.encode())(folder)

    (finding,) = train_of(folder).findings

    assert (finding.kind, finding.file, finding.action) == ("duplicate_name", NAME, QUARANTINED)


def test_a_coco_image_without_id_is_a_finding_and_so_are_its_annotations(tmp_path: Path) -> None:
    folder = write(tmp_path, "coco")
    _image(id=None)(folder)

    split = train_of(folder)

    assert list(split.boxes["filename"]) == [NAME]
    first, *others = [finding for finding in split.findings if finding.bad]
    assert (first.file, first.row, first.action) == ("volume_1_slice_1.jpg", 1, QUARANTINED)
    assert "images row 1" in first.message
    assert [(finding.row, finding.action) for finding in others] == [
        (row, ROW_IGNORED) for row in range(1, 6)
    ]


def test_two_coco_images_of_one_id_are_findings(tmp_path: Path) -> None:
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


# A defect of the whole export: how to make it, and words of the sentence about it.


def _yaml(content: bytes) -> Callable[[Path], None]:
    return _put("data.yaml", content)


def _json(content: bytes) -> Callable[[Path], None]:
    return _put("train/_annotations.coco.json", content)


def _category(**values: object) -> Callable[[Path], None]:
    return lambda folder: edit_json(folder, lambda content: content["categories"][0].update(values))


def _flip(folder: Path) -> None:
    path = folder / "train/project.tfrecord"
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)


REFUSALS: dict[str, tuple[str, Callable[[Path], None], list[str]]] = {
    "COCO: no file": (
        "coco",
        lambda folder: (folder / "test/_annotations.coco.json").unlink(),
        ["export/test"],
    ),
    "COCO: half a file": ("coco", _json(b'{"images": [\n{"id'), ["_annotations.coco.json row 2", "no JSON"]),
    "COCO: latin-1": (
        "coco",
        _json('{"images": "é"}'.encode("latin-1")),
        ["_annotations.coco.json", "no JSON"],
    ),
    "COCO: nested": ("coco", _json(b"[" * 200_000), ["_annotations.coco.json", "no JSON"]),
    "COCO: huge integer": ("coco", _json(b"[" + b"9" * 5000 + b"]"), ["_annotations.coco.json", "no JSON"]),
    "COCO: a list": ("coco", _json(b"[]"), ["_annotations.coco.json", "no list 'images'"]),
    "COCO: no annotations": (
        "coco",
        _json(b'{"images": [], "annotations": {}}'),
        ["_annotations.coco.json", "no list 'annotations'"],
    ),
    "COCO: category without name": ("coco", _category(name=None), ["category 1", "no name"]),
    "COCO: half a surrogate": ("coco", _category(name="\ud800"), ["category 1", "no name"]),
    "COCO: category id twice": ("coco", _category(id=2), ["category 3", "the id '2'"]),
    "YOLO: no data.yaml": ("yolo", lambda folder: (folder / "data.yaml").unlink(), ["has no data.yaml"]),
    "YOLO: no YAML": ("yolo", _yaml(b"a: b\nnames: [a"), ["data.yaml row 2", "no YAML"]),
    "YOLO: latin-1": ("yolo", _yaml(b"names: [\xe9]"), ["data.yaml", "no YAML"]),
    "YOLO: nested": ("yolo", _yaml(b"[" * 100_000), ["data.yaml", "no YAML"]),
    "YOLO: no names": ("yolo", _yaml(b"nc: 3"), ["data.yaml", "has no names"]),
    "YOLO: names of names": ("yolo", _yaml(b"names: [[a]]"), ["class '0' named a list"]),
    "YOLO: laughs": (
        "yolo",
        _yaml(
            b"a: &a [x,x]\n"
            + b"".join(b"%c: &%c [*%c,*%c]\n" % (i, i, i - 1, i - 1) for i in range(98, 122))
            + b"names: *y"
        ),
        ["class '0' named a list"],
    ),
    "YOLO: no labels": (
        "yolo",
        lambda folder: (folder / "valid/labels").rename(folder / "valid/texts"),
        ["no folder valid/labels/"],
    ),
    "YOLO: no images": (
        "yolo",
        lambda folder: (folder / "valid/images").rename(folder / "valid/pictures"),
        ["no folder valid/images/"],
    ),
    "VOC: no file": (
        "voc",
        lambda folder: [path.unlink() for path in (folder / "valid").glob("*.xml")] and None,
        ["export/valid", "no XML file"],
    ),
    "TFRecord: damaged": (
        "tfrecord",
        _flip,
        ["project.tfrecord", "record 3 is damaged (its checksum is wrong)"],
    ),
    "TFRecord: cut": (
        "tfrecord",
        lambda folder: _cut(folder / "train/project.tfrecord"),
        ["project.tfrecord", "record 3 is damaged (its end is missing)"],
    ),
    "TFRecord: no record": ("tfrecord", _put("train/project.tfrecord", b""), ["export/train", "no image"]),
    "TFRecord: no file": (
        "tfrecord",
        lambda folder: (folder / "valid/project.tfrecord").unlink(),
        ["export/valid", "no .tfrecord"],
    ),
    "two formats": (
        "coco",
        _put("valid/_annotations.csv", b""),
        ["several formats", "tensorflow (valid/_annotations.csv)", "coco (train/_annotations.coco.json)"],
    ),
    "another format": (
        "tensorflow",
        lambda folder: (
            [
                path.rename(path.with_name("_annotations.createml.json"))
                for path in list(folder.glob("*/*.csv"))
            ]
            and None
        ),
        ["_annotations.createml.json", "supported are tensorflow", "tfrecord"],
    ),
    "one split in two folders": (
        "tensorflow",
        lambda folder: (folder / "val").mkdir(),
        ["valid/ and val/", "the same split"],
    ),
}


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


@pytest.mark.parametrize("refusal", REFUSALS)
def test_what_cannot_be_read_at_all_is_one_sentence(tmp_path: Path, refusal: str) -> None:
    name, spoil, words = REFUSALS[refusal]
    folder = write(tmp_path, name)
    spoil(folder)

    with pytest.raises(InputError) as caught:
        read(folder)

    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message
    assert message.endswith(".")
    assert len(message) < 600


def test_a_name_that_is_no_text_is_a_finding(tmp_path: Path) -> None:
    folder = write(tmp_path, "tensorflow")
    # As an archive made under another encoding unpacks.
    (folder / "train" / "\udcff.jpg").write_bytes(b"")

    split = train_of(folder)

    assert split.findings == [
        Finding(
            "train",
            "\\udcff.jpg",
            None,
            "other_file",
            "train/'\\udcff.jpg' has a name that is no UTF-8 text.",
            "file ignored",
        )
    ]
