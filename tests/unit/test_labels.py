"""`dataset.labels=auto`: the labels declared by each format, and the errors if it declares none."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from brain_tumor.config import DirectoryDataset
from brain_tumor.config.compose import compose
from brain_tumor.configure import configure
from brain_tumor.ingest.ingest import ingest
from brain_tumor.ingest.labels import MOST_LABELS, read_labels
from brain_tumor.runtime.errors import InputError
from tests.unit.buckets import GoogleBucket
from tests.unit.exports import directory_config, write_export
from tests.unit.format_exports import FIVE_LABELS, edit_json, put_bytes, splits_of, write
from tests.unit.format_writers import Picture

SPLITS = ("train", "valid", "test")


def labels_of(folder: Path) -> list[str]:
    return read_labels(directory_config(folder, labels="auto"))


def refusal_of(folder: Path) -> str:
    """The one-sentence error."""
    with pytest.raises(InputError) as caught:
        labels_of(folder)
    message = str(caught.value)
    assert message.isprintable() and message.endswith(".")
    return message


@pytest.mark.parametrize("name", ["coco", "yolo", "tfrecord"])
def test_names_are_in_the_order_of_their_numbers(tmp_path: Path, name: str) -> None:
    assert labels_of(write(tmp_path, name)) == FIVE_LABELS
    (tmp_path / "b").mkdir()
    turned = FIVE_LABELS[::-1]
    assert labels_of(write(tmp_path / "b", name, splits_of(turned), turned)) == turned


def test_they_become_the_configs_labels(tmp_path: Path) -> None:
    folder = write(tmp_path, "coco")
    config = configure(["dataset=directory", f"dataset.path={folder}", "dataset.labels=auto"]).dataset
    assert config.labels == FIVE_LABELS


def write_categories(folder: Path, categories: list[dict[str, Any]], used: list[int] | None = None) -> Path:
    """A COCO export with these categories in each split, and annotations of train's with these ids."""
    picture = [Picture("volume_1_slice_1.jpg")]
    write(folder, "coco", dict.fromkeys(SPLITS, picture), [])
    for split in SPLITS:
        path = folder / "export" / split / "_annotations.coco.json"
        annotations = [{"image_id": 0, "category_id": each, "bbox": [1, 1, 2, 2]} for each in used or []]
        content = {"images": [], "categories": categories, "annotations": annotations}
        path.write_text(json.dumps(content))
    return folder / "export"


def category(number: Any, name: str, parent: Any = "none") -> dict[str, Any]:
    return {"id": number, "name": name, "supercategory": parent}


# Categories, the ids used by annotations, and the resulting labels.
CATEGORIES: dict[str, tuple[list[dict[str, Any]], list[int], list[str]]] = {
    "Roboflow's": (
        [category(0, "project"), category(1, "b", "project"), category(2, "a", "project")],
        [1],
        ["b", "a"],
    ),
    "the project is named as its label": (
        [category(0, "tumor"), category(1, "tumor", "tumor")],
        [1],
        ["tumor"],
    ),
    "a parent with boxes": ([category(1, "tumor"), category(2, "core", "tumor")], [1, 2], ["tumor", "core"]),
    "its own parent": (
        [category(1, "person", "person"), category(2, "car", "vehicle")],
        [],
        ["person", "car"],
    ),
    "ids as texts, unsorted": ([category("10", "c"), category("9", "b"), category(-1, "a")], [], list("abc")),
    "one name, two ids": ([category(3, "a"), category(1, "b"), category(2, "a")], [], ["b", "a"]),
    "a parent that is not text": ([category(1, "a", {}), category(2, "b", None)], [], ["a", "b"]),
}


@pytest.mark.parametrize(("categories", "used", "labels"), CATEGORIES.values(), ids=CATEGORIES)
def test_a_category_that_is_only_a_parent_is_not_a_label(
    tmp_path: Path, categories: list[dict[str, Any]], used: list[int], labels: list[str]
) -> None:
    assert labels_of(write_categories(tmp_path, categories, used)) == labels


def test_the_categories_of_all_splits_count(tmp_path: Path) -> None:
    folder = write_categories(tmp_path, [category(2, "b")])
    edit_json(folder, lambda content: content.update(categories=[category(1, "a"), category(3, "c")]))
    assert labels_of(folder) == ["a", "b", "c"]


def test_label_maps_with_all_possible_fields(tmp_path: Path) -> None:
    folder = write(tmp_path, "tfrecord")
    for split in SPLITS:
        (folder / split / "project_label_map.pbtxt").write_text(
            "# by hand\nitem: < id: 2 name: 'b' display_name: \"B\" >\n"
            'item {\n  name: "a",\n  id: 1,\n  keypoints { id: 3 label: "x" }\n}\n'
        )
    assert labels_of(folder) == ["a", "b"]


@pytest.mark.parametrize("name", ["tensorflow", "voc"])
def test_a_format_without_declared_labels_has_those_of_its_boxes(tmp_path: Path, name: str) -> None:
    labels = ["label10", "label2", "tumor-core", "Edema_2"]
    folder = write(tmp_path, name, splits_of(labels), labels)

    assert labels_of(folder) == ["Edema_2", "label2", "label10", "tumor-core"]


def test_rows_that_are_not_a_box_of_an_image_define_no_label(tmp_path: Path) -> None:
    good, bad = "volume_1_slice_1.jpg", "volume_1_slice_2.jpg"
    rows = [f"{good},40,30,tumor,1,1,2,2", "absent.jpg,40,30,other,1,1,2,2"]
    rows += [f"{bad},40,30,{label},1,1,2,2" for label in ("", " a", "macro", "x" * 101, "a\tb")]
    folder = write_export(tmp_path / "export", train=rows)

    assert labels_of(folder) == ["tumor"]


