"""Whatever an annotation file holds: a sentence or findings, nothing written elsewhere, nothing good lost."""

import csv
import io
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from exports import directory_config
from format_writers import WRITERS, Picture, example, write_records
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brain_tumor.data.annotations import read_export
from brain_tumor.data.dataset import ingest, open_dataset
from brain_tumor.data.export import Export
from brain_tumor.data.findings import QUARANTINED
from brain_tumor.errors import InputError

LABELS = ["label0", "опухоль, 2"]
GOOD = Picture("volume_1_slice_1, «good».jpg", [(LABELS[0], 1, 2, 30, 29.5), (LABELS[1], 0, 0, 40, 30)])
VICTIM = Picture("volume_1_slice_2.jpg", [(LABELS[0], 3, 4, 5, 6)])
SPLITS = {
    "train": [GOOD, VICTIM],
    "valid": [Picture("volume_2_slice_1.jpg")],
    "test": [Picture("volume_3_slice_1.jpg")],
}

quick = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

NASTY = [
    *(
        "",
        " ",
        "nan",
        "-inf",
        "1e400",
        "-1e308",
        "0x10",
        "1_0",
        "\uff11\uff12",
        "9" * 5000,
        "-0.0",
        "1,5",
        "None",
    ),
    *("../../outside.jpg", "/etc/outside.jpg", "C:\\outside.jpg", "..", "a/b.jpg", "名前 の.jpg"),
    *("'", '"', '""', 'a"b', "a,b", "=1+1", "a\0b", "&amp;", "<x>", "\ufeff", "\u202e", "%s", "{}"),
    VICTIM.name,
]
cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), max_size=12)
cells |= st.sampled_from(NASTY)
texts = st.text(max_size=12) | st.sampled_from([*NASTY, "\ud800", "a\nb", "a\r\nb", '"\n'])
values = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from([10**400, 1e308]) | texts
trees = st.recursive(
    values,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)
ENCODINGS = ["utf-8", "utf-8-sig", "latin-1", "utf-16", "utf-32", "cp037"]


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """By format, the bytes of a good export's files by path."""
    contents = {}
    for name, write in WRITERS.items():
        folder = tmp_path_factory.mktemp(name)
        write(folder, SPLITS, LABELS)
        files = (path for path in folder.rglob("*") if path.is_file())
        contents[name] = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
    return contents


