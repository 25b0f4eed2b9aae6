"""Runs the Roboflow source on the loopback service, and checks for leaked secrets."""

import functools
import io
import logging
import shutil
import traceback
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tenacity import wait_none

from brain_tumor.artifacts.dataset import Dataset
from brain_tumor.config.compose import compose
from brain_tumor.config.dataset import AnyDataset
from brain_tumor.ingest.ingest import ingest
from brain_tumor.ingest.sources import roboflow
from brain_tumor.ingest.sources.fetch import fetch
from brain_tumor.runtime.errors import InputError
from tests.unit.exports import write_export
from tests.unit.roboflow_service import KEY, SIGNATURE, Service

ROWS = {
    "train": ["volume_1_slice_1.jpg,40,30,label1,2,3,20,20", "volume_2_slice_1.jpg,40,30,label0,2,3,20,20"],
    "valid": ["volume_3_slice_2.jpg,40,30,label2,2,3,20,20"],
}
PATH = "/yousef-ghanem-jzj4y/brain-tumor-detection-fpf1f/2/tensorflow"


def write_roboflow_export(folder: Path) -> Path:
    """An export with Roboflow's layout."""
    write_export(folder, **ROWS)
    (folder / "README.roboflow.txt").write_text("Brain tumor detection - v2\n")
    return folder


def pack(folder: Path, **more: bytes) -> bytes:
    """A folder as a zip archive, with additional files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder))
        for name, content in more.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def without(export: Path, *names: str) -> bytes:
    """A folder as a zip archive that lacks these files."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path in sorted(export.rglob("*")):
            if path.is_file() and path.relative_to(export).as_posix() not in names:
                archive.write(path, path.relative_to(export))
    return packed.getvalue()


@contextmanager
def serve(archive: bytes, monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[Service]:
    """The service, a key for it, no back-off, and a working folder `work` without .env."""
    monkeypatch.setattr(roboflow, "BACK_OFF", wait_none())
    monkeypatch.setattr(roboflow, "EXPORT_POLL", 0.0)
    monkeypatch.setenv(roboflow.KEY, KEY)
    (folder / "work").mkdir()
    monkeypatch.chdir(folder / "work")
    with Service(archive) as started:
        monkeypatch.setenv("API_URL", started.address)
        yield started


@functools.cache
def make_config(*overrides: str) -> AnyDataset:
    """The config of the Roboflow source."""
    return compose(["dataset=roboflow", *overrides]).steps().dataset


class Watch:
    """Runs the ingest step, and checks that no secret leaks."""

    def __init__(
        self, folder: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
    ) -> None:
        self.folder, self.caplog, self.capfd = folder, caplog, capfd
        caplog.set_level(logging.DEBUG)  # urllib3 logs each address at this level

    def ingest(self, *overrides: str) -> Dataset:
        """Ingests, and opens the dataset."""
        dataset = ingest(make_config(*overrides), self.folder / "dataset").dataset
        self.check_secrets("")
        return dataset

    def fetch(self, *overrides: str) -> set[str]:
        """The names of the export's files."""
        scratch = self.folder / "scratch"
        scratch.mkdir()
        export = fetch(make_config(*overrides), scratch)
        names = {path.relative_to(export).as_posix() for path in export.rglob("*") if path.is_file()}
        assert [path for path in scratch.iterdir() if path.is_file()] == [], "the archive is deleted"
        self.check_secrets("")
        shutil.rmtree(scratch)
        return names

    def fail(self, message: str, *overrides: str) -> str:
        """Expects one sentence, and that nothing was published."""
        with pytest.raises(InputError, match=message) as raised:
            ingest(make_config(*overrides), self.folder / "dataset")
        self.check_secrets("".join(traceback.format_exception(raised.value)))
        for error in chain(raised.value):
            self.check_secrets(repr(error))
        assert [path.name for path in self.folder.iterdir()] == ["work"]
        assert "\n" not in str(raised.value)
        return str(raised.value)

    def check_secrets(self, said: str) -> None:
        """Searches for a secret in messages, logs, output and files."""
        said += self.caplog.text + "".join(self.capfd.readouterr())
        for path in self.folder.rglob("*"):
            if path.is_file():
                said += path.read_bytes().decode("latin-1")
        for secret in (KEY, SIGNATURE, "api_key", "X-Goog-Signature"):
            assert secret not in said


def chain(error: BaseException) -> Iterator[BaseException]:
    """An error and all its causes and contexts."""
    yield error
    for behind in (error.__cause__, error.__context__):
        if behind:
            yield from chain(behind)
