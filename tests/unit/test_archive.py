import io
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brain_tumor.ingest.sources.archive import BrokenArchiveError, unpack
from brain_tumor.runtime.errors import InputError


def pack(files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def pack_link() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        link = zipfile.ZipInfo("train/link.jpg")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    return buffer.getvalue()


WHOLE = pack({"train/a.jpg": b"a" * 5000, "train/_annotations.csv": b"filename\n", "README.txt": b"r"})


def unpack_bytes(folder: Path, content: bytes) -> Path:
    (folder / "a.zip").write_bytes(content)
    return unpack(folder / "a.zip", folder / "export", "The archive")


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_an_archive_is_unpacked(tmp_path: Path) -> None:
    export = unpack_bytes(tmp_path, WHOLE)
    assert export == tmp_path / "export"
    assert files_of(export) == {
        "train/a.jpg": b"a" * 5000,
        "train/_annotations.csv": b"filename\n",
        "README.txt": b"r",
    }


@pytest.mark.parametrize(
    ("names", "below"),
    [
        (["a/b/train/x.jpg", "a/b/test/x.jpg"], "a/b"),
        (["a/train/x.jpg", "a/data.yaml"], "a"),
        (["a/train/x.jpg", "__MACOSX/a/._x.jpg"], "a"),
        (["train/images/x.jpg"], ""),
        (["val/x.jpg"], ""),
        (["a/train/x.jpg", "README.txt", ".DS_Store"], "a"),
        (["a/images/train/x.jpg", "a/labels/train/x.txt", "b/readme.txt"], "a"),
        (["a\\train\\x.jpg", "a\\test\\", "a\\test\\y.jpg"], "a"),
    ],
)
def test_the_export_is_found_at_any_depth(tmp_path: Path, names: list[str], below: str) -> None:
    assert unpack_bytes(tmp_path, pack(dict.fromkeys(names, b"x"))) == tmp_path / "export" / below


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["export.zip"], "none of train/, valid/, test/ but another archive, export.zip; unpack that"),
        (["a/train.zip", "a/valid.zip"], "another archive, train.zip"),
        (["a.jpg"], "holds none of train/, valid/, test/; pack the folder of an export"),
        (["a/train/x.jpg", "b/test/x.jpg"], "holds several exports: a and b; pack one of them"),
    ],
)
def test_an_archive_without_an_export_is_refused(tmp_path: Path, names: list[str], words: str) -> None:
    with pytest.raises(InputError, match=f"The archive .*{words}"):
        unpack_bytes(tmp_path, pack(dict.fromkeys(names, b"x")))


@pytest.mark.parametrize(
    "name",
    ["../evil", "train/../../evil", "/evil", "..\\evil", "\\evil", "train/..", "../folder/", "a/../b.jpg"],
)
def test_a_path_outside_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "in" / "side"
    folder.mkdir(parents=True)
    with pytest.raises(InputError, match=r"The archive holds .*, a path outside of its folder"):
        unpack_bytes(folder, pack({"train/good.jpg": b"g", name: b"evil"}))
    assert files_of(tmp_path).keys() == {"in/side/a.zip"}


def test_a_link_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds 'train/link\.jpg', a link"):
        unpack_bytes(tmp_path, pack_link())
    assert files_of(tmp_path).keys() == {"a.zip"}


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flip(content: bytes) -> bytes:
    place = content.index(b"train/a.jpg") + 15  # within the compressed bytes
    return content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]


@pytest.mark.parametrize(
    "spoil", [cut, flip, lambda _: b"", lambda _: b"<html>Too many requests</html>", lambda zip_: zip_[100:]]
)
def test_a_broken_archive_has_its_own_error(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    with pytest.raises(BrokenArchiveError, match="The archive is not a complete zip archive"):
        unpack_bytes(tmp_path, spoil(WHOLE))


def test_an_archive_with_a_password_or_unknown_compression_is_refused(tmp_path: Path) -> None:
    # The flag and the compression method in both headers, local and central.
    packed = bytearray(pack({"a.jpg": b"a"}, zipfile.ZIP_STORED))
    for header, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        packed[packed.index(header) + at] |= 1
    with pytest.raises(InputError, match=r"cannot be unpacked .*password"):
        unpack_bytes(tmp_path, bytes(packed))
    packed = bytearray(pack({"a.jpg": b"a"}, zipfile.ZIP_STORED))
    for header, at in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        packed[packed.index(header) + at] = 97
    (tmp_path / "export").rmdir()
    with pytest.raises(InputError, match=r"cannot be unpacked .*compression"):
        unpack_bytes(tmp_path, bytes(packed))


@pytest.mark.parametrize("names", [["a", "a/b"], ["n" * 300]])
def test_invalid_file_names_are_one_sentence(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(InputError, match=r"The archive: .*; give a (shorter name|folder)"):
        unpack_bytes(tmp_path, pack(dict.fromkeys(names, b"x")))


def test_an_archive_that_does_not_fit_on_the_disk_is_refused(tmp_path: Path) -> None:
    packed = bytearray(pack({"a.jpg": b"a"}, zipfile.ZIP_STORED))
    place = packed.index(b"PK\x01\x02") + 24  # the size unpacked
    packed[place : place + 4] = (0xFFFFFFFE).to_bytes(4, "little")
    many = bytes(packed[: packed.index(b"PK\x01\x02")])
    entry = bytes(packed[packed.index(b"PK\x01\x02") : packed.index(b"PK\x05\x06")])
    number = 60_000  # of 4 GB each: 258 TB
    end = bytearray(packed[packed.index(b"PK\x05\x06") :])
    end[8:10] = end[10:12] = number.to_bytes(2, "little")
    end[12:16] = (len(entry) * number).to_bytes(4, "little")
    with pytest.raises(InputError, match=r"The archive needs 257\d{3}\.\d GB unpacked, .* set TMPDIR"):
        unpack_bytes(tmp_path, many + entry * number + bytes(end))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=12))
def test_no_broken_archive_gives_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]]
) -> None:
    content = bytearray(WHOLE)
    for place, value in changes:
        content[place] = value
    folder = tmp_path_factory.mktemp("zip")
    try:
        unpack_bytes(folder, bytes(content))
    except InputError as error:
        assert "The archive" in str(error)
