from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from brain_tumor.artifacts.dataset import DatasetDraft
from brain_tumor.artifacts.folder import Draft
from brain_tumor.ingest.export import Export, ExportSplit
from brain_tumor.ingest.validation import validate
from tests.unit.exports import directory_config, write_export
from tests.unit.validated import BAD, SHAPE, boxes_of, check, quarantined


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
        (
            "40,30,tumor,5,5,10,20",
            "unknown_label",
            "label 'tumor', which is not one of label0, label1, label2",
        ),
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
    assert BAD not in result.images["filename"].tolist()
    assert len(result.images) == 11
    assert boxes_of(result) == [["volume_1_slice_1.jpg", "label0", 5, 5, 10, 20]]


def test_a_box_is_checked_against_the_actual_size_not_the_rows(tmp_path: Path) -> None:
    folder = write_export(tmp_path / "export", train=[f"{BAD},400,300,label1,5,5,100,20"])

    kinds = [finding.kind for finding in check(folder).findings]

    assert kinds == ["box_outside_image", "size_mismatch"]


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
    assert "beyond the edge of its 40 x 30 pixels" in finding.message
    assert boxes_of(result) == [[BAD, "label1", *clipped]]


def test_rounding_errors_of_a_text_file_are_clipped_silently(tmp_path: Path) -> None:
    folder = write_export(tmp_path / "export", train=[f"{BAD},40,30,label1,-0.00001,0,40.00001,30"])

    result = check(folder)

    assert result.findings == []
    assert boxes_of(result) == [[BAD, "label1", 0, 0, 40, 30]]


def test_an_annotation_without_size_and_row_is_checked_too(tmp_path: Path) -> None:
    """Some formats have neither; then the message names only the file."""
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

    draft = DatasetDraft(Draft(tmp_path / "copied"))
    result = validate(Export("yolo", [split]), directory_config(folder), draft)

    (finding,) = result.findings
    assert (finding.row, finding.kind) == (None, "unknown_label")
    assert finding.message.startswith(f"train/labels/{BAD}.txt: {BAD} has the label 'tumor'")
    assert quarantined(result) == [("train", BAD)]
    assert boxes_of(result) == [["volume_1_slice_1.jpg", "label0", 5, 5, 14, 14]]
