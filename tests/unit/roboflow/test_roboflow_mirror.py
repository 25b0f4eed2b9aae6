"""A bucket as a mirror of downloads from Roboflow."""

import hashlib
import shutil
from pathlib import Path

import pytest

from brain_tumor.ingest.sources import mirror, roboflow
from brain_tumor.stores.folders import upload_file
from brain_tumor.stores.paths import AnyPath
from tests.unit import roboflow_service as service
from tests.unit.buckets import Bucket, GoogleBucket
from tests.unit.roboflow_service import Service
from tests.unit.roboflow_watch import PATH, Watch, pack, without

pytestmark = pytest.mark.slow

KEPT = f"mirror{PATH}.zip"
SHA256 = f"{KEPT}.sha256"


def mirrored(bucket: Bucket) -> str:
    return f"dataset.mirror={bucket.address}/mirror"


def test_the_mirror_stores_the_first_download_and_is_used_from_then_on(
    server: Service, bucket: Bucket, watch: Watch, archive: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = watch.fetch(mirrored(bucket))
    assert bucket.names() == [KEPT, SHA256]
    assert bucket.read(KEPT) == archive
    assert bucket.read(SHA256).decode() == f"{hashlib.sha256(archive).hexdigest()}\n"

    monkeypatch.delenv(roboflow.KEY)
    assert watch.fetch(f"{mirrored(bucket)}/") == first
    assert len(server.questions) == len(server.downloads) == 1, "the second run used only the mirror"


def test_a_failed_download_leaves_nothing_in_the_mirror(
    server: Service, google_bucket: GoogleBucket, watch: Watch, export: Path, archive: bytes
) -> None:
    bad = [archive[:-500], without(export, "train/volume_1_slice_1.jpg"), pack(export, **{"../evil": b""})]
    for content in bad:
        server.on_download = [service.whole(content)]
        watch.fail("complete|outside", mirrored(google_bucket))
    assert google_bucket.names() == []


def test_a_damaged_archive_in_the_mirror_is_reported_and_kept(
    server: Service, bucket: Bucket, watch: Watch, archive: bytes
) -> None:
    watch.fetch(mirrored(bucket))
    bucket.put(KEPT, archive + b"more")
    watch.fail(
        rf"{bucket.address}/mirror/.*/2/tensorflow\.zip is damaged: its sha256 .*; delete it, and run again",
        mirrored(bucket),
    )
    assert bucket.read(KEPT) == archive + b"more"
    assert len(server.downloads) == 1


def test_a_damaged_object_of_the_mirror_is_reported(
    server: Service, google_bucket: GoogleBucket, watch: Watch
) -> None:
    watch.fetch(mirrored(google_bucket))
    google_bucket.damage(KEPT)
    watch.fail("do not match the bucket's checksum", mirrored(google_bucket))
    assert len(server.downloads) == 1


def test_an_archive_without_its_sha256_is_neither_used_nor_replaced(
    server: Service, bucket: Bucket, watch: Watch, archive: bytes
) -> None:
    bucket.put(KEPT, archive)  # as left by an earlier version
    watch.fail(
        r"tensorflow\.zip has no tensorflow\.zip\.sha256 beside it, so it cannot be verified",
        mirrored(bucket),
    )
    assert bucket.names() == [KEPT]
    assert server.questions == []

    bucket.put(SHA256, hashlib.sha256(archive).hexdigest().encode())
    watch.fetch(mirrored(bucket))
    assert server.questions == []


def test_a_killed_upload_is_not_a_mirror(
    server: Service,
    bucket: Bucket,
    watch: Watch,
    archive: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    upload = upload_file

    def killed(source: Path, path: AnyPath) -> None:
        if path.suffix == ".zip":
            raise KeyboardInterrupt
        upload(source, path)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(mirror, "upload_file", killed)
        watch.fetch(mirrored(bucket))
    assert bucket.names() == [SHA256]
    shutil.rmtree(tmp_path / "scratch")  # of the killed run

    watch.fetch(mirrored(bucket))
    assert len(server.downloads) == 2
    assert bucket.read(KEPT) == archive


def test_the_first_archive_is_kept(bucket: Bucket, tmp_path: Path) -> None:
    address = f"{bucket.address}/mirror/export.zip"
    for content in ("first", "second"):
        (tmp_path / "archive").write_text(content)
        mirror.upload(tmp_path / "archive", address)
    assert mirror.download(address, tmp_path / "taken")
    assert (tmp_path / "taken").read_text() == "first"


def test_a_mirror_that_is_not_writable_is_reported_before_the_download(
    server: Service, bucket: Bucket, watch: Watch
) -> None:
    nowhere = f"{bucket.address[:5]}nowhere/mirror"
    watch.fail(f"{nowhere}.*: there is no such bucket", f"dataset.mirror={nowhere}")
    assert server.questions == []
