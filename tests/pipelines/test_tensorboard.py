import json
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from brain_tumor.runtime.errors import InputError
from brain_tumor.stores.paths import open_path
from pipelines.image import ROOT
from pipelines.tensorboard import Mirror, open_tensorboard
from tests.unit.buckets import S3Bucket, free_ports

NAME = "run/train/tensorboard/train/events.out.tfevents.1.host"


def test_a_mirror_follows_the_event_files_of_a_bucket(s3_bucket: S3Bucket, tmp_path: Path) -> None:
    s3_bucket.put(NAME, b"one")
    s3_bucket.put("run/train/model/detector.keras", b"large")
    mirror = Mirror(open_path(f"{s3_bucket.address}/run"), tmp_path)
    assert mirror.update() == 1
    copy = tmp_path / NAME.removeprefix("run/")
    assert copy.read_bytes() == b"one"
    written = copy.stat().st_mtime_ns
    assert mirror.update() == 1
    assert copy.stat().st_mtime_ns == written, "not copied again"
    s3_bucket.put(NAME, b"one and two")
    mirror.update()
    assert copy.read_bytes() == b"one and two"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [copy]


def test_a_bucket_without_event_files_is_one_sentence(s3_bucket: S3Bucket) -> None:
    with pytest.raises(InputError, match="minio://bucket/run has no TensorBoard event files"):
        open_tensorboard("minio://bucket/run", [])


def test_tensorboard_shows_a_bucket(s3_bucket: S3Bucket, tmp_path: Path) -> None:
    # One scalar, written by TensorBoard's own writer.
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    writer = EventFileWriter(str(tmp_path))
    from tensorboard.compat.proto.event_pb2 import Event

    writer.add_event(Event(step=1, summary=Summary(value=[Summary.Value(tag="loss", simple_value=0.5)])))
    writer.close()
    [file] = tmp_path.glob("events*")
    s3_bucket.put(f"run/phase1/{file.name}", file.read_bytes())

    [port] = free_ports(1)
    command = [sys.executable, "-m", "pipelines.tensorboard", "minio://bucket/run", "--port", str(port)]
    process = subprocess.Popen([*command, "--load_fast=false"], cwd=ROOT, stderr=subprocess.PIPE)
    try:
        assert _runs(f"http://127.0.0.1:{port}/data/runs", process) == ["phase1"]
    finally:
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=120)
    assert b"Traceback" not in errors


def _runs(address: str, process: subprocess.Popen[bytes]) -> list[str]:
    """The names of the runs that TensorBoard has loaded, as soon as there are any."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                if found := json.load(answer):
                    return list(found)
        except OSError:
            pass  # it has not started yet
        time.sleep(0.2)
    raise AssertionError("TensorBoard has loaded nothing")
