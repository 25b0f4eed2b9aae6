import os
import shutil
from pathlib import Path

import pytest
from buckets import object_names, put
from gcp_storage_emulator.server import Server

from brain_tumor.runtime.errors import InputError
from brain_tumor.stores.locations import check_writable, fingerprint


def test_a_fingerprint_follows_names_and_content_not_the_place(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    (folder / "train").mkdir(parents=True)
    (folder / "train" / "one.jpg").write_bytes(b"1")
    (folder / "train" / "two.jpg").write_bytes(b"2")
    seen = [fingerprint(folder)]

    shutil.copytree(folder, tmp_path / "b")
    os.utime(tmp_path / "b" / "train" / "one.jpg", (0, 0))
    assert fingerprint(tmp_path / "b") == seen[0]

    (folder / "train" / "two.jpg").write_bytes(b"3")
    seen.append(fingerprint(folder))
    (folder / "train" / "two.jpg").rename(folder / "train" / "three.jpg")
    seen.append(fingerprint(folder))
    (folder / "train" / "three.jpg").unlink()
    seen.append(fingerprint(folder))
    assert len(set(seen)) == 4
    assert "" not in seen


def test_the_fingerprint_of_a_file_and_of_nothing(tmp_path: Path) -> None:
    file = tmp_path / "weights.h5"
    assert fingerprint(file) == ""
    file.write_bytes(b"1")
    first = fingerprint(file)
    file.write_bytes(b"2")
    assert first and fingerprint(file) not in ("", first)


def test_what_cannot_be_written_to_is_told_beforehand(emulator: Server, tmp_path: Path) -> None:
    check_writable("gs://bucket/models")
    check_writable(str(tmp_path / "new"))
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(InputError, match=r"file/models cannot be written: Not a directory"):
        check_writable(str(tmp_path / "file" / "models"))
    with pytest.raises(InputError, match="gs://nowhere/models: there is no such bucket"):
        check_writable("gs://nowhere/models")


def test_the_fingerprint_of_a_bucket_downloads_nothing(emulator: Server) -> None:
    put("data/train/one.jpg", b"1")
    put("data.zip", b"1")
    put("copy/train/one.jpg", b"1")
    for name in object_names(emulator):
        emulator._storage._store.remove_file(f"bucket/{name}")  # only what the bucket says of them is left
    assert (
        fingerprint("gs://bucket/data")
        == fingerprint("gs://bucket/copy/")
        != fingerprint("gs://bucket/data.zip")
    )
    assert fingerprint("gs://bucket/nothing") == ""
    with pytest.raises(InputError, match="gs://nowhere: there is no such bucket"):
        fingerprint("gs://nowhere")
