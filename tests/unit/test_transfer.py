import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from buckets import damage, object_names, put, read
from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.server import Server

from brain_tumor.artifacts.folder import publish
from brain_tumor.artifacts.model import ModelManifest
from brain_tumor.artifacts.transfer import download, publish_copy, upload
from brain_tumor.runtime.errors import InputError


def make_artifact(path: Path, content: str = "content") -> Path:
    with publish(path) as draft:
        (draft.path / "file.txt").write_text(content)
        draft.manifest = ModelManifest()
    return path


def make_large_artifact(path: Path) -> Path:
    """An artifact with a folder inside, and a file that is uploaded in more than one piece."""
    with publish(path) as draft:
        draft.manifest = ModelManifest()
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
