"""Bad annotations: arbitrary rows, entries and lines in every format; damaged files."""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from hypothesis import strategies as st

from tests.campaign.bench import Bench, Draw, Outcome, image_folders, ingest_bad
from tests.campaign.invariants import Expected
from tests.campaign.workplace import Workplace
from tests.unit.bad_exports import CSV, GOOD, JSON, LABELS, RECORDS, TXT, VICTIM, XML, bad_example, csv_of
from tests.unit.bad_values import ENCODINGS, NASTY, cells, damaged, texts, trees
from tests.unit.format_writers import example, write_records

numbers = (
    st.sampled_from(["0", "1", "4.5", "-3", "41", "1e3", "nan", "inf", "9" * 400, "", " 7 ", "1,5"]) | cells
)
fractions = st.sampled_from(["0", "1", "0.5", "0.25", "1.01", "-0.2", "1e-9", "nan", "1e400"]) | cells
labels = st.sampled_from([*LABELS, "", "macro", "100%", "a,b", "label0 ", "x" * 101, "{x!r}"]) | cells
sizes = st.sampled_from(["40", "30", "0", "-1", "4e9"]) | cells


def _rows(draw: Draw, good: bytes) -> tuple[bytes, int]:
    """Rows of a CSV file, for the second image and for nonexistent images."""
    names = st.just(VICTIM.name) | st.sampled_from(NASTY)
    row = st.tuples(names, sizes, sizes, labels, numbers, numbers, numbers, numbers).map(list)
    rows = draw(st.lists(row | st.lists(cells, max_size=9), max_size=4))
    text = good.decode() + csv_of(rows)
    if draw(st.booleans()):
        text = text.replace("\r\n", draw(st.sampled_from(["\n", "\r\n"])))
    if draw(st.integers(0, 3)) == 0:
        text = draw(st.sampled_from(["\ufeff", "\n", " ", "#"])) + text
    return text.encode(), 1 + sum(bool(cells) and cells[0] == VICTIM.name for cells in rows)


def _entries(draw: Draw, good: bytes) -> tuple[bytes, int]:
    """Annotations of a COCO file, for the second image and for nonexistent images."""
    content = json.loads(good)
    victim = next(image["id"] for image in content["images"] if image["file_name"] == VICTIM.name)
    box = st.lists(st.floats() | st.integers() | numbers, min_size=3, max_size=5) | trees
    entry = st.fixed_dictionaries(
        {"image_id": st.just(victim), "category_id": st.sampled_from([1, 2, 1, 2, 7, "1", None]) | trees},
        optional={"bbox": box, "segmentation": trees, "iscrowd": st.sampled_from([0, 1]) | trees},
    )
    entries = draw(st.lists(entry, max_size=3))
    strays = draw(st.lists(trees | st.fixed_dictionaries({"image_id": texts, "bbox": box}), max_size=2))
    content["annotations"] += [*entries, *strays]
    # For example a duplicate of an entry's own image.
    content["images"] += draw(st.lists(trees | st.fixed_dictionaries({"file_name": texts}), max_size=2))
    content["extra"] = draw(trees)
    return json.dumps(content).encode(), 1 + len(entries)


def _lines(draw: Draw, good: bytes) -> tuple[bytes, int]:
    """Lines of a YOLO file: boxes, polygons, keypoints, arbitrary text."""
    line = st.lists(fractions, min_size=3, max_size=12).map(lambda values: " ".join(["0", *values]))
    lines = draw(st.lists(line | cells, max_size=4))
    text = "\n".join([good.decode(), *lines])
    return text.encode(), sum(bool(line.split()) for line in text.split("\n"))


BOMB = '<!DOCTYPE a [<!ENTITY x "xx"><!ENTITY y "&x;&x;"><!ENTITY z SYSTEM "file:///etc/passwd">]>'


def _objects(draw: Draw, good: bytes) -> tuple[bytes, int]:
    """Objects of a VOC file."""
    objects = draw(st.lists(st.tuples(labels, st.lists(numbers, min_size=3, max_size=4)), max_size=3))
    parts = []
    for label, corners in objects:
        named = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=False)
        box = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in named)
        parts.append(f"<object><name>{escape(label)}</name><bndbox>{box}</bndbox></object>")
    parts += draw(st.sampled_from([[], [], ["<object/>"], ["<object><bndbox/></object>"], ["<a>" * 2000]]))
    text = good.decode().replace("</annotation>", "".join(parts) + "</annotation>")
    if draw(st.integers(0, 4)) == 0:
        text = BOMB + text.replace(f">{LABELS[0]}<", draw(st.sampled_from([">&y;<", ">&z;<"])))
    return text.encode(errors="replace"), 1 + text.count("<object") - good.decode().count("<object")


