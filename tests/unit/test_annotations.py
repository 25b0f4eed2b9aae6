from pathlib import Path

import pytest
from exports import FAULTS, HEADER, write_export

from brain_tumor.data.annotations import read_export
from brain_tumor.errors import InputError


def test_reads_images_and_rows_of_the_three_splits(tmp_path: Path) -> None:
    row = "volume_1_slice_2.jpg,40,30,label1,1,2,3.5,4"
    write_export(tmp_path / "export", train=[row])

    splits = read_export(tmp_path / "export")

    assert [split.name for split in splits] == ["train", "valid", "test"]
    train = splits[0]
    assert train.images == [
        f"volume_{patient}_slice_{index}.jpg" for patient in (1, 2) for index in (1, 2, 3)
    ]
    assert [read.number for read in train.rows] == [2]
    assert train.rows[0].cells == dict(zip(HEADER.split(","), row.split(","), strict=True))
    assert [split.rows for split in splits[1:]] == [[], []]


def test_rows_are_numbered_as_an_editor_shows_them(tmp_path: Path) -> None:
    folder = write_export(tmp_path / "export")
    lines = [
        HEADER,
        "a.jpg,1,1,l,0,0,1,1",
        "",
        "b.jpg,1,1,l,0,0,1,1",
        '"c\nc.jpg",1,1,l,0,0,1,1',
        "d.jpg,1,1",
    ]
    # As a spreadsheet saves it: a byte order mark and Windows line ends.
    (folder / "train" / "_annotations.csv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())

    rows = read_export(folder)[0].rows

    assert [(row.number, row.cells["filename"]) for row in rows] == [
        (2, "a.jpg"),
        (4, "b.jpg"),
        (5, "c\nc.jpg"),
        (7, "d.jpg"),
    ]
    assert [row.length for row in rows] == [8, 8, 8, 3]


def test_columns_are_found_by_name(tmp_path: Path) -> None:
    folder = write_export(tmp_path / "export")
    columns = [*reversed(HEADER.split(",")), "confidence"]
    (folder / "train" / "_annotations.csv").write_text(
        f"{','.join(columns)}\n4,3,2,1,label0,30,40,a.jpg,0.5\n"
    )

    row = read_export(folder)[0].rows[0]

    assert (row.cells["filename"], row.cells["class"], row.cells["xmin"]) == ("a.jpg", "label0", "1")
    assert row.length == row.columns == 9


def test_what_is_no_jpeg_file_is_named(tmp_path: Path) -> None:
    folder = write_export(tmp_path / "export")
    (folder / "train" / "a.png").write_bytes(b"")
    (folder / "train" / "b.jpg").mkdir()
    (folder / "train" / "C.JPEG").write_bytes(b"")

    train = read_export(folder)[0]

    assert train.others == ["a.png", "b.jpg"]
    assert train.images[0] == "C.JPEG"


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_structure_is_one_sentence(tmp_path: Path, fault: str) -> None:
    folder = write_export(tmp_path / "export")
    break_it, words = FAULTS[fault]
    break_it(folder)

    with pytest.raises(InputError) as caught:
        read_export(folder)

    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message
    assert message.endswith(".")
