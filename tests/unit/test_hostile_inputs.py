"""Steps on damaged artifacts and odd paths: one sentence and exit code 2, and nothing is written."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from brain_tumor import steps
from brain_tumor.artifacts.dataset import Dataset
from brain_tumor.config.base import to_json
from brain_tumor.ingest.formats.registry import read_export
from tests.unit.exports import directory_config, write_export
from tests.unit.format_exports import write
from tests.unit.programs import PROGRAMS


def refusal(capsys: pytest.CaptureFixture[str], step: Callable[..., object], *arguments: object) -> str:
    """The one-sentence error of a step."""
    with pytest.raises(SystemExit) as caught:
        step(*arguments)
    assert caught.value.code == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said[-1]) < 1500
    return said[-1]


def _edit(**changes: object) -> Callable[[Path], object]:
    def edit(folder: Path) -> None:
        path = folder / "manifest.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return edit


def _write(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


def _remove(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def _cut(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-30])


def _folder(name: str) -> Callable[[Path], object]:
    def replace(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).mkdir()

    return replace


def _loop(name: str) -> Callable[[Path], object]:
    def replace(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).symlink_to(folder / name)

    return replace


IMAGE = "images/train/volume_1_slice_1.jpg"
DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "manifest cut": (_cut("manifest.json"), "manifest.json is damaged, or another version wrote it"),
    "manifest empty": (_write("manifest.json", b""), "manifest.json is damaged"),
    "manifest no UTF-8": (_write("manifest.json", b"\xff{}"), "manifest.json is damaged"),
    "manifest deep": (_write("manifest.json", b"[" * 100_000), "manifest.json is damaged"),
    "manifest huge number": (_write("manifest.json", b'{"kind": ' + b"9" * 5000 + b"}"), "is damaged"),
    "manifest a folder": (_folder("manifest.json"), "no manifest.json"),
    "manifest a loop": (_loop("manifest.json"), "no manifest.json"),
    "labels of another type": (_edit(labels=3), "manifest.json is damaged"),
    "counts of another type": (_edit(counts={"train": None}), "manifest.json is damaged"),
    "images cut": (_cut("images.parquet"), "images.parquet is missing or damaged"),
    "images gone": (_remove("images.parquet"), "images.parquet is missing or damaged"),
    "images another table": (_write("images.parquet", b"PAR1"), "images.parquet is missing or damaged"),
    "annotations cut": (_cut("annotations.parquet"), "annotations.parquet is missing or damaged"),
    "annotations a folder": (_folder("annotations.parquet"), "annotations.parquet is missing or damaged"),
    "an image gone": (_remove(IMAGE), "was deleted after the dataset was published; run ingest again"),
    "an image a loop": (_loop(IMAGE), f"{IMAGE}: Too many levels of symbolic links; fix"),
    "an image a folder": (_folder(IMAGE), f"{IMAGE}: Is a directory; give"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_records_of_a_damaged_dataset(
    own_dataset: Dataset, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    damage, words = DAMAGES[name]
    damage(own_dataset.path)

    assert words in refusal(capsys, steps.build_tfrecords, "{}", own_dataset.path, tmp_path / "records")

    assert sorted(path.name for path in tmp_path.iterdir()) == ["own"]


@pytest.mark.parametrize("name", ["x" * 300, "\udcff", "a\nb", "loop"])
def test_records_of_a_dataset_at_an_odd_path(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    refusal(capsys, steps.build_tfrecords, "{}", tmp_path / name, tmp_path / "records")
    assert not (tmp_path / "records").exists()


@pytest.mark.parametrize("name", ["x" * 300, "loop", "gone", "file"])
def test_ingest_of_an_odd_path(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "file").write_bytes(b"")
    config = to_json(directory_config(tmp_path / name))
    refusal(capsys, steps.ingest, config, tmp_path / "out", tmp_path / "report.html")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "config", ["", "{", "[" * 100_000, '{"source": "directory", "path": "\\udcff"}', "3"]
)
def test_ingest_of_an_odd_config(tmp_path: Path, config: str, capsys: pytest.CaptureFixture[str]) -> None:
    refusal(capsys, steps.ingest, config, tmp_path / "out", tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("names", [("\udcff", "report.html"), ("out", "\udcff.html")])
def test_outputs_whose_names_are_not_text(
    tmp_path: Path, names: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    config = to_json(directory_config(write_export(tmp_path / "export")))
    said = refusal(capsys, steps.ingest, config, *(tmp_path / name for name in names))
    assert "has a name that is not UTF-8 text; rename it." in said
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


UNREADABLE: dict[str, Callable[[Path], object]] = {
    "annotations a loop": _loop("train/_annotations.csv"),
    "annotations a folder": _folder("train/_annotations.csv"),
    "annotations NUL": _write("train/_annotations.csv", b"\0" * 5000),
    "annotations a field without end": _write("train/_annotations.csv", b"filename," + b"x" * 200_000),
    "an image a folder": _folder("train/volume_1_slice_1.jpg"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_ingest_of_an_export_that_cannot_be_read(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_export(tmp_path / "export")
    UNREADABLE[name](folder)
    config = to_json(directory_config(folder, max_bad_fraction=0.0))
    refusal(capsys, steps.ingest, config, tmp_path / "out", tmp_path / "report.html")
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


def test_an_xml_file_that_is_a_folder_is_a_finding(tmp_path: Path) -> None:
    folder = write(tmp_path, "voc")
    _folder("train/volume_1_slice_1.xml")(folder)
    findings = read_export(folder, tmp_path).splits[0].findings
    assert [(finding.file, finding.kind) for finding in findings] == [
        ("volume_1_slice_1.jpg", "malformed_file")
    ]


def run_where_no_file_grows(step: str, *arguments: object) -> str:
    """The error of a step with a file size limit of 500 bytes, which acts like a full disk."""
    command = [sys.executable, str(PROGRAMS / "step_without_disk.py"), step, *map(str, arguments)]
    # A measurement of coverage could not write its file either.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    return result.stderr.splitlines()[-1]


def test_ingest_on_a_full_disk(tmp_path: Path) -> None:
    config = to_json(directory_config(write_export(tmp_path / "export")))
    said = run_where_no_file_grows("ingest", config, tmp_path / "out", tmp_path / "report.html")
    assert said.startswith(f"{tmp_path / 'out'}: File too large; free some space there")
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


def test_records_on_a_full_disk(own_dataset: Dataset, tmp_path: Path) -> None:
    said = run_where_no_file_grows("build_tfrecords", "{}", own_dataset.path, tmp_path / "records")
    assert said.startswith(f"{tmp_path / 'records'}: File too large; free some space there")
    assert [path.name for path in tmp_path.iterdir()] == ["own"]


def test_an_invalid_temporary_folder_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = to_json(directory_config(write_export(tmp_path / "export")))
    with monkeypatch.context() as changed:
        changed.setattr(tempfile, "tempdir", "/dev/full")
        said = refusal(capsys, steps.ingest, config, tmp_path / "out", tmp_path / "report.html")
    assert "/dev/full" in said
    assert [path.name for path in tmp_path.iterdir()] == ["export"]
