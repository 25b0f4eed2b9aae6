import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from buckets import damage, object_names, put, read
from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.server import Server

from brain_tumor.errors import InputError
from brain_tumor.storage import (
    check_writable,
    download,
    fingerprint,
    publish,
    publish_copy,
    read_manifest,
    upload,
    write_file,
    write_json,
)


def make_artifact(path: Path, content: str = "content") -> Path:
    with publish(path, "model") as draft:
        (draft.path / "file.txt").write_text(content)
        draft.manifest = {"count": 1}
    return path


def test_an_artifact_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "artifact"

    with publish(path, "records") as draft:
        (draft.path / "inner").mkdir()
        (draft.path / "inner" / "file.bin").write_bytes(b"\x00\x01")
        (draft.path / "file.txt").write_text("content")
        draft.manifest = {"count": 2}
        assert not path.exists()

    assert [entry.name for entry in path.parent.iterdir()] == ["artifact"]
    assert (path / "inner" / "file.bin").read_bytes() == b"\x00\x01"
    manifest = read_manifest(path, "records")
    assert manifest["kind"] == "records"
    assert manifest["count"] == 2
    assert manifest["files"] == {
        "file.txt": hashlib.sha256(b"content").hexdigest(),
        "inner/file.bin": hashlib.sha256(b"\x00\x01").hexdigest(),
    }
    assert manifest["versions"]["brain-tumor"]
    assert path.stat().st_mode & 0o055 == 0o055, "another user must be able to read it"


def test_an_exception_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with publish(tmp_path / "artifact", "records") as draft:
            (draft.path / "file.txt").write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()

    assert list(tmp_path.iterdir()) == []


def test_an_artifact_is_replaced_only_by_a_whole_one(tmp_path: Path) -> None:
    path = make_artifact(tmp_path / "artifact", "old")

    def fail() -> None:
        with publish(path, "model") as draft:
            (draft.path / "other.txt").write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert (path / "file.txt").read_text() == "old"

    make_artifact(path, "new")
    assert (path / "file.txt").read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["artifact"]


# Where the process is killed: a line that is put before, or into, the writing.
KILLED = {
    "while it writes": "(draft.path / 'second.txt').write_text('half'); die()",
    "before the rename": "storage.os.rename = die",
}
SCRIPT = """
import os, shutil, signal, sys
from pathlib import Path
from brain_tumor import storage

def die(*arguments, **options):
    os.kill(os.getpid(), signal.SIGKILL)

with storage.publish(sys.argv[1], "model") as draft:
    (draft.path / "file.txt").write_text("new")
    {line}
"""


def run_and_die(path: Path, line: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(line=line), str(path)], capture_output=True, text=True
    )
    assert result.returncode == -signal.SIGKILL, result.stderr


@pytest.mark.parametrize("line", KILLED.values(), ids=KILLED)
def test_a_killed_process_leaves_nothing_under_the_name(tmp_path: Path, line: str) -> None:
    path = tmp_path / "artifact"

    run_and_die(path, line)

    assert not path.exists()
    with pytest.raises(InputError, match="no model artifact"):
        read_manifest(path, "model")
    make_artifact(path)  # what the dead process left does not stand in the way
    assert read_manifest(path, "model")["count"] == 1


def test_a_process_killed_while_it_deletes_the_old_artifact_leaves_no_half(tmp_path: Path) -> None:
    path = make_artifact(tmp_path / "artifact", "old")

    # The first deletion of something takes one file away and dies, as a process killed amid many files.
    run_and_die(
        path,
        "storage.shutil.rmtree = lambda path, **_: "
        "Path(path).exists() and (Path(path, 'file.txt').unlink(), die())",
    )

    assert (path / "file.txt").read_text() == "new"
    assert read_manifest(path, "model")["files"]["file.txt"] == hashlib.sha256(b"new").hexdigest()


def test_another_kind_is_refused(tmp_path: Path) -> None:
    path = make_artifact(tmp_path / "artifact")

    with pytest.raises(InputError, match=r"artifact holds a model artifact where a records artifact"):
        read_manifest(path, "records")


