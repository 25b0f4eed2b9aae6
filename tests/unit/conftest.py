"""Shared fixtures: small records, a folder for caches."""

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.unit.exports import write_export

if TYPE_CHECKING:  # these imports take seconds, and only a few tests need them
    from brain_tumor.artifacts.dataset import Dataset
    from brain_tumor.artifacts.records import Records


@pytest.fixture(scope="session")
def small_dataset(tmp_path_factory: pytest.TempPathFactory) -> "Dataset":
    """A dataset artifact of 6, 3 and 3 images, with boxes and without. Do not modify."""
    from tests.unit.small_records import make_dataset

    train = [
        "volume_1_slice_1.jpg,40,30,label1,10,6,20,27",
        "volume_1_slice_2.jpg,40,30,label2,0,0,40,30",
        "volume_1_slice_2.jpg,40,30,label0,4,3,8,9",
    ]
    valid = ["volume_3_slice_1.jpg,40,30,label2,0,0,40,30", "volume_3_slice_1.jpg,40,30,label1,10,6,20,27"]
    folder = tmp_path_factory.mktemp("records")
    return make_dataset(folder, write_export(folder / "export", train=train, valid=valid))


@pytest.fixture(scope="session")
def small_records(small_dataset: "Dataset") -> "Records":
    """Its records artifact. Do not modify."""
    from brain_tumor.records.build import build_tfrecords
    from tests.unit.small_records import CONFIG

    return build_tfrecords(CONFIG, small_dataset, small_dataset.path.parent / "records")


@pytest.fixture
def own_dataset(small_dataset: "Dataset", tmp_path: Path) -> "Dataset":
    """A copy of `small_dataset`."""
    from brain_tumor.artifacts.dataset import open_dataset

    return open_dataset(shutil.copytree(small_dataset.path, tmp_path / "own"))


@pytest.fixture
def own_shards(small_records: "Records", tmp_path: Path) -> Path:
    """A copy of the folder of `small_records`."""
    return Path(shutil.copytree(small_records.path, tmp_path / "shards"))


@pytest.fixture
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for caches that do not fit into memory."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder
