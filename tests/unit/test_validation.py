from collections.abc import Callable
from pathlib import Path

import pytest
from exports import directory_config, write_export, write_image, write_rows
from PIL import Image

from brain_tumor.data.annotations import read_export
from brain_tumor.data.validation import Box, Validation, validate
from brain_tumor.errors import InputError

BAD = "volume_1_slice_2.jpg"


def check(folder: Path, **config: object) -> Validation:
    return validate(read_export(folder), directory_config(folder, **config))


def test_good_images_keep_their_boxes_and_negatives_are_good(tmp_path: Path) -> None:
    rows = ["volume_1_slice_2.jpg,40,30,label2,0,0,40,30", "volume_1_slice_2.jpg,40,30,label0,1.5,2,3,4"]
    folder = write_export(tmp_path / "export", train=rows)

    result = check(folder)

    assert result.findings == []
    assert result.quarantined == []
    boxes = {(sample.split, sample.filename): sample.boxes for sample in result.samples}
    assert len(boxes) == 12
    assert boxes.pop(("train", "volume_1_slice_2.jpg")) == {
        "label0": (1.5, 2.0, 3.0, 4.0),
        "label2": (0.0, 0.0, 40.0, 30.0),
    }
    assert set(map(len, boxes.values())) == {0}
    assert {(sample.width, sample.height) for sample in result.samples} == {(40, 30)}


@pytest.mark.parametrize(
    ("values", "kind", "words"),
    [
        ("40,30,label1,5,5,41,20", "box_outside_image", "outside its 40 x 30 pixels"),
        ("40,30,label1,5,5,20,30.5", "box_outside_image", "outside its 40 x 30 pixels"),
        ("40,30,label1,-1,5,20,20", "box_outside_image", "(-1, 5, 20, 20)"),
        ("40,30,label1,5,-0.1,20,20", "box_outside_image", "(5, -0.1, 20, 20)"),
        ("40,30,label1,5,5,5,20", "box_without_area", "without area (5, 5, 5, 20)"),
        ("40,30,label1,5,20,10,5", "box_without_area", "without area (5, 20, 10, 5)"),
        ("40,30,label1,nan,5,10,20", "not_a_number", "xmin 'nan'"),
        ("40,30,label1,5,5,10,inf", "not_a_number", "ymax 'inf'"),
        ("40,30,label1,5,five,,20", "not_a_number", "ymin 'five', xmax ''"),
        ("wide,30,label1,5,5,10,20", "not_a_number", "width 'wide'"),
        ("40,30,tumor,5,5,10,20", "unknown_label", "label 'tumor', which is none of label0, label1, label2"),
        ("40,30,,5,5,10,20", "unknown_label", "label ''"),
        ("30,40,label1,5,5,10,20", "size_mismatch", "is 40 x 30 pixels, not 30 x 40"),
        ("40,30,label1,5,5,10", "malformed_row", "7 values where the header has 8"),
        ("40,30,label1,5,5,10,20,9", "malformed_row", "9 values where the header has 8"),
    ],
)
def test_a_bad_row_makes_its_image_bad(tmp_path: Path, values: str, kind: str, words: str) -> None:
    good = "40,30,label0,5,5,10,20"
    folder = write_export(
        tmp_path / "export", train=[f"volume_1_slice_1.jpg,{good}", f"{BAD},{good}", f"{BAD},{values}"]
    )

    result = check(folder)

    (finding,) = result.findings
    assert (finding.split, finding.file, finding.row, finding.kind) == ("train", BAD, 4, kind)
    assert finding.action == "image quarantined"
    assert finding.message.startswith(f"train/_annotations.csv row 4: {BAD} ")
    assert words in finding.message
    assert result.quarantined == [("train", BAD)]
    assert BAD not in {sample.filename for sample in result.samples}
    assert len(result.samples) == 11


def test_a_box_is_judged_by_the_actual_size_not_the_rows(tmp_path: Path) -> None:
    folder = write_export(tmp_path / "export", train=[f"{BAD},400,300,label1,5,5,100,20"])

    kinds = [finding.kind for finding in check(folder).findings]

    assert kinds == ["box_outside_image", "size_mismatch"]


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def _png(path: Path) -> None:
    Image.new("L", (40, 30)).save(path, "PNG")


@pytest.mark.parametrize(
    ("break_it", "reason"),
    [
        (_truncated, "truncated"),
        (lambda path: path.write_bytes(b""), "it is empty"),
        (lambda path: path.write_bytes(b"<html>404</html>"), "it is no JPEG"),
        (_png, "it is no JPEG"),
    ],
    ids=["truncated", "empty", "text", "PNG"],
)
def test_an_image_that_cannot_be_decoded_is_bad(
    tmp_path: Path, break_it: Callable[[Path], object], reason: str
) -> None:
    folder = write_export(tmp_path / "export", valid=["volume_3_slice_1.jpg,40,30,label1,5,5,10,20"])
    break_it(folder / "valid" / "volume_3_slice_1.jpg")

    result = check(folder)

    (finding,) = result.findings
    assert (finding.split, finding.file, finding.row) == ("valid", "volume_3_slice_1.jpg", None)
    assert finding.kind == "unreadable_image"
    assert finding.message.startswith("valid/volume_3_slice_1.jpg cannot be decoded (")
    assert reason in finding.message
    assert result.quarantined == [("valid", "volume_3_slice_1.jpg")]


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("absent.jpg", "missing_image", "row 2 names absent.jpg, which test/ lacks"),
        ("", "missing_image", "row 2 names no image"),
        (
            "../train/volume_1_slice_1.jpg",
            "path_in_filename",
            "row 2 names '../train/volume_1_slice_1.jpg', a path",
        ),
        ("..\\train\\volume_1_slice_1.jpg", "path_in_filename", ", a path"),
    ],
)
def test_a_row_whose_image_is_not_there_is_ignored(tmp_path: Path, name: str, kind: str, words: str) -> None:
    row = f"{name},40,30,label1,5,5,10,20"
    folder = write_export(tmp_path / "export", test=[row])

    result = check(folder)

    (finding,) = result.findings
    assert (finding.split, finding.file, finding.row, finding.kind) == ("test", name, 2, kind)
    assert finding.action == "row ignored"
    assert words in finding.message
    assert result.quarantined == []
    assert all(not sample.boxes for sample in result.samples)


