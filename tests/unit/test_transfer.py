import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gcp_storage_emulator.exceptions import NotFound

from brain_tumor.artifacts.folder import publish
from brain_tumor.artifacts.model import ModelManifest
from brain_tumor.artifacts.transfer import local_copy, publish_copy, upload
from brain_tumor.runtime.errors import InputError
from brain_tumor.stores.paths import open_path
from tests.unit.buckets import Bucket, GoogleBucket
from tests.unit.disks import small_disk

pytestmark = pytest.mark.slow


def make_artifact(path: Path, content: str = "content") -> Path:
    with publish(path) as draft:
        (draft.path / "file.txt").write_text(content)
        draft.manifest = ModelManifest()
    return path


def make_large_artifact(path: Path) -> Path:
    """An artifact with a subfolder, and a file that is uploaded in several parts."""
    with publish(path) as draft:
        draft.manifest = ModelManifest()
        (draft.path / "inner").mkdir()
        (draft.path / "inner" / "weights.bin").write_bytes(os.urandom(9_000_000))
        (draft.path / "ä b.txt").write_text("content")
        (draft.path / "empty").write_bytes(b"")
    return path


def downloaded(address: str) -> dict[str, bytes]:
    """The files that a reader gets from an artifact's address."""
    with local_copy(open_path(address), ModelManifest) as folder:
        return contents(folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_an_artifact_goes_to_a_bucket_and_back(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_large_artifact(tmp_path / "artifact")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))

    upload(path, f"{bucket.address}/models/one")
    assert bucket.names() == [f"models/one/{name}" for name in sorted(contents(path))]

    assert downloaded(f"{bucket.address}/models/one/") == contents(path)
    assert list((tmp_path / "temporary").iterdir()) == [], "no local files are left"


def test_a_copy_to_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    path = make_large_artifact(tmp_path / "artifact")
    with small_disk(tmp_path / "disk", 1024) as disk:
        with pytest.raises(InputError) as caught:
            publish_copy(path, str(disk / "models"))
        assert re.fullmatch(
            rf"{disk}/models/\w{{16}}: No space left on device; free some space there, .*", str(caught.value)
        )
        assert list(disk.rglob("*")) == [disk / "models"]


def test_an_artifact_is_visible_only_when_complete(google_bucket: GoogleBucket, tmp_path: Path) -> None:
    upload(make_large_artifact(tmp_path / "artifact"), "gs://bucket/one")
    assert google_bucket.names_by_age()[-1] == "one/manifest.json"


def test_a_partly_uploaded_artifact_does_not_exist_until_it_is_complete(
    bucket: Bucket, tmp_path: Path
) -> None:
    path, address = make_artifact(tmp_path / "artifact"), f"{bucket.address}/one"
    bucket.put("one/file.txt", b"half")  # left by a killed upload

    with pytest.raises(InputError, match=rf"{address} holds no model artifact: no manifest\.json"):
        downloaded(address)
    upload(path, address)
    assert downloaded(address) == contents(path)


def test_a_failed_upload_publishes_nothing(
    google_bucket: GoogleBucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = google_bucket.storage.create_file

    def refuse(bucket: str, name: str, *arguments: Any) -> None:
        if name.endswith("file.txt"):
            raise NotFound
        create(bucket, name, *arguments)

    monkeypatch.setattr(google_bucket.storage, "create_file", refuse)
    with pytest.raises(InputError, match="gs://bucket/one: there is no such bucket or object"):
        upload(make_artifact(tmp_path / "artifact"), "gs://bucket/one")
    assert google_bucket.names() == []


def test_an_artifact_at_an_address_is_never_replaced(bucket: Bucket, tmp_path: Path) -> None:
    path, other = make_artifact(tmp_path / "artifact"), make_artifact(tmp_path / "other", "other")
    for address in (f"{bucket.address}/one", str(tmp_path / "one")):
        upload(path, address)
        upload(path, address)
        with pytest.raises(InputError, match=f"{address} already holds another artifact"):
            upload(other, address)
        assert downloaded(address) == contents(path)
    assert bucket.names() == ["one/file.txt", "one/manifest.json"]


@pytest.mark.parametrize(
    "fault",
    [
        lambda bucket: bucket.put("one/file.txt", b"replaced"),
        lambda bucket: bucket.delete("one/file.txt"),
    ],
    ids=["replaced", "missing"],
)
def test_an_artifact_with_wrong_files_is_not_downloaded(
    bucket: Bucket, tmp_path: Path, fault: Callable[[Bucket], None]
) -> None:
    address = f"{bucket.address}/one"
    upload(make_artifact(tmp_path / "artifact"), address)
    fault(bucket)
    with pytest.raises(InputError, match=rf"{address}/file\.txt is missing or not what manifest\.json says"):
        downloaded(address)


def test_a_damaged_artifact_is_not_downloaded(google_bucket: GoogleBucket, tmp_path: Path) -> None:
    upload(make_artifact(tmp_path / "artifact"), "gs://bucket/one")
    google_bucket.damage("one/file.txt")
    with pytest.raises(InputError, match=r"gs://bucket/one: .* do not match the bucket's checksum"):
        downloaded("gs://bucket/one")


def test_a_copy_is_published_under_a_name_derived_from_its_content(bucket: Bucket, tmp_path: Path) -> None:
    one, other = make_artifact(tmp_path / "one"), make_artifact(tmp_path / "other", "other")
    for destination in (f"{bucket.address}/models/", str(tmp_path / "models" / "published")):
        addresses = [publish_copy(path, destination) for path in (one, other, one)]
        assert addresses[0] == addresses[2] != addresses[1]
        assert all(re.fullmatch(rf"{destination.rstrip('/')}/[0-9a-f]{{16}}", each) for each in addresses)
        assert downloaded(addresses[0]) == contents(one)
        assert downloaded(addresses[1]) == contents(other)
    assert len(bucket.names()) == 4
    assert sorted(str(path) for path in Path(addresses[0]).parent.iterdir()) == sorted(addresses[:2])
