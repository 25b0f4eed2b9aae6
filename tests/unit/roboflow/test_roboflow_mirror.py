"""A bucket that keeps what was downloaded from Roboflow."""

import base64
import hashlib
from pathlib import Path

import google_crc32c
import pytest
import roboflow_service as service
from buckets import damage, object_names, read
from gcp_storage_emulator.server import Server
from roboflow_service import Service
from roboflow_watch import PATH, Watch, pack, without

from brain_tumor.ingest.sources import roboflow

KEPT = f"mirror{PATH}.zip"


def test_the_mirror_keeps_the_first_download_and_gives_it_from_then_on(
    server: Service, emulator: Server, watch: Watch, archive: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = watch.fetch("dataset.mirror=gs://bucket/mirror")
    assert object_names(emulator) == [KEPT]
    assert read(emulator, KEPT) == archive
    metadata = emulator._storage.get_file_obj("bucket", KEPT)["metadata"]
    assert metadata == {"sha256": hashlib.sha256(archive).hexdigest()}

    monkeypatch.delenv(roboflow.KEY)
    assert watch.fetch("dataset.mirror=gs://bucket/mirror/") == first
    assert len(server.questions) == len(server.downloads) == 1, "the second run asked the mirror alone"


def test_a_failed_download_leaves_nothing_in_the_mirror(
    server: Service, emulator: Server, watch: Watch, export: Path, archive: bytes
) -> None:
    bad = [archive[:-500], without(export, "train/volume_1_slice_1.jpg"), pack(export, **{"../evil": b""})]
    for content in bad:
        server.on_download = [service.whole(content)]
        watch.fail("whole|leaves", "dataset.mirror=gs://bucket/mirror")
    assert object_names(emulator) == []


def test_a_damaged_archive_in_the_mirror_is_told_and_left(
    server: Service, emulator: Server, watch: Watch
) -> None:
    watch.fetch("dataset.mirror=gs://bucket/mirror")
    # Replaced: the object's own checksum is that of the new bytes, the sha256 kept with it is not.
    content = read(emulator, KEPT)
    emulator._storage.create_file(
        "bucket",
        KEPT,
        content + b"more",
        {
            **emulator._storage.get_file_obj("bucket", KEPT),
            "crc32c": base64.b64encode(google_crc32c.Checksum(content + b"more").digest()).decode(),
            "md5Hash": None,
            "size": str(len(content) + 4),
        },
    )
    watch.fail(
        r"gs://bucket/mirror/.*/2/tensorflow\.zip is damaged: its sha256 .*; delete it, and run again",
        "dataset.mirror=gs://bucket/mirror",
    )
    damage(emulator, KEPT)
    watch.fail("does not have the bucket's checksum", "dataset.mirror=gs://bucket/mirror")
    assert len(server.downloads) == 1


def test_a_mirror_that_cannot_be_written_is_told_before_the_download(
    server: Service, emulator: Server, watch: Watch
) -> None:
    watch.fail("gs://nowhere/mirror: there is no such bucket", "dataset.mirror=gs://nowhere/mirror")
    assert server.questions == []
