import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagehash
import numpy as np
import pandas as pd
import pytest
from exports import directory_config, write_export, write_image, write_rows
from PIL import Image

from brain_tumor.data.annotations import Export, ExportSplit, read_export
from brain_tumor.data.validation import IMAGES_A_TASK, Validation, validate
from brain_tumor.errors import InputError
from brain_tumor.storage import hash_files

BAD = "volume_1_slice_2.jpg"
SHAPE = ["filename", "label", "xmin", "ymin", "xmax", "ymax"]


def check(folder: Path, **config: Any) -> Validation:
    """Validates an export; its images go to `copied` beside it."""
    scratch, copied = folder.with_name("scratch"), folder.with_name("copied")
    for path in (scratch, copied):
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
    return validate(read_export(folder, scratch), directory_config(folder, **config), copied)


def boxes_of(result: Validation) -> list[list[Any]]:
    names = result.images["filename"].to_numpy()[result.boxes["image"]]
    return result.boxes.assign(filename=names)[SHAPE].to_numpy().tolist()


def quarantined(result: Validation) -> list[tuple[str, str]]:
    return list(result.quarantined.itertuples(index=False, name=None))


def names(result: Validation) -> list[str]:
    return result.images["filename"].tolist()


def test_good_images_keep_their_boxes_and_negatives_are_good(tmp_path: Path) -> None:
    rows = ["volume_1_slice_2.jpg,40,30,label2,0,0,40,30", "volume_1_slice_2.jpg,40,30,label0,1.5,2,3,4"]
    folder = write_export(tmp_path / "export", train=rows)

    result = check(folder)

    assert result.findings == []
    assert quarantined(result) == []
    assert boxes_of(result) == [
        ["volume_1_slice_2.jpg", "label0", 1.5, 2.0, 3.0, 4.0],
        ["volume_1_slice_2.jpg", "label2", 0.0, 0.0, 40.0, 30.0],
    ]
    assert result.images["split"].tolist() == ["train"] * 6 + ["valid"] * 3 + ["test"] * 3
    assert set(zip(result.images["width"], result.images["height"], strict=True)) == {(40, 30)}


