"""No step's output takes the place of anything but an earlier one of its kind."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from bad_exports import listing
from exports import directory_config, write_export

from brain_tumor import steps
from brain_tumor.artifacts.dataset import Dataset, DatasetManifest
from brain_tumor.artifacts.folder import publish
from brain_tumor.artifacts.model import ModelManifest
from brain_tumor.artifacts.outputs import check_outputs
from brain_tumor.config.base import to_json
from brain_tumor.runtime.errors import InputError


@pytest.fixture
def export(tmp_path: Path) -> Path:
    folder = write_export(tmp_path / "data" / "export")
    (tmp_path / "data" / "thesis.txt").write_text("years of work")
    return folder


def _documents(parent: Path) -> Path:
    (parent / "documents").mkdir()
    (parent / "documents" / "thesis.txt").write_text("years of work")
    return parent / "documents"


def _linked(parent: Path) -> Path:
    (parent / "link").symlink_to(parent / "data")
    return parent / "link" / "export" / "out"


def _other_kind(parent: Path) -> Path:
    with publish(parent / "model") as draft:
        draft.manifest = ModelManifest()
    return parent / "model"


def _file(parent: Path) -> Path:
    (parent / "file").write_text("precious")
    return parent / "file"


def _loop(parent: Path) -> Path:
    (parent / "a").symlink_to(parent / "b")
    (parent / "b").symlink_to(parent / "a")
    return parent / "a"


OUTPUTS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "the export": (lambda parent: parent / "data" / "export", "overlaps the input"),
    "its parent": (lambda parent: parent / "data", "overlaps the input"),
    "in the export": (lambda parent: parent / "data" / "export" / "train" / "out", "overlaps the input"),
    "in the export by a link": (_linked, "overlaps the input"),
    "documents": (_documents, "is not empty and holds no dataset artifact"),
    "another kind": (_other_kind, "holds a model artifact"),
    "a file": (_file, "is no folder"),
    "below a file": (lambda parent: _file(parent) / "out", "cannot be written"),
    "a loop of links": (_loop, "is no folder"),
    "a long name": (lambda parent: parent / ("x" * 300), "cannot be written"),
    "the working folder": (lambda parent: Path("."), "is not empty"),
    "the root": (lambda parent: Path("/"), "overlaps the input"),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_ingest_refuses_an_output_that_would_lose_something(
    export: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make, words = OUTPUTS[name]
    output = make(tmp_path)
    before = listing(tmp_path)

    with pytest.raises(SystemExit) as caught:
        steps.ingest(to_json(directory_config(export)), output, tmp_path / "reports" / "report.html")

    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1
    assert listing(tmp_path) == before


REPORTS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "the export's annotations": (
        lambda parent: parent / "data" / "export" / "train" / "_annotations.csv",
        "overlaps the input",
    ),
    "a folder": (_documents, "is a folder"),
    "below a file": (lambda parent: _file(parent) / "report.html", "cannot be written"),
    "in the dataset": (lambda parent: parent / "out" / "report.html", "overlaps the output"),
    "a long name": (lambda parent: parent / ("x" * 300), "cannot be written"),
}


@pytest.mark.parametrize("name", REPORTS)
def test_a_report_that_cannot_be_is_found_out_before_the_work(
    export: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make, words = REPORTS[name]
    report = make(tmp_path)
    before = listing(tmp_path)

    with pytest.raises(SystemExit) as caught:
        steps.ingest(to_json(directory_config(export)), tmp_path / "out", report)

    assert caught.value.code == 2
    assert words in capsys.readouterr().err
    assert listing(tmp_path) == before
    assert not (tmp_path / "out").exists()


def test_records_are_not_written_over_their_dataset(
    own_dataset: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    before = listing(own_dataset.path)
    for output in (own_dataset.path, own_dataset.path.parent, own_dataset.path / "records"):
        with pytest.raises(SystemExit) as caught:
            steps.build_tfrecords("{}", own_dataset.path, output)
        assert caught.value.code == 2
        assert "overlaps the input" in capsys.readouterr().err
    assert listing(own_dataset.path) == before


def test_an_earlier_result_is_replaced(export: Path, tmp_path: Path) -> None:
    output, report = tmp_path / "out", tmp_path / "report.html"
    steps.ingest(to_json(directory_config(export)), output, report)
    (output / "annotations.parquet").unlink()

    steps.ingest(to_json(directory_config(export)), output, report)

    assert (output / "annotations.parquet").exists()


def test_an_artifact_with_something_beside_its_files_is_kept(own_dataset: Dataset) -> None:
    check_outputs([], {own_dataset.path: DatasetManifest})
    notes = own_dataset.path / "notes"
    notes.mkdir()
    check_outputs([], {own_dataset.path: DatasetManifest})
    (notes / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="holds notes, which is none of the artifact's files"):
        check_outputs([], {own_dataset.path: DatasetManifest})


@pytest.mark.parametrize("content", ["", "[]", '{"kind": 3}', json.dumps({"kind": "records"}), "\ud800"])
def test_a_manifest_that_is_none_protects_its_folder(own_dataset: Dataset, content: str) -> None:
    manifest = own_dataset.path / "manifest.json"
    manifest.write_bytes(content.encode(errors="surrogatepass"))
    with pytest.raises(InputError, match="so it is not replaced"):
        check_outputs([], {own_dataset.path: DatasetManifest})


def test_a_read_only_folder_is_found_out(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root writes anywhere")
    (tmp_path / "closed").mkdir(mode=0o555)
    with pytest.raises(InputError, match=r"closed/out cannot be written: Permission denied\."):
        check_outputs([], {tmp_path / "closed" / "out": DatasetManifest})