def listing(folder: Path) -> dict[str, bytes]:
    """What is below a folder."""
    paths = (Path(root) / name for root, _, names in os.walk(folder) for name in names)
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def write_files(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def check_sentence(error: InputError) -> None:
    message = str(error)
    assert message.isprintable(), message
    assert message.endswith(".")
    assert len(message) < 1000


def read(files: dict[str, bytes]) -> Export | None:
    """Reads an export of these files; None if it is refused. Its writing and its findings are checked."""
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "a" / "b" / "export"
        write_files(folder, files)
        scratch = folder.parent / "scratch"
        scratch.mkdir()
        try:
            export = read_export(folder, scratch)
        except InputError as error:
            check_sentence(error)
            export = None
        after = listing(Path(parent))
        assert {name: content for name, content in after.items() if not name.startswith("a/b/scratch/")} == {
            f"a/b/export/{name}": content for name, content in files.items()
        }
    if export is not None:
        for split in export.splits:
            numbers = split.boxes[["xmin", "ymin", "xmax", "ymax"]].to_numpy()
            assert abs(numbers).max(initial=0) < float("inf")
            for finding in split.findings:
                assert finding.message.isprintable(), finding.message
                assert (finding.action == QUARANTINED) == (finding.file in split.images)
            # As the artifact's tables will be written.
            split.boxes.to_parquet(io.BytesIO())
            "".join(finding.file for finding in split.findings).encode()
    return export


def check_good(export: Export | None) -> None:
    """The good image is there with all its boxes and nothing else, and no image is missing."""
    assert export is not None
    train = export.splits[0]
    assert {GOOD.name, VICTIM.name} <= set(train.images)
    assert GOOD.name not in {finding.file for finding in train.findings}
    boxes = train.boxes[train.boxes["filename"] == GOOD.name].sort_values("label", ascending=False)
    expected = [list(box) for box in sorted(GOOD.boxes, reverse=True)]
    assert boxes[["label", "xmin", "ymin", "xmax", "ymax"]].to_numpy().tolist() == expected


def damaged(content: bytes) -> st.SearchStrategy[bytes]:
    """The content cut, or with a few bytes replaced."""
    cut = st.integers(0, len(content)).map(lambda end: content[:end])
    places = st.tuples(st.integers(0, len(content)), st.integers(0, 8), st.binary(max_size=8))
    replaced = places.map(lambda p: content[: p[0]] + p[2] + content[p[0] + p[1] :])
    return cut | replaced


# --- tensorflow

CSV = "train/_annotations.csv"


def csv_of(rows: list[list[str]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer).writerows(rows)
    return buffer.getvalue()


def good_csv(rows: dict[str, bytes]) -> tuple[str, str]:
    """The header, and the good image's rows."""
    header, *lines = rows[CSV].decode().splitlines(keepends=True)
    return header, "".join(line for line in lines if GOOD.name in line)


@quick
@given(
    before=st.lists(st.lists(cells, max_size=9), max_size=3),
    after=st.lists(st.lists(cells, min_size=8, max_size=8), max_size=3),
)
def test_bad_cells_cost_no_other_row(
    exports: dict[str, dict[str, bytes]], before: list[list[str]], after: list[list[str]]
) -> None:
    header, good = good_csv(exports["tensorflow"])

    text = header + csv_of(before) + good + csv_of(after)

    check_good(read(exports["tensorflow"] | {CSV: text.encode()}))


@quick
@given(lines=st.lists(texts, max_size=4), place=st.integers(0, 4), encoding=st.sampled_from(ENCODINGS))
def test_a_csv_of_any_lines_is_refused_or_keeps_the_good_rows(
    exports: dict[str, dict[str, bytes]], lines: list[str], place: int, encoding: str
) -> None:
    header, good = good_csv(exports["tensorflow"])
    lines = [f"{line}\n" for line in lines]
    text = header + "".join([*lines[:place], good, *lines[place:]])
    errors = "surrogatepass" if encoding.startswith("utf-") else "replace"

    export = read(exports["tensorflow"] | {CSV: text.encode(encoding, errors)})

    if export is not None:
        check_good(export)


@quick
@given(data=st.data())
def test_a_damaged_csv_is_refused_or_read(exports: dict[str, dict[str, bytes]], data: st.DataObject) -> None:
    read(exports["tensorflow"] | {CSV: data.draw(damaged(exports["tensorflow"][CSV]))})


def test_thousands_of_columns_are_read(exports: dict[str, dict[str, bytes]]) -> None:
    header, good = good_csv(exports["tensorflow"])
    more = ",".join(f"more{index}" for index in range(5000))
    wide = [f"{line.rstrip()},{more}\n" for line in (header + good).splitlines()]

    export = read(exports["tensorflow"] | {CSV: ("".join(wide) + VICTIM.name + "," * 9000).encode()})

    check_good(export)
    assert export is not None
    (finding,) = export.splits[0].findings
    assert (finding.file, finding.kind) == (VICTIM.name, "malformed_row")


# --- coco

JSON = "train/_annotations.coco.json"


def entries(*keys: str) -> st.SearchStrategy[Any]:
    """Anything, or an object with these keys."""
    return trees | st.fixed_dictionaries({}, optional=dict.fromkeys(keys, trees))


@quick
@given(
    images=st.lists(entries("id", "file_name", "width", "height"), max_size=3),
    annotations=st.lists(entries("image_id", "category_id", "bbox", "iscrowd"), max_size=3),
    extra=trees,
)
def test_bad_coco_entries_cost_no_other(
    exports: dict[str, dict[str, bytes]], images: list[Any], annotations: list[Any], extra: Any
) -> None:
    content = json.loads(exports["coco"][JSON])
    # An id that no other entry will have by chance.
    for annotation in content["annotations"]:
        annotation["image_id"] = f"image {annotation['image_id']}"
    for image in content["images"]:
        image["id"] = f"image {image['id']}"
    content["images"] = images + content["images"]
    content["annotations"] = annotations + content["annotations"]
    content["extra"] = extra

    check_good(read(exports["coco"] | {JSON: json.dumps(content).encode()}))


@quick
@given(key=st.sampled_from(["images", "annotations", "categories", None]), tree=trees, data=st.data())
def test_a_coco_file_of_anything_is_refused_or_read(
    exports: dict[str, dict[str, bytes]], key: str | None, tree: Any, data: st.DataObject
) -> None:
    content = json.loads(exports["coco"][JSON])
    text = json.dumps(content | {key: tree} if key else tree, ensure_ascii=data.draw(st.booleans()))
    encoding = data.draw(st.sampled_from(ENCODINGS))
    errors = "surrogatepass" if encoding.startswith("utf-") else "replace"

    read(exports["coco"] | {JSON: text.encode(encoding, errors)})
    read(exports["coco"] | {JSON: data.draw(damaged(exports["coco"][JSON]))})


# --- yolo

TXT = f"train/labels/{Path(VICTIM.name).stem}.txt"


@quick
@given(content=st.binary(max_size=40) | st.lists(st.lists(cells, max_size=8), max_size=4))
def test_a_bad_yolo_file_costs_no_other_image(
    exports: dict[str, dict[str, bytes]], content: bytes | list[list[str]]
) -> None:
    if not isinstance(content, bytes):
        content = "\n".join(" ".join(["0", *line]) for line in content).encode()

    check_good(read(exports["yolo"] | {TXT: content}))


@quick
@given(
    content=st.binary(max_size=40)
    | texts.map(lambda text: f"names: [{text}]".encode(errors="replace"))
    | trees.map(lambda tree: yaml.safe_dump({"names": tree}).encode(errors="replace"))
)
def test_a_data_yaml_of_anything_is_refused_or_read(
    exports: dict[str, dict[str, bytes]], content: bytes
) -> None:
    read(exports["yolo"] | {"data.yaml": content})


# --- voc

XML = f"train/{Path(VICTIM.name).stem}.xml"


@quick
@given(data=st.data())
def test_a_bad_voc_file_costs_no_other_image(
    exports: dict[str, dict[str, bytes]], data: st.DataObject
) -> None:
    content = exports["voc"][XML]
    text = content.decode().replace(">4<", f">{data.draw(cells)}<").replace(LABELS[0], data.draw(cells))
    declared = f'<?xml version="1.0" encoding="{data.draw(cells)}"?>{text}'
    encoding = data.draw(st.sampled_from(ENCODINGS))
    bad = data.draw(
        st.sampled_from([text.encode(encoding, "replace"), declared.encode(encoding, "replace")])
        | st.binary(max_size=40)
        | damaged(content)
    )

    check_good(read(exports["voc"] | {XML: bad}))


# --- tfrecord

RECORDS = "train/project.tfrecord"
FEATURES = [
    *("encoded", "filename", "width", "height", "object/class/text"),
    *(f"object/bbox/{corner}" for corner in ("xmin", "ymin", "xmax", "ymax")),
]
feature_lists = (
    st.lists((texts | cells).map(lambda text: text.encode(errors="replace")) | st.binary(), max_size=3)
    | st.lists(st.floats(width=32), max_size=3)
    | st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3)
)


def spoilt_example(features: dict[str, list[Any]]) -> bytes:
    import tensorflow as tf

    message = tf.train.Example.FromString(example(VICTIM, LABELS))
    for name, content in features.items():
        feature = message.features.feature[f"image/{name}"]
        feature.Clear()
        kinds = {bytes: feature.bytes_list, float: feature.float_list, int: feature.int64_list}
        if content:
            kinds[type(content[0])].value.extend(content)
    return bytes(message.SerializeToString())


@settings(quick, max_examples=20)
@given(
    bad=st.lists(
        st.binary(max_size=20)
        | st.dictionaries(st.sampled_from(FEATURES), feature_lists, min_size=1, max_size=3).map(
            spoilt_example
        ),
        max_size=3,
    ),
    place=st.integers(0, 3),
)
def test_bad_records_cost_no_other(
    exports: dict[str, dict[str, bytes]], tmp_path: Path, bad: list[bytes], place: int
) -> None:
    good = [example(GOOD, LABELS)]
    records = [*bad[:place], *good, *bad[place:], example(VICTIM, LABELS)]
    write_records(tmp_path / "records", records)

    check_good(read(exports["tfrecord"] | {RECORDS: (tmp_path / "records").read_bytes()}))


@settings(quick, max_examples=20)
@given(data=st.data())
def test_a_damaged_record_file_is_refused_or_read(
    exports: dict[str, dict[str, bytes]], data: st.DataObject
) -> None:
    read(exports["tfrecord"] | {RECORDS: data.draw(damaged(exports["tfrecord"][RECORDS]))})


# --- the whole step


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
        spoilt_example({"filename": [b"../../outside.jpg"]}),
        spoilt_example({"filename": [b"other.jpg"], "width": [-(2**63)], "encoded": [b"no JPEG"]}),
        b"none",
    ]
    with tempfile.TemporaryDirectory() as folder:
        write_records(Path(folder) / "bad", bad)
        return content + (Path(folder) / "bad").read_bytes()


