"""A step's output replaces only an earlier output of its kind."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from brain_tumor import steps
from brain_tumor.artifacts.dataset import Dataset, DatasetManifest
from brain_tumor.artifacts.folder import publish
from brain_tumor.artifacts.model import ModelManifest
from brain_tumor.artifacts.outputs import check_outputs
from brain_tumor.config.base import to_json
from brain_tumor.runtime.errors import InputError
from brain_tumor.stores.files import write_file
from tests.unit.bad_exports import listing
from tests.unit.exports import directory_config, write_export


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
    "a file": (_file, "is not a folder"),
    "below a file": (lambda parent: _file(parent) / "out", "Not a directory"),
    "a loop of links": (_loop, "is not a folder"),
    "a long name": (lambda parent: parent / ("x" * 300), "File name too long"),
    "the working folder": (lambda parent: Path("."), "is the working folder"),
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
    "a folder": (_documents, "is not a file"),
    "below a file": (lambda parent: _file(parent) / "report.html", "Not a directory"),
    "in the dataset": (lambda parent: parent / "out" / "report.html", "overlaps the output"),
    "a long name": (lambda parent: parent / ("x" * 300), "File name too long"),
}


@pytest.mark.parametrize("name", REPORTS)
def test_an_impossible_report_path_is_detected_before_the_work(
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


@pytest.mark.parametrize("name", ["x" * 250, f"new/{'x' * 300}/output"])
def test_a_name_too_long_for_a_draft_is_reported(tmp_path: Path, name: str) -> None:
    wrong: list[dict[str, Any]] = [
        {"artifacts": {tmp_path / name: DatasetManifest}},
        {"files": [tmp_path / name]},
    ]
    for outputs in wrong:
        with pytest.raises(InputError, match=r"File name too long; give a shorter name\."):
            check_outputs([], **{"artifacts": {}, **outputs})
    assert list(tmp_path.iterdir()) == []


def test_an_output_must_be_of_its_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("mine")
    os.mkfifo(tmp_path / "pipe")

    def check_refusal(words: str, **outputs: Any) -> None:
        with pytest.raises(InputError, match=words):
            check_outputs([], **{"artifacts": {}, **outputs})

    for name in ("file", "pipe"):
        path = tmp_path / name
        check_refusal(f"{name} is not a folder and is not replaced", artifacts={path: DatasetManifest})
        check_refusal(f"{name} is not a folder and is not replaced", folders=[path])
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/null")):
        check_refusal(f"{path} is not a file and is not replaced", files=[path])
    check_refusal(
        "/proc/new/output cannot be created: /proc accepts", artifacts={"/proc/new/output": DatasetManifest}
    )
    monkeypatch.chdir(tmp_path)
    for folder in (".", "..", "/", tmp_path, "new/.."):
        words = f"^{folder} is the working folder or one above it; give a new folder to write to.$"
        check_refusal(words, artifacts={folder: DatasetManifest})
    for place in ("new/output", "output", Path("sub") / ".." / "output"):
        check_outputs([], {place: DatasetManifest})
        check_outputs([], {}, files=[place])
        check_outputs([], {}, folders=[place])
    assert sorted(os.listdir()) == ["file", "pipe"], "no trace"


def test_an_output_that_is_a_link_stays_one(own_dataset: Dataset, tmp_path: Path) -> None:
    """Its target is replaced."""
    (tmp_path / "artifact").symlink_to(own_dataset.path)
    (tmp_path / "page.html").write_text("old")
    (tmp_path / "report.html").symlink_to("page.html")

    with publish(tmp_path / "artifact", DatasetManifest) as draft:
        (draft.path / "file").write_text("new")
        draft.manifest = own_dataset.manifest
    write_file(tmp_path / "report.html", "new")

    assert sorted(os.listdir(tmp_path)) == ["artifact", "own", "page.html", "report.html"]
    assert (tmp_path / "artifact").is_symlink()
    assert sorted(os.listdir(own_dataset.path)) == ["file", "manifest.json"]
    assert (tmp_path / "report.html").is_symlink() and (tmp_path / "page.html").read_text() == "new"


def test_an_earlier_result_is_replaced(export: Path, tmp_path: Path) -> None:
    output, report = tmp_path / "out", tmp_path / "report.html"
    steps.ingest(to_json(directory_config(export)), output, report)
    (output / "annotations.parquet").unlink()

    steps.ingest(to_json(directory_config(export)), output, report)

    assert (output / "annotations.parquet").exists()


def test_an_artifact_with_additional_files_is_kept(own_dataset: Dataset) -> None:
    check_outputs([], {own_dataset.path: DatasetManifest})
    notes = own_dataset.path / "notes"
    notes.mkdir()
    check_outputs([], {own_dataset.path: DatasetManifest})
    (notes / "mine.txt").write_text("mine")
    (own_dataset.path / "link").symlink_to("/nowhere")  # for example to a disk that is not mounted
    for name in ("link", "notes"):
        with pytest.raises(InputError, match=f"holds {name}, which is not one of the artifact's files"):
            check_outputs([], {own_dataset.path: DatasetManifest})
        (own_dataset.path / "link").unlink(missing_ok=True)


@pytest.mark.parametrize("content", ["", "[]", '{"kind": 3}', json.dumps({"kind": "records"}), "\ud800"])
def test_an_invalid_manifest_protects_its_folder(own_dataset: Dataset, content: str) -> None:
    manifest = own_dataset.path / "manifest.json"
    manifest.write_bytes(content.encode(errors="surrogatepass"))
    with pytest.raises(InputError, match="so it is not replaced"):
        check_outputs([], {own_dataset.path: DatasetManifest})


def test_a_read_only_folder_is_detected(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root can write everywhere")
    (tmp_path / "closed").mkdir(mode=0o555)
    with pytest.raises(InputError, match="closed/out: Permission denied; give this user permission"):
        check_outputs([], {tmp_path / "closed" / "out": DatasetManifest})
