"""Arbitrary annotation files: one sentence or findings, nothing written elsewhere, no good data lost."""

import io
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brain_tumor.artifacts.tables import COORDINATES
from brain_tumor.ingest.export import Export
from brain_tumor.ingest.findings import QUARANTINED
from brain_tumor.ingest.formats.registry import read_export
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
from tests.unit.bad_values import ENCODINGS, cells, damaged, texts, trees
from tests.unit.format_writers import example, write_records

quick = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    return write_good_exports(tmp_path_factory.mktemp("exports"))


def read(files: dict[str, bytes]) -> Export | None:
    """Reads an export of these files; None if it is refused. Checks written files and findings."""
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
            numbers = split.boxes[list(COORDINATES)].to_numpy()
            assert abs(numbers).max(initial=0) < float("inf")
            for finding in split.findings:
                assert finding.message.isprintable(), finding.message
                assert (finding.action == QUARANTINED) == (finding.file in split.images)
            # Written like the artifact's tables.
            split.boxes.to_parquet(io.BytesIO())
            "".join(finding.file for finding in split.findings).encode()
    return export


def check_good(export: Export | None) -> None:
    """Checks that the good image has exactly its boxes, and that no image is missing."""
    assert export is not None
    train = export.splits[0]
    assert {GOOD.name, VICTIM.name} <= set(train.images)
    assert GOOD.name not in {finding.file for finding in train.findings}
    boxes = train.boxes[train.boxes["filename"] == GOOD.name].sort_values("label", ascending=False)
    expected = [list(box) for box in sorted(GOOD.boxes, reverse=True)]
    assert boxes[["label", *COORDINATES]].to_numpy().tolist() == expected


# --- tensorflow


def good_csv(rows: dict[str, bytes]) -> tuple[str, str]:
    """The header, and the good image's rows."""
    header, *lines = rows[CSV].decode().splitlines(keepends=True)
    return header, "".join(line for line in lines if GOOD.name in line)


@quick
@given(
    before=st.lists(st.lists(cells, max_size=9), max_size=3),
    after=st.lists(st.lists(cells, min_size=8, max_size=8), max_size=3),
)
def test_bad_cells_do_not_affect_other_rows(
    exports: dict[str, dict[str, bytes]], before: list[list[str]], after: list[list[str]]
) -> None:
    header, good = good_csv(exports["tensorflow"])

    text = header + csv_of(before) + good + csv_of(after)

    check_good(read(exports["tensorflow"] | {CSV: text.encode()}))


@quick
@given(lines=st.lists(texts, max_size=4), place=st.integers(0, 4), encoding=st.sampled_from(ENCODINGS))
def test_a_csv_of_arbitrary_lines_is_refused_or_keeps_the_good_rows(
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


def entries(*keys: str) -> st.SearchStrategy[Any]:
    """An arbitrary value, or an object with these keys."""
    return trees | st.fixed_dictionaries({}, optional=dict.fromkeys(keys, trees))


@quick
@given(
    images=st.lists(entries("id", "file_name", "width", "height"), max_size=3),
    annotations=st.lists(entries("image_id", "category_id", "bbox", "iscrowd"), max_size=3),
    extra=trees,
)
def test_bad_coco_entries_do_not_affect_others(
    exports: dict[str, dict[str, bytes]], images: list[Any], annotations: list[Any], extra: Any
) -> None:
    content = json.loads(exports["coco"][JSON])
    # An id that no other entry has by chance.
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
def test_an_arbitrary_coco_file_is_refused_or_read(
    exports: dict[str, dict[str, bytes]], key: str | None, tree: Any, data: st.DataObject
) -> None:
    content = json.loads(exports["coco"][JSON])
    text = json.dumps(content | {key: tree} if key else tree, ensure_ascii=data.draw(st.booleans()))
    encoding = data.draw(st.sampled_from(ENCODINGS))
    errors = "surrogatepass" if encoding.startswith("utf-") else "replace"

    read(exports["coco"] | {JSON: text.encode(encoding, errors)})
    read(exports["coco"] | {JSON: data.draw(damaged(exports["coco"][JSON]))})


# --- yolo


@quick
@given(content=st.binary(max_size=40) | st.lists(st.lists(cells, max_size=8), max_size=4))
def test_a_bad_yolo_file_does_not_affect_other_images(
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
def test_an_arbitrary_data_yaml_is_refused_or_read(
    exports: dict[str, dict[str, bytes]], content: bytes
) -> None:
    read(exports["yolo"] | {"data.yaml": content})


# --- voc


@quick
@given(data=st.data())
def test_a_bad_voc_file_does_not_affect_other_images(
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

FEATURES = [
    *("encoded", "filename", "width", "height", "object/class/text"),
    *(f"object/bbox/{corner}" for corner in ("xmin", "ymin", "xmax", "ymax")),
]
feature_lists = (
    st.lists((texts | cells).map(lambda text: text.encode(errors="replace")) | st.binary(), max_size=3)
    | st.lists(st.floats(width=32), max_size=3)
    | st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3)
)


@settings(quick, max_examples=20)
@given(
    bad=st.lists(
        st.binary(max_size=20)
        | st.dictionaries(st.sampled_from(FEATURES), feature_lists, min_size=1, max_size=3).map(bad_example),
        max_size=3,
    ),
    place=st.integers(0, 3),
)
def test_bad_records_do_not_affect_others(
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