def test_an_absolute_path_is_ignored_even_where_it_is_an_image(tmp_path: Path) -> None:
    folder = write_export(tmp_path / "export")
    target = folder / "train" / "volume_1_slice_1.jpg"
    write_rows(folder, "train", [f"{target},40,30,label1,5,5,10,20"])

    result = check(folder)

    assert [(finding.kind, finding.row) for finding in result.findings] == [("path_in_filename", 2)]
    assert all(not sample.boxes for sample in result.samples)


@pytest.mark.parametrize(
    ("policy", "action", "box"),
    [
        ("largest", "largest box kept", (10.0, 10.0, 30.0, 30.0)),
        ("union", "boxes united", (2.0, 3.0, 30.0, 30.0)),
    ],
)
def test_two_boxes_of_a_label_follow_the_policy(tmp_path: Path, policy: str, action: str, box: Box) -> None:
    rows = [f"{BAD},40,30,label1,2,3,12,13", f"{BAD},40,30,label0,1,1,2,2", f"{BAD},40,30,label1,10,10,30,30"]
    folder = write_export(tmp_path / "export", train=rows)

    result = check(folder, duplicate_boxes=policy, max_bad_fraction=0.0)

    (finding,) = result.findings
    assert (finding.row, finding.kind, finding.action, finding.bad) == (4, "duplicate_boxes", action, False)
    assert finding.message == f"train/_annotations.csv rows 2 and 4: {BAD} has 2 boxes of label1."
    boxes = next(sample.boxes for sample in result.samples if sample.filename == BAD)
    assert boxes == {"label0": (1.0, 1.0, 2.0, 2.0), "label1": box}


def test_two_boxes_of_a_label_can_be_an_error(tmp_path: Path) -> None:
    folder = write_export(tmp_path / "export", train=[f"{BAD},40,30,label1,2,3,12,13"] * 2)

    result = check(folder, duplicate_boxes="error")

    assert [(finding.row, finding.kind, finding.bad) for finding in result.findings] == [
        (3, "duplicate_boxes", True)
    ]
    assert result.quarantined == [("train", BAD)]


def test_other_files_are_listed_but_not_bad(tmp_path: Path) -> None:
    folder = write_export(tmp_path / "export")
    (folder / "test" / "notes.txt").write_text("hello")

    result = check(folder, max_bad_fraction=0.0)

    assert [(finding.file, finding.kind, finding.bad) for finding in result.findings] == [
        ("notes.txt", "other_file", False)
    ]


def test_too_many_bad_samples_stop_the_step(tmp_path: Path) -> None:
    # 12 images and 1 absent file: 2 bad images and the absent one, whose two rows count once, make 3 of 13.
    rows = [f"{BAD},40,30,tumor,1,1,2,2", f"{BAD},40,30,label1,1,1,2,99"]
    rows += ["absent.jpg,40,30,label1,1,1,2,2"] * 2
    folder = write_export(tmp_path / "export", train=rows)
    (folder / "test" / "volume_4_slice_1.jpg").write_bytes(b"")

    with pytest.raises(InputError) as caught:
        check(folder, max_bad_fraction=0.23)
    message = str(caught.value)
    assert "3 of 13 samples (23.1%) are bad" in message
    assert "max_bad_fraction allows (23.0%)" in message
    assert "train/_annotations.csv row 4 names absent.jpg" in message
    assert f"train/_annotations.csv row 2: {BAD} has the label 'tumor'" in message
    assert "volume_4_slice_1.jpg" not in message  # only the first few are quoted

    assert len(check(folder, max_bad_fraction=3 / 13).findings) == 5


def test_images_of_different_sizes_in_one_export(tmp_path: Path) -> None:
    folder = write_export(tmp_path / "export", train=[f"{BAD},64,20,label1,41,1,60,20"])
    write_image(folder / "train" / BAD, 64, 20)

    result = check(folder)

    assert result.findings == []
    assert next((s.width, s.height) for s in result.samples if s.filename == BAD) == (64, 20)


@pytest.mark.parametrize(
    ("key", "value"), [("duplicate_boxes", "smallest"), ("max_bad_fraction", 5.0), ("max_bad_fraction", -0.1)]
)
def test_a_config_that_makes_no_sense_is_refused(tmp_path: Path, key: str, value: object) -> None:
    folder = write_export(tmp_path / "export")

    with pytest.raises(InputError, match=f"dataset.{key} is .*{value}"):
        check(folder, **{key: value})