def test_an_export_without_boxes_has_no_labels(tmp_path: Path) -> None:
    message = refusal_of(write_export(tmp_path / "export"))
    assert "none of its boxes has a usable label; give the names, as in dataset.labels=[" in message


def test_too_many_names_are_refused(tmp_path: Path) -> None:
    rows = [f"volume_1_slice_1.jpg,40,30,{n},1,1,2,2" for n in range(MOST_LABELS + 1)]
    folder = write_export(tmp_path / "export", train=rows)

    assert f"its boxes have {MOST_LABELS + 1} different labels" in refusal_of(folder)


def test_records_without_a_label_map_have_their_boxes_labels(tmp_path: Path) -> None:
    labels = ["a", "b"]
    folder = write(tmp_path, "tfrecord", splits_of(labels), labels)
    for path in folder.glob("*/*.pbtxt"):
        path.unlink()

    assert labels_of(folder) == ["a", "b"]


PBTXT = "train/project_label_map.pbtxt"
DEFECTS: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "COCO: no JSON": ("coco", put_bytes("train/_annotations.coco.json", b"{"), "is not JSON"),
    "COCO: a number with two names": (
        "coco",
        lambda folder: edit_json(folder, lambda content: content["categories"][1].update(name="other")),
        "gives two labels the number 1, 'other' and 'glioma, grade IV'",
    ),
    "COCO: an id that is not a number": (
        "coco",
        lambda folder: edit_json(folder, lambda content: content["categories"][1].update(id="x")),
        "the category 'glioma, grade IV' has the id 'x', which is not a number",
    ),
    "YOLO: no data.yaml": ("yolo", lambda folder: (folder / "data.yaml").unlink(), "has no data.yaml"),
    "TFRecord: no label map": ("tfrecord", put_bytes(PBTXT, b"\xff"), "is not a readable label map"),
    "TFRecord: an id that is not a number": (
        "tfrecord",
        put_bytes(PBTXT, b"item { name: 'a' id: 'b' }"),
        "is not a readable label map",
    ),
    "TFRecord: no UTF-8": (
        "tfrecord",
        put_bytes(PBTXT, b"item {\n  \x80name: 'a' }"),
        "is not a readable label map",
    ),
    "TFRecord: nested": ("tfrecord", put_bytes(PBTXT, b"item { a {" * 9000), "is not a readable label map"),
    "TFRecord: no name": ("tfrecord", put_bytes(PBTXT, b"item { id: 1 }"), "item 1 has no name or no id"),
    "two formats": ("coco", put_bytes("valid/_annotations.csv", b""), "several formats"),
}


@pytest.mark.parametrize(("name", "spoil", "words"), DEFECTS.values(), ids=DEFECTS)
def test_unreadable_declarations_are_one_sentence(
    tmp_path: Path, name: str, spoil: Callable[[Path], Any], words: str
) -> None:
    folder = write(tmp_path, name)
    spoil(folder)
    assert words in refusal_of(folder)


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("macro", "is 'macro', which is reserved for figures over all labels"),
        ("a\nb", r"is 'a\nb', which has an invisible character"),
        ("x" * 101, "has 101 characters"),
        (" a", "is ' a'; give a name without spaces around it"),
    ],
)
def test_an_invalid_declared_name_is_refused(tmp_path: Path, label: str, words: str) -> None:
    folder = write_categories(tmp_path, [category(1, "good"), category(2, label)])
    assert f"{folder} declares labels that cannot be used: dataset.labels.1 {words}" in refusal_of(folder)


def test_they_are_the_default_of_a_folder_and_an_archive_in_a_bucket(
    tmp_path: Path, google_bucket: GoogleBucket
) -> None:
    folder = write(tmp_path, "coco")
    google_bucket.put(
        "export.zip", Path(shutil.make_archive(str(tmp_path / "a"), "zip", folder)).read_bytes()
    )

    assert configure(["dataset=directory", f"dataset.path={folder}"]).dataset.labels == FIVE_LABELS
    at = "gs://bucket/export.zip"
    assert configure(["dataset=bucket", f"dataset.uri={at}"]).dataset.labels == FIVE_LABELS
    assert ingest(directory_config(folder, labels="auto"), tmp_path / "out").dataset.manifest.labels == (
        FIVE_LABELS
    )


def test_synthetic_labels_are_known_and_those_at_roboflow_must_be_given() -> None:
    assert read_labels(compose(["dataset.labels=auto"]).dataset) == ["label0", "label1", "label2"]
    with pytest.raises(InputError, match="each time a run is composed; give the names, as in"):
        read_labels(compose(["dataset=roboflow", "dataset.labels=auto"]).dataset)


def test_a_message_names_the_bucket_and_no_temporary_folder(google_bucket: GoogleBucket) -> None:
    google_bucket.put("export/train/a.txt", b"")
    config = compose(["dataset=bucket", "dataset.uri=gs://bucket/export"]).dataset
    with pytest.raises(InputError) as caught:
        read_labels(config)
    assert str(caught.value).startswith("gs://bucket/export has no annotations of a known format")


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    config = DirectoryDataset(source="directory", path=str(tmp_path / "gone"))
    with pytest.raises(InputError, match="gone does not exist"):
        read_labels(config)