SPOILT: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "tensorflow": (CSV, _spoil_csv),
    "coco": (JSON, _spoil_json),
    "yolo": (TXT, lambda _: b"0 -1e308 1e308 1e308 1e308\n1 nan . . .\n7\n\0"),
    "voc": (XML, lambda content: content.replace(b">4<", b">-1e308<")),
    "tfrecord": (RECORDS, _spoil_records),
}


def ingest_spoilt(parent: Path, files: dict[str, bytes]) -> None:
    """Ingests into `out/`, and checks that nothing else around it has changed."""
    folder = parent / "a" / "export"
    write_files(folder, files)
    (parent / "a" / "outside.jpg").write_bytes(b"precious")
    before = listing(parent)
    config = directory_config(folder, labels=LABELS, max_bad_fraction=1.0)
    try:
        ingest(config, parent / "a" / "out" / "dataset", parent / "a" / "out" / "report.html")
    finally:
        after = listing(parent)
        assert {name: after[name] for name in before} == before
        new = set(after) - set(before)
        assert all(name.startswith(("a/out/dataset/", "a/out/report.html")) for name in new), new


@pytest.mark.parametrize("name", SPOILT)
def test_ingest_sets_bad_annotations_aside(
    tmp_path: Path, exports: dict[str, dict[str, bytes]], name: str
) -> None:
    path, spoil = SPOILT[name]

    ingest_spoilt(tmp_path, exports[name] | {path: spoil(exports[name][path])})

    dataset = open_dataset(tmp_path / "a" / "out" / "dataset")
    train = dataset.images[dataset.images["split"] == "train"]
    assert GOOD.name in set(train["filename"])
    boxes = dataset.annotations[dataset.annotations["filename"] == GOOD.name]
    assert sorted(
        boxes[["label", "xmin", "ymin", "xmax", "ymax"]].itertuples(index=False, name=None)
    ) == sorted(GOOD.boxes)
    assert (dataset.path / "images" / "train" / GOOD.name).read_bytes() == GOOD.jpeg()
    # Each image is kept or set aside, and what is bad is listed.
    kept = {file.name for file in dataset.path.glob("*/train/*")}
    assert {GOOD.name, VICTIM.name} <= kept
    if name != "tfrecord":
        assert VICTIM.name not in set(train["filename"])
    assert len(pd.read_csv(dataset.path / "findings.csv")) > 0


@pytest.mark.parametrize(
    ("name", "path"),
    [("tensorflow", CSV), ("coco", JSON), ("yolo", "data.yaml"), ("tfrecord", RECORDS)],
)
def test_ingest_writes_nothing_when_it_refuses(
    tmp_path: Path, exports: dict[str, dict[str, bytes]], name: str, path: str
) -> None:
    with pytest.raises(InputError) as caught:
        ingest_spoilt(tmp_path, exports[name] | {path: b"\xff\x00" * 20})

    check_sentence(caught.value)
    assert not (tmp_path / "a" / "out" / "dataset").exists()
    assert not (tmp_path / "a" / "out" / "report.html").exists()