def test_a_folder_without_manifest_is_no_artifact(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no manifest\.json; run the step"):
        read_manifest(tmp_path, "records")


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


def test_a_file_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.md"
    write_file(path, "ä\n")
    write_file(path, "ö\n")
    assert path.read_text(encoding="utf-8") == "ö\n"
    assert list(path.parent.iterdir()) == [path]


def test_json_is_sorted_and_refuses_nan(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    write_json(path, {"b": 1, "a": None})
    assert path.read_text() == '{\n  "a": null,\n  "b": 1\n}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": None, "b": 1}


# In a bucket.


def make_large_artifact(path: Path) -> Path:
    """An artifact with a folder inside, and a file that is uploaded in more than one piece."""
    with publish(path, "model") as draft:
        (draft.path / "inner").mkdir()
        (draft.path / "inner" / "weights.bin").write_bytes(os.urandom(9_000_000))
        (draft.path / "ä b.txt").write_text("content")
        (draft.path / "empty").write_bytes(b"")
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_an_artifact_goes_to_a_bucket_and_back(emulator: Server, tmp_path: Path) -> None:
    path = make_large_artifact(tmp_path / "artifact")

    upload(path, "gs://bucket/models/one")
    assert sorted(object_names(emulator)) == [f"models/one/{name}" for name in sorted(contents(path))]
    assert object_names(emulator)[-1] == "models/one/manifest.json", "an artifact is visible once it is whole"

    download("gs://bucket/models/one/", tmp_path / "new" / "copy")
    assert contents(tmp_path / "new" / "copy") == contents(path)
    assert [entry.name for entry in (tmp_path / "new").iterdir()] == ["copy"]


def test_a_half_uploaded_artifact_is_none_until_it_is_finished(emulator: Server, tmp_path: Path) -> None:
    path = make_artifact(tmp_path / "artifact")
    put("one/file.txt", b"half")  # what an upload leaves that was killed

    with pytest.raises(InputError, match=r"gs://bucket/one is no artifact: it has no manifest\.json"):
        download("gs://bucket/one", tmp_path / "copy")
    upload(path, "gs://bucket/one")
    download("gs://bucket/one", tmp_path / "copy")
    assert contents(tmp_path / "copy") == contents(path)


def test_an_upload_that_fails_publishes_nothing(
    emulator: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = emulator._storage.create_file

    def refuse(bucket: str, name: str, *arguments: Any) -> None:
        if name.endswith("file.txt"):
            raise NotFound
        create(bucket, name, *arguments)

    monkeypatch.setattr(emulator._storage, "create_file", refuse)
    with pytest.raises(InputError, match="gs://bucket/one: there is no such bucket or object"):
        upload(make_artifact(tmp_path / "artifact"), "gs://bucket/one")
    assert object_names(emulator) == []


def test_an_artifact_in_a_bucket_is_never_another(emulator: Server, tmp_path: Path) -> None:
    path = make_artifact(tmp_path / "artifact")
    upload(path, "gs://bucket/one")
    before = object_names(emulator), read(emulator, "one/file.txt")

    upload(path, "gs://bucket/one")
    with pytest.raises(InputError, match="gs://bucket/one holds another artifact already"):
        upload(make_artifact(tmp_path / "other", "other"), "gs://bucket/one")
    assert (object_names(emulator), read(emulator, "one/file.txt")) == before


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda emulator: damage(emulator, "one/file.txt"), "does not have the bucket's checksum"),
        (lambda _: put("one/file.txt", b"replaced"), r"one/file\.txt is missing or not what manifest\.json"),
        (
            lambda emulator: emulator._storage.delete_file("bucket", "one/file.txt"),
            r"one/file\.txt is missing or not what",
        ),
    ],
    ids=["damaged", "replaced", "missing"],
)
def test_a_damaged_artifact_does_not_come_back(
    emulator: Server, tmp_path: Path, fault: Callable[[Server], None], message: str
) -> None:
    upload(make_artifact(tmp_path / "artifact"), "gs://bucket/one")
    fault(emulator)
    with pytest.raises(InputError, match=message):
        download("gs://bucket/one", tmp_path / "new" / "copy")
    assert list((tmp_path / "new").iterdir()) == []


def test_a_download_replaces_nothing(emulator: Server, tmp_path: Path) -> None:
    path = make_artifact(tmp_path / "artifact")
    upload(path, "gs://bucket/one")
    with pytest.raises(InputError, match="artifact exists already"):
        download("gs://bucket/one", path)


def test_a_copy_is_published_under_a_name_that_follows_its_content(emulator: Server, tmp_path: Path) -> None:
    one, other = make_artifact(tmp_path / "one"), make_artifact(tmp_path / "other", "other")
    for destination in ("gs://bucket/models/", str(tmp_path / "models" / "published")):
        addresses = [publish_copy(path, destination) for path in (one, other, one)]
        assert addresses[0] == addresses[2] != addresses[1]
        assert all(re.fullmatch(rf"{destination.rstrip('/')}/[0-9a-f]{{16}}", each) for each in addresses)
    assert len(object_names(emulator)) == 4

    download(publish_copy(one, "gs://bucket/models"), tmp_path / "copy")
    assert contents(tmp_path / "copy") == contents(one) == contents(Path(addresses[0]))
    assert sorted(str(path) for path in Path(addresses[0]).parent.iterdir()) == sorted(addresses[:2])


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