FEATURES = ["encoded", "filename", "width", "height", "object/class/text", "object/bbox/xmin", "format"]
feature_lists = (
    st.lists((texts | cells).map(lambda text: text.encode(errors="replace")) | st.binary(), max_size=3)
    | st.lists(st.floats(width=32), max_size=3)
    | st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3)
)


def _records(draw: Draw, good: bytes) -> tuple[bytes, int | None]:
    """Arbitrary records in addition to the good ones."""
    features = st.dictionaries(st.sampled_from(FEATURES), feature_lists, min_size=1, max_size=3)
    bad = draw(st.lists(st.binary(max_size=20) | features.map(bad_example), max_size=3))
    place = draw(st.integers(0, len(bad)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "records"
        write_records(path, [*bad[:place], example(GOOD, LABELS), *bad[place:], example(VICTIM, LABELS)])
        return path.read_bytes(), None


SPOILERS: dict[str, tuple[str, Callable[[Draw, bytes], tuple[bytes, int | None]]]] = {
    "tensorflow": (CSV, _rows),
    "coco": (JSON, _entries),
    "yolo": (TXT, _lines),
    "voc": (XML, _objects),
    "tfrecord": (RECORDS, _records),
}


def bad_annotations(export_format: str) -> Callable[[Bench, Draw], Outcome]:
    """Cases with arbitrary annotations for the second image, and more for nonexistent images."""
    path, spoil = SPOILERS[export_format]

    def case(bench: Bench, draw: Draw) -> Outcome:
        files = bench.exports[export_format]
        content, entries = spoil(draw, files[path])

        def expected(place: Workplace) -> Expected:
            names = (GOOD.name, VICTIM.name) if export_format == "tfrecord" else ()
            return Expected(True, entries, folders=image_folders(place, export_format), images=names)

        return ingest_bad(bench, draw, export_format, files | {path: content}, expected)

    return case


def _special(path: Path, kind: str) -> None:
    path.unlink()
    match kind:
        case "folder":
            path.mkdir()
        case "loop":
            path.symlink_to(path)
        case "dangling":
            path.symlink_to(path.parent / "nowhere")
        case "outside":
            path.symlink_to("../../../documents/thesis.txt")
        case "pipe":
            os.mkfifo(path)


SPECIALS = ["folder", "loop", "dangling", "outside", "pipe"]
CONTENTS = [
    b"",
    b"\0" * 3000,
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"9" * 5000,
    b"\xff\xfe",
    b"\n" * 100,
    b"{}",
]
ANNOTATION_FILES = {
    "tensorflow": [CSV],
    "coco": [JSON],
    "yolo": [TXT, "data.yaml"],
    "voc": [XML],
    "tfrecord": [RECORDS, "train/project_label_map.pbtxt"],
}


def damaged_files(bench: Bench, draw: Draw) -> Outcome:
    """Annotation files that are truncated, in another encoding, of another kind, or not files at all."""
    export_format = draw(st.sampled_from(list(ANNOTATION_FILES)))
    path = draw(st.sampled_from(ANNOTATION_FILES[export_format]))
    files = dict(bench.exports[export_format])
    how: Any = draw(st.sampled_from(["damaged", "encoded", "replaced", "special", "text"]))
    kind = draw(st.sampled_from(SPECIALS)) if how == "special" else ""
    content = files[path]
    if how == "damaged":
        content = draw(damaged(content))
    elif how == "encoded":
        content = content.decode(errors="replace").encode(draw(st.sampled_from(ENCODINGS)), "replace")
    elif how == "replaced":
        content = draw(st.sampled_from(CONTENTS) | st.binary(max_size=60))
    elif how == "text":
        content = json.dumps({"names": draw(trees), "categories": draw(trees)}).encode()

    def expected(place: Workplace) -> Expected:
        return Expected(good=path in (TXT, XML), folders=image_folders(place, export_format))

    def change(place: Workplace) -> None:
        if kind:
            _special(place.export / path, kind)

    return ingest_bad(bench, draw, export_format, files | {path: content}, expected, change)
