import shutil
from pathlib import Path

import pytest

from brain_tumor.runtime.errors import InputError
from tests.unit.exports import write_export, write_image, write_rows
from tests.unit.validated import BAD, boxes_of, check, quarantined


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
def test_a_row_whose_image_is_missing_is_ignored(tmp_path: Path, name: str, kind: str, words: str) -> None:
    row = f"{name},40,30,label1,5,5,10,20"
    folder = write_export(tmp_path / "export", test=[row])

    result = check(folder)

    (finding,) = result.findings
    assert (finding.split, finding.file, finding.row, finding.kind) == ("test", name, 2, kind)
    assert finding.action == "row ignored"
    assert words in finding.message
    assert quarantined(result) == []
    assert boxes_of(result) == []


def test_an_absolute_path_is_ignored_even_if_it_is_an_image(tmp_path: Path) -> None:
    folder = write_export(tmp_path / "export")
    target = folder / "train" / "volume_1_slice_1.jpg"
    write_rows(folder, "train", [f"{target},40,30,label1,5,5,10,20"])

    result = check(folder)

    assert [(finding.kind, finding.row) for finding in result.findings] == [("path_in_filename", 2)]
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
    good = [f"volume_1_slice_1.jpg,40,30,label{label % 3},1,1,9,9" for label in range(14)]
    rows = [f"{BAD},40,30,tumor,1,1,2,2", f"{BAD},40,30,label1,1,1,2,99"]
    rows += ["absent.jpg,40,30,label1,1,1,2,2"] * 2
    folder = write_export(tmp_path / "export", train=[*rows, *good])
    (folder / "test" / "volume_4_slice_1.jpg").write_bytes(b"")

    with pytest.raises(InputError) as caught:
        check(folder, max_bad_fraction=0.23)
    message = str(caught.value)
    assert "3 of 13 images (23.1%) are unusable" in message
    assert "max_bad_fraction allows (23.0%)" in message
    assert "train/_annotations.csv row 4 names absent.jpg" in message
    assert f"train/_annotations.csv row 2: {BAD} has the label 'tumor'" in message
    assert "volume_4_slice_1.jpg" not in message  # only the first few are quoted

    assert sum(finding.bad for finding in check(folder, max_bad_fraction=3 / 13).findings) == 5


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


def test_annotations_that_match_no_image_count_each(tmp_path: Path) -> None:
    good = ["volume_1_slice_1.jpg,40,30,label0,1,1,9,9"]
    folder = write_export(tmp_path / "export", train=good + [",40,30,label0,1,1,9,9"] * 19)

    with pytest.raises(InputError, match=r"19 of 31 images \(61\.3%\) are unusable"):
        check(folder, max_bad_fraction=0.6)
    # Few compared with the images, but nearly all of the export's annotations.
    with pytest.raises(InputError, match=r"19 of 20 annotations \(95\.0%\) are unusable"):
        check(folder, max_bad_fraction=0.94)
    check(folder, max_bad_fraction=0.95)


def test_annotations_of_bad_images_are_lost(tmp_path: Path) -> None:
    rows = [f"volume_1_slice_1.jpg,40,30,label{label},1,1,9,9" for label in range(3)]
    folder = write_export(tmp_path / "export", train=rows, test=["volume_4_slice_1.jpg,40,30,label0,1,1,9,9"])
    (folder / "train" / "volume_1_slice_1.jpg").write_bytes(b"")

    with pytest.raises(
        InputError, match=r"3 of 4 annotations \(75\.0%\) are unusable.*slice_1\.jpg cannot be"
    ):
        check(folder, max_bad_fraction=0.5)


def test_unusable_images_count(tmp_path: Path) -> None:
    folder = write_export(tmp_path / "export")
    (folder / "test" / "a.tiff").write_bytes(b"")
    (folder / "test" / "b.jpg").symlink_to(folder / "nowhere.jpg")

    with pytest.raises(
        InputError, match=r"2 of 14 images \(14\.3%\) are unusable.*a\.tiff is not a JPEG or PNG"
    ):
        check(folder, max_bad_fraction=0.14)
    assert len(check(folder, max_bad_fraction=2 / 14).images) == 12


def test_an_unknown_label_suggests_naming_it_and_messages_are_short(tmp_path: Path) -> None:
    label = "x" * 10_000
    rows = [f"volume_1_slice_1.jpg,40,30,{label},1,1,9,9", f"{label}.jpg,40,30,label0,1,1,9,9"]
    folder = write_export(tmp_path / "export", train=[*rows, f"{label}/a.jpg,40,30,label0,1,1,9,9"])

    with pytest.raises(
        InputError, match=r"Name all labels in dataset\.labels, fix the export or raise"
    ) as caught:
        check(folder, max_bad_fraction=0.0, labels=[f"label{number}" for number in range(100)])

    assert len(str(caught.value)) < 2000
