import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from brain_tumor.artifacts.dataset import Dataset
from brain_tumor.records.build import build_tfrecords, write_shards
from brain_tumor.runtime.errors import InputError
from tests.unit.programs import PROGRAMS
from tests.unit.small_records import CONFIG, FIRST_SHARD

pytestmark = pytest.mark.slow

STALLED = Path("train", "volume_2_slice_3.jpg")


def test_a_shard_that_cannot_be_written_is_named(small_dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "full" / FIRST_SHARD).mkdir(parents=True)  # at the path of the file

    with pytest.raises(IsADirectoryError, match=FIRST_SHARD):
        write_shards(small_dataset, 4, tmp_path / "full", workers=2)


def stall(small_dataset: Dataset) -> Path:
    """Replaces an image by a named pipe: a reader waits until it is written to."""
    path = small_dataset.image_folder / STALLED
    path.unlink()
    os.mkfifo(path)
    return path


def readers(path: Path) -> list[int]:
    """The processes that have a file open."""
    found = []
    for links in Path("/proc").glob("[0-9]*/fd"):
        try:
            if any(os.readlink(link) == str(path) for link in links.iterdir()):
                found.append(int(links.parent.name))
        except OSError:  # it has ended, or belongs to another user
            continue
    return found


def test_a_killed_worker_is_one_sentence_with_its_shard(own_dataset: Dataset, tmp_path: Path) -> None:
    pipe = stall(own_dataset)

    def kill() -> None:
        with open(pipe, "wb"):  # waits for the worker
            for process in set(readers(pipe)) - {os.getpid()}:
                os.kill(process, signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()
    expected = r"A process died .* one of .*train-00001-of-00002.*; give this step more memory"
    with pytest.raises(InputError, match=expected):
        build_tfrecords(CONFIG, own_dataset, tmp_path / "out" / "records", workers=2)

    assert list((tmp_path / "out").iterdir()) == []


# Tests started in the background by a shell ignore interrupts, and so do their child processes.


def test_an_interrupt_ends_the_workers_and_leaves_nothing(own_dataset: Dataset, tmp_path: Path) -> None:
    pipe = own_dataset.image_folder / STALLED
    arguments = [
        sys.executable,
        str(PROGRAMS / "write_records.py"),
        str(own_dataset.path),
        str(tmp_path / "out" / "records"),
        str(pipe),
    ]
    step = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
    while not pipe.is_fifo():
        assert step.poll() is None
        time.sleep(0.05)

    with open(pipe, "wb"):  # waits for a worker of it
        assert len(readers(pipe)) > 1
        step.send_signal(signal.SIGINT)
        _, error = step.communicate(timeout=60)
        while set(readers(pipe)) - {os.getpid()}:
            time.sleep(0.05)

    assert step.returncode != 0
    assert "KeyboardInterrupt" in error
    assert list((tmp_path / "out").iterdir()) == []
