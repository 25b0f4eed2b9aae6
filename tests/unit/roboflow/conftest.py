"""Roboflow for the tests: an export, a server for it on loopback, and checks for leaked secrets."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.roboflow_service import Service
from tests.unit.roboflow_watch import Watch, pack, serve, write_roboflow_export


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export. Do not modify."""
    return write_roboflow_export(tmp_path_factory.mktemp("roboflow") / "export")


@pytest.fixture
def server(export: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Service]:
    with serve(pack(export), monkeypatch, tmp_path) as started:
        yield started


@pytest.fixture(scope="module")
def archive(export: Path) -> bytes:
    return pack(export)


@pytest.fixture
def watch(tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Watch:
    return Watch(tmp_path, caplog, capfd)
