"""The whole step on bad annotations: images are quarantined, or the step fails and writes nothing."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from brain_tumor.artifacts.dataset import open_dataset
from brain_tumor.artifacts.tables import COORDINATES
from brain_tumor.ingest.ingest import ingest
from brain_tumor.runtime.errors import InputError
from tests.unit.bad_exports import (
    CSV,
    GOOD,
    JSON,
    LABELS,
    RECORDS,
    TXT,
    VICTIM,
    XML,
    bad_example,
    check_sentence,
    csv_of,
    listing,
    write_files,
    write_good_exports,
)
from tests.unit.exports import directory_config
from tests.unit.format_writers import write_records


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    return write_good_exports(tmp_path_factory.mktemp("exports"))


def _spoil_csv(content: bytes) -> bytes:
    rows = [
        ["../../outside.jpg", "40", "30", LABELS[0], "1", "1", "2", "2"],
        ["/etc/outside.jpg", "40", "30", LABELS[0], "1", "1", "2", "2"],
        [VICTIM.name, "40", "30", "", "nan", "-1e308", "1e308", "9" * 500],
        [VICTIM.name, "-1e308", "1e308", "a\0b", "-1e308", "-1e308", "1e308", "1e308"],
        ["名前 の.jpg", "4"],
    ]
    return content + csv_of(rows).encode()


def _spoil_json(content: bytes) -> bytes:
    parsed = json.loads(content)
    parsed["images"] += [
        {"id": "a", "file_name": "../../outside.jpg"},
        None,
        {"id": "b", "file_name": "\ud800"},
    ]
    parsed["annotations"] += [
        {"image_id": "a", "category_id": 1, "bbox": [1, 1, 2, 2]},
        {"image_id": 1, "category_id": 1, "bbox": [-1e308, -1e308, 1e308, 1e308]},
        {"image_id": 1, "category_id": {}, "bbox": [float("nan")] * 4},
        [],
    ]
    return json.dumps(parsed).encode()


def _spoil_records(content: bytes) -> bytes:
    bad = [
        bad_example({"filename": [b"../../outside.jpg"]}),
        bad_example({"filename": [b"other.jpg"], "width": [-(2**63)], "encoded": [b"no JPEG"]}),
        b"none",
    ]
    with tempfile.TemporaryDirectory() as folder:
        write_records(Path(folder) / "bad", bad)
        return content + (Path(folder) / "bad").read_bytes()


SPOILERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "tensorflow": (CSV, _spoil_csv),
    "coco": (JSON, _spoil_json),
    "yolo": (TXT, lambda _: b"0 -1e308 1e308 1e308 1e308\n1 nan . . .\n7\n\0"),
    "voc": (XML, lambda content: content.replace(b">4<", b">-1e308<")),
    "tfrecord": (RECORDS, _spoil_records),
}


def ingest_bad(parent: Path, files: dict[str, bytes]) -> None:
    """Ingests to `out/`, and checks that nothing else has changed."""
    folder = parent / "a" / "export"
    write_files(folder, files)
    (parent / "a" / "outside.jpg").write_bytes(b"precious")
    before = listing(parent)
    config = directory_config(folder, labels=LABELS, max_bad_fraction=1.0)
    try:
        ingest(config, parent / "a" / "out" / "dataset")
    finally:
        after = listing(parent)
        assert {name: after[name] for name in before} == before
        new = set(after) - set(before)
        assert all(name.startswith("a/out/dataset/") for name in new), new


@pytest.mark.parametrize("name", SPOILERS)
def test_ingest_quarantines_images_with_bad_annotations(
    tmp_path: Path, exports: dict[str, dict[str, bytes]], name: str
) -> None:
    path, spoil = SPOILERS[name]

    ingest_bad(tmp_path, exports[name] | {path: spoil(exports[name][path])})

    dataset = open_dataset(tmp_path / "a" / "out" / "dataset")
    train = dataset.images[dataset.images["split"] == "train"]
    assert GOOD.name in set(train["filename"])
    boxes = dataset.annotations[dataset.annotations["filename"] == GOOD.name]
    assert sorted(boxes[["label", *COORDINATES]].itertuples(index=False, name=None)) == sorted(GOOD.boxes)
    assert (dataset.image_folder / "train" / GOOD.name).read_bytes() == GOOD.jpeg()
    # Each image is kept or quarantined, and bad ones are listed.
    kept = {file.name for file in dataset.path.glob("*/train/*")}
    assert {GOOD.name, VICTIM.name} <= kept
    if name != "tfrecord":
        assert VICTIM.name not in set(train["filename"])
    assert len(pd.read_csv(dataset.findings_path)) > 0


@pytest.mark.parametrize(
    ("name", "path"),
    [("tensorflow", CSV), ("coco", JSON), ("yolo", "data.yaml"), ("tfrecord", RECORDS)],
)
def test_ingest_writes_nothing_when_it_fails(
    tmp_path: Path, exports: dict[str, dict[str, bytes]], name: str, path: str
) -> None:
    with pytest.raises(InputError) as caught:
        ingest_bad(tmp_path, exports[name] | {path: b"\xff\x00" * 20})

    check_sentence(caught.value)
    assert not (tmp_path / "a" / "out" / "dataset").exists()
