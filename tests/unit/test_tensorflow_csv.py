from pathlib import Path

import pytest

from brain_tumor.ingest.export import ExportSplit
from brain_tumor.ingest.findings import QUARANTINED, ROW_IGNORED
from brain_tumor.ingest.formats.registry import read_export
from brain_tumor.runtime.errors import InputError
from tests.unit.exports import FAULTS, HEADER, write_export, write_rows

# Readable, but incomplete: the split method decides whether that is enough.
READABLE = ["split missing"]


def read_train(folder: Path) -> ExportSplit:
    return read_export(folder, folder.parent).splits[0]


def test_reads_images_and_boxes_of_the_three_splits(tmp_path: Path) -> None:
    write_export(tmp_path / "export", train=["volume_1_slice_2.jpg,40,30,label1,1,2,3.5,4"])

    export = read_export(tmp_path / "export", tmp_path)

    assert export.format == "tensorflow"
    assert [split.name for split in export.splits] == ["train", "valid", "test"]
    train = export.splits[0]
    assert train.folder == tmp_path / "export" / "train"
    assert train.images == [
        f"volume_{patient}_slice_{index}.jpg" for patient in (1, 2) for index in (1, 2, 3)
    ]
    assert train.boxes.to_dict("records") == [
        {
            "filename": "volume_1_slice_2.jpg",
            "label": "label1",
            "xmin": 1.0,
            "ymin": 2.0,
            "xmax": 3.5,
            "ymax": 4.0,
            "width": 40.0,
            "height": 30.0,
            "source": "train/_annotations.csv",
            "row": 2,
        }
    ]
    assert [len(split.boxes) for split in export.splits[1:]] == [0, 0]


def test_a_column_has_its_type_even_with_few_rows(tmp_path: Path) -> None:
    write_export(tmp_path / "export", train=["volume_1_slice_2.jpg,40,30,label1,1,2,3,4"])

    types = [dict(split.boxes.dtypes) for split in read_export(tmp_path / "export", tmp_path).splits]

    assert types[0] == types[1]
    assert {name for name, kind in types[0].items() if kind == "float64"} == {
        "xmin",
        "ymin",
        "xmax",
        "ymax",
        "width",
        "height",
    }


def test_missing_splits_are_left_out(tmp_path: Path) -> None:
    folder = write_export(tmp_path / "export")
    FAULTS["split missing"][0](folder)

    assert [split.name for split in read_export(folder, tmp_path).splits] == ["train", "test"]