def test_what_is_measured_of_an_image(tmp_path: Path) -> None:
    folder = write_export(tmp_path / "export")
    gradient = np.tile(np.arange(0, 240, 2, dtype=np.uint8), (90, 1))
    for name, pixels in {
        "grey.jpg": gradient,
        "grey_in_three_channels.jpg": np.stack([gradient] * 3, axis=-1),
        "color.jpg": np.stack([gradient, gradient, gradient[::-1, ::-1]], axis=-1),
    }.items():
        Image.fromarray(pixels).save(folder / "test" / name, "JPEG", quality=95)

    result = check(folder)

    images = result.images.set_index("filename")
    assert images.loc[["grey.jpg", "grey_in_three_channels.jpg", "color.jpg"], "grey"].tolist() == [
        True,
        True,
        False,
    ]
    histogram = np.zeros(256, int)
    for path in sorted(folder.glob("*/*.jpg")):
        row: Any = images.loc[path.name]
        assert row["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        with Image.open(path) as image:
            assert image.size == (row["width"], row["height"])
            grey = image.convert("L")
            whole = int(str(imagehash.phash(image)), 16)
        assert row["intensity"] == pytest.approx(np.asarray(grey).mean(), abs=1e-3)
        # The image is shrunk in two steps before it is hashed: a bit can differ.
        assert (whole ^ int(row["perceptual_hash"])).bit_count() <= 4, path.name
        histogram += np.bincount(np.asarray(grey).ravel(), minlength=256)
    np.testing.assert_array_equal(result.histogram, histogram)


def test_more_images_than_a_task_has(tmp_path: Path) -> None:
    """Tasks write into one table: each image's row must be its own, the bad ones' between them too."""
    folder = write_export(tmp_path / "export")
    for index in range(2 * IMAGES_A_TASK + 3):
        write_image(folder / "train" / f"{index:04}.jpg", 20 + index, 20)
    bad = ["0005.jpg", f"{IMAGES_A_TASK:04}.jpg", f"{2 * IMAGES_A_TASK + 1:04}.jpg"]
    for name in bad:
        (folder / "train" / name).write_bytes(b"no image")

    result = check(folder)

    assert quarantined(result) == [("train", name) for name in bad]
    train = result.images[result.images["split"] == "train"]
    assert len(train) == 2 * IMAGES_A_TASK + 3 - 3 + 6
    for image in train.itertuples():
        content = (folder / "train" / str(image.filename)).read_bytes()
        assert image.sha256 == hashlib.sha256(content).hexdigest()
        if image.filename[:4].isdecimal():
            assert image.width == 20 + int(image.filename[:4])


def test_images_are_copied_byte_for_byte(tmp_path: Path) -> None:
    folder = write_export(tmp_path / "export", train=[f"{BAD},40,30,tumor,1,1,2,2"])
    (folder / "valid" / "volume_3_slice_1.jpg").write_bytes(b"no image")

    check(folder)

    before = {name: digest for name, digest in hash_files(folder).items() if name.endswith(".jpg")}
    moved = hash_files(tmp_path / "copied" / "quarantine")
    assert sorted(moved) == [f"train/{BAD}", "valid/volume_3_slice_1.jpg"]
    assert hash_files(tmp_path / "copied" / "images") | moved == before


@pytest.mark.parametrize(
    ("values", "kind", "words"),
    [
        ("40,30,label1,5,5,41.1,20", "box_outside_image", "outside its 40 x 30 pixels"),
        ("40,30,label1,5,5,20,1e300", "box_outside_image", "(5, 5, 20, 1e+300) outside its 40 x 30 pixels"),
        ("40,30,label1,-1.5,5,20,20", "box_outside_image", "(-1.5, 5, 20, 20)"),
        ("40,30,label1,40,5,41,20", "box_outside_image", "(40, 5, 41, 20)"),
        ("40,30,label1,5,-0.5,20,0", "box_outside_image", "(5, -0.5, 20, 0)"),
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
    assert quarantined(result) == [("train", BAD)]
    assert BAD not in names(result)
    assert len(result.images) == 11
    assert boxes_of(result) == [["volume_1_slice_1.jpg", "label0", 5, 5, 10, 20]]


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
    assert quarantined(result) == [("valid", "volume_3_slice_1.jpg")]
    assert boxes_of(result) == []


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
    assert quarantined(result) == []
    assert boxes_of(result) == []


def test_an_absolute_path_is_ignored_even_where_it_is_an_image(tmp_path: Path) -> None:
    folder = write_export(tmp_path / "export")
    target = folder / "train" / "volume_1_slice_1.jpg"
    write_rows(folder, "train", [f"{target},40,30,label1,5,5,10,20"])

    result = check(folder)

    assert [(finding.kind, finding.row) for finding in result.findings] == [("path_in_filename", 2)]
    assert boxes_of(result) == []


@pytest.mark.parametrize(
    ("policy", "action", "box"),
    [
        ("largest", "largest box kept", [10.0, 10.0, 30.0, 30.0]),
        ("union", "boxes united", [2.0, 3.0, 30.0, 30.0]),
    ],
)
def test_two_boxes_of_a_label_follow_the_policy(
    tmp_path: Path, policy: str, action: str, box: list[float]
) -> None:
    rows = [f"{BAD},40,30,label1,2,3,12,13", f"{BAD},40,30,label0,1,1,2,2", f"{BAD},40,30,label1,10,10,30,30"]
    folder = write_export(tmp_path / "export", train=rows)

    result = check(folder, duplicate_boxes=policy, max_bad_fraction=0.0)

    (finding,) = result.findings
    assert (finding.row, finding.kind, finding.action, finding.bad) == (4, "duplicate_boxes", action, False)
    assert finding.message == f"train/_annotations.csv rows 2 and 4: {BAD} has 2 boxes of label1."
    assert boxes_of(result) == [[BAD, "label0", 1.0, 1.0, 2.0, 2.0], [BAD, "label1", *box]]


def test_two_boxes_of_a_label_can_be_an_error(tmp_path: Path) -> None:
    folder = write_export(tmp_path / "export", train=[f"{BAD},40,30,label1,2,3,12,13"] * 2)

    result = check(folder, duplicate_boxes="error")

    assert [(finding.row, finding.kind, finding.bad) for finding in result.findings] == [
        (3, "duplicate_boxes", True)
    ]
    assert quarantined(result) == [("train", BAD)]
    assert boxes_of(result) == []


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
    image = result.images.set_index("filename").loc[BAD]
    assert (image["width"], image["height"]) == (64, 20)


def test_an_unknown_policy_is_refused(tmp_path: Path) -> None:
    folder = write_export(tmp_path / "export")

    with pytest.raises(InputError, match=r"dataset\.duplicate_boxes is 'smallest'"):
        check(folder, duplicate_boxes="smallest")


@pytest.mark.parametrize(
    ("corners", "clipped"),
    [
        ("5,5,41,20", [5, 5, 40, 20]),
        ("-1,-0.5,20,20", [0, 0, 20, 20]),
        ("0,0,40.2,30.9", [0, 0, 40, 30]),
        ("-1,-1,41,31", [0, 0, 40, 30]),
    ],
)
def test_a_box_a_pixel_over_the_edge_is_clipped_and_counted(
    tmp_path: Path, corners: str, clipped: list[float]
) -> None:
    folder = write_export(tmp_path / "export", train=[f"{BAD},40,30,label1,{corners}"])

    result = check(folder, max_bad_fraction=0.0)

    (finding,) = result.findings
    assert (finding.file, finding.row, finding.kind, finding.bad) == (BAD, 2, "box_over_edge", False)
    assert finding.action == "box clipped"
    assert "over the edge of its 40 x 30 pixels" in finding.message
    assert boxes_of(result) == [[BAD, "label1", *clipped]]


def test_the_rounding_of_a_text_file_is_clipped_without_a_word(tmp_path: Path) -> None:
    folder = write_export(tmp_path / "export", train=[f"{BAD},40,30,label1,-0.00001,0,40.00001,30"])

    result = check(folder)

    assert result.findings == []
    assert boxes_of(result) == [[BAD, "label1", 0, 0, 40, 30]]


def test_the_same_bytes_and_the_same_name_are_listed_and_kept(tmp_path: Path) -> None:
    folder = write_export(tmp_path / "export")
    first = folder / "train" / "volume_1_slice_1.jpg"
    for copy in ("train/b.jpg", "train/c.jpg", "valid/volume_1_slice_1.jpg", "test/d.jpg", "test/e.jpg"):
        shutil.copy(first, folder / copy)
    write_image(folder / "test" / "volume_2_slice_1.jpg")  # a name of train, but other bytes

    result = check(folder, max_bad_fraction=0.0)

    assert len(result.images) == 12 + 6
    assert {finding.action for finding in result.findings} == {"image kept"}
    assert [(finding.kind, finding.message) for finding in result.findings] == [
        ("duplicate_image", "train/c.jpg has the same bytes as train/b.jpg."),
        ("duplicate_image", "train/volume_1_slice_1.jpg has the same bytes as train/b.jpg."),
        ("image_in_two_splits", "valid/volume_1_slice_1.jpg has the same bytes as train/b.jpg."),
        ("image_in_two_splits", "test/d.jpg has the same bytes as train/b.jpg."),
        ("duplicate_image", "test/e.jpg has the same bytes as test/d.jpg."),
        ("name_in_two_splits", "test/volume_2_slice_1.jpg has the same name as another image in train."),
    ]


def test_a_split_without_a_good_image_is_a_finding(tmp_path: Path) -> None:
    folder = write_export(tmp_path / "export")
    for path in (folder / "test").glob("*.jpg"):
        path.write_bytes(b"")

    kinds = [finding.kind for finding in check(folder).findings]

    assert kinds == ["empty_split", *["unreadable_image"] * 3]


def test_an_annotation_without_size_and_row_is_judged_too(tmp_path: Path) -> None:
    """Some formats say neither; then the message names the file alone."""
    folder = write_export(tmp_path / "export")
    rows = [("volume_1_slice_1.jpg", "label0", 5.0), (BAD, "tumor", 5.0), (BAD, "label0", 5.0)]
    boxes = pd.DataFrame(
        {
            "filename": [row[0] for row in rows],
            "label": [row[1] for row in rows],
            **{
                name: [row[2] + offset for row in rows]
                for name, offset in zip(SHAPE[2:], (0, 0, 9, 9), strict=True)
            },
            "width": np.nan,
            "height": np.nan,
            "source": [f"train/labels/{row[0]}.txt" for row in rows],
            "row": pd.array([pd.NA] * 3, "Int64"),
        }
    )
    images = sorted(path.name for path in (folder / "train").glob("*.jpg"))
    split = ExportSplit("train", folder / "train", images, boxes, [])

    result = validate(Export("yolo", [split]), directory_config(folder), tmp_path / "copied")

    (finding,) = result.findings
    assert (finding.row, finding.kind) == (None, "unknown_label")
    assert finding.message.startswith(f"train/labels/{BAD}.txt: {BAD} has the label 'tumor'")
    assert quarantined(result) == [("train", BAD)]
    assert boxes_of(result) == [["volume_1_slice_1.jpg", "label0", 5, 5, 14, 14]]