def test_rows_are_numbered_like_lines_in_an_editor(tmp_path: Path) -> None:
    folder = write_export(tmp_path / "export")
    lines = [HEADER, "a.jpg,1,1,l,0,0,1,1", "", 'b.jpg,1,1,"l, ""m""",0,0,1,1', "volume_1_slice_2.jpg,1"]
    # As saved by a spreadsheet: a byte order mark and Windows line endings.
    (folder / "train" / "_annotations.csv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())

    train = read_train(folder)

    assert list(train.boxes["row"]) == [2, 4]
    assert list(train.boxes["label"]) == ["l", 'l, "m"']
    assert [finding.row for finding in train.findings] == [5]


def test_columns_are_found_by_name(tmp_path: Path) -> None:
    folder = write_export(tmp_path / "export")
    columns = [*reversed(HEADER.split(",")), "confidence"]
    (folder / "train" / "_annotations.csv").write_text(
        f"{','.join(columns)}\n4,3,2,1,label0,30,40,a.jpg,0.5\n"
    )

    (row,) = read_train(folder).boxes.to_dict("records")

    assert (row["filename"], row["label"], row["xmin"], row["ymax"]) == ("a.jpg", "label0", 1, 4)
    assert (row["width"], row["height"]) == (40, 30)


@pytest.mark.parametrize(
    ("row", "kind", "words"),
    [
        ("{},40,30,label0,1,1,2", "malformed_row", "has 7 values where the header has 8"),
        ("{},40,30,label0,1,1,2,2,2", "malformed_row", "has 9 values where the header has 8"),
        ("{},40,,label0,1,1,2,2", "not_a_number", "has height '', which is not a number"),
        ("{},40,30,label0,x,1,2,nan", "not_a_number", "has xmin 'x', ymax 'nan', which is not a number"),
        ("{},40,30,label0,1,1,inf,2", "not_a_number", "has xmax 'inf'"),
        ("{},40,30,label0,1,1,2," + "9" * 400, "not_a_number", "has ymax '9999"),
        ("{},40,30,label0,1,1,2," + "z" * 4000, "not_a_number", "zz…'"),
    ],
)
def test_a_bad_row_is_a_finding(tmp_path: Path, row: str, kind: str, words: str) -> None:
    folder = write_export(tmp_path / "export")
    good = "volume_1_slice_1.jpg,40,30,label0,1,1,2,2"
    write_rows(folder, "train", [row.format("volume_1_slice_2.jpg"), good, row.format("gone.jpg")])

    train = read_train(folder)

    assert list(train.boxes["filename"]) == ["volume_1_slice_1.jpg"]
    assert [(finding.kind, finding.row, finding.action) for finding in train.findings] == [
        (kind, 2, QUARANTINED),
        (kind, 4, ROW_IGNORED),
    ]
    message = train.findings[0].message
    assert message.startswith("train/_annotations.csv row 2: volume_1_slice_2.jpg has ")
    assert words in message
    assert len(message) < 200


def test_other_files_are_named_and_unusable_images_are_bad(tmp_path: Path) -> None:
    folder = write_export(tmp_path / "export")
    (folder / "train" / "a.bmp").write_bytes(b"")
    (folder / "train" / "b.jpg").mkdir()
    (folder / "train" / "c.jpg").symlink_to(folder / "nowhere.jpg")
    (folder / "train" / "d.jpg").symlink_to(folder / "train" / "d.jpg")
    (folder / "train" / "notes.txt").write_bytes(b"")
    (folder / "train" / "C.JPEG").write_bytes(b"")
    (folder / "train" / "D.PNG").write_bytes(b"")
    # Files left by programs.
    for name in (".DS_Store", "._C.JPEG", "classes.txt", "Thumbs.db"):
        (folder / "train" / name).write_bytes(b"")

    train = read_train(folder)

    assert [(finding.file, finding.kind, finding.bad) for finding in train.findings] == [
        ("a.bmp", "unusable_image", True),
        ("b.jpg", "unusable_image", True),
        ("c.jpg", "unusable_image", True),
        ("d.jpg", "unusable_image", True),
        ("notes.txt", "other_file", False),
    ]
    assert train.images[:2] == ["C.JPEG", "D.PNG"]


def test_a_quote_that_swallows_rows_is_refused(tmp_path: Path) -> None:
    folder = write_export(tmp_path / "export")
    good = "volume_1_slice_1.jpg,40,30,label0,1,1,2,2"
    # As CSV, rows 3 to 5 are one row of eight values, whose label spans three lines.
    write_rows(folder, "train", [good, 'a.jpg,40,30,"label0', good, 'label0",1,1,2,2', good])

    with pytest.raises(InputError, match=r"train/_annotations.csv row 3 has a quoted value that continues"):
        read_export(folder, tmp_path)


def test_a_column_given_twice_is_refused(tmp_path: Path) -> None:
    folder = write_export(tmp_path / "export")
    (folder / "train" / "_annotations.csv").write_text(f"{HEADER},xmin\n")

    with pytest.raises(InputError, match=r"_annotations.csv row 1 has the column xmin twice"):
        read_export(folder, tmp_path)


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault not in READABLE])
def test_a_broken_structure_is_one_sentence(tmp_path: Path, fault: str) -> None:
    folder = write_export(tmp_path / "export")
    break_it, words = FAULTS[fault]
    break_it(folder)

    with pytest.raises(InputError) as caught:
        read_export(folder, tmp_path)

    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message
    assert message.endswith(".")
