"""Defects of the whole export in each format: one sentence."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from brain_tumor.runtime.errors import InputError
from tests.unit.format_exports import (
    edit_json,
    put_bytes,
    read,
    write,
)

# Defects of the whole export: how to make one, and words of its message.


def _yaml(content: bytes) -> Callable[[Path], object]:
    return put_bytes("data.yaml", content)


def _json(content: bytes) -> Callable[[Path], object]:
    return put_bytes("train/_annotations.coco.json", content)


def _category(**values: object) -> Callable[[Path], object]:
    return lambda folder: edit_json(folder, lambda content: content["categories"][0].update(values))


def _flip(folder: Path) -> None:
    path = folder / "train/project.tfrecord"
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)


REFUSALS: dict[str, tuple[str, Callable[[Path], object], list[str]]] = {
    "COCO: no file": (
        "coco",
        lambda folder: (folder / "test/_annotations.coco.json").unlink(),
        ["export/test"],
    ),
    "COCO: half a file": ("coco", _json(b'{"images": [\n{"id'), ["_annotations.coco.json row 2", "not JSON"]),
    "COCO: latin-1": (
        "coco",
        _json('{"images": "é"}'.encode("latin-1")),
        ["_annotations.coco.json", "not readable JSON"],
    ),
    "COCO: nested": ("coco", _json(b"[" * 200_000), ["_annotations.coco.json", "not readable JSON"]),
    "COCO: huge integer": (
        "coco",
        _json(b"[" + b"9" * 5000 + b"]"),
        ["_annotations.coco.json", "not readable JSON"],
    ),
    "COCO: a list": ("coco", _json(b"[]"), ["_annotations.coco.json", "no list 'images'"]),
    "COCO: no annotations": (
        "coco",
        _json(b'{"images": [], "annotations": {}}'),
        ["_annotations.coco.json", "no list 'annotations'"],
    ),
    "COCO: category without name": ("coco", _category(name=None), ["category 1", "no name"]),
    "COCO: half a surrogate": ("coco", _category(name="\ud800"), ["category 1", "no name"]),
    "COCO: category id twice": ("coco", _category(id=2), ["category 3", "the id '2'"]),
    "YOLO: no data.yaml": ("yolo", lambda folder: (folder / "data.yaml").unlink(), ["has no data.yaml"]),
    "YOLO: no YAML": ("yolo", _yaml(b"a: b\nnames: [a"), ["data.yaml row 2", "not readable YAML"]),
    "YOLO: latin-1": ("yolo", _yaml(b"names: [\xe9]"), ["data.yaml", "not readable YAML"]),
    "YOLO: nested": ("yolo", _yaml(b"[" * 100_000), ["data.yaml", "not readable YAML"]),
    "YOLO: no names": ("yolo", _yaml(b"nc: 3"), ["data.yaml", "has no names"]),
    "YOLO: names of names": ("yolo", _yaml(b"names: [[a]]"), ["class '0' named a list"]),
    "YOLO: laughs": (
        "yolo",
        _yaml(
            b"a: &a [x,x]\n"
            + b"".join(b"%c: &%c [*%c,*%c]\n" % (i, i, i - 1, i - 1) for i in range(98, 122))
            + b"names: *y"
        ),
        ["class '0' named a list"],
    ),
    "YOLO: no labels": (
        "yolo",
        lambda folder: (folder / "valid/labels").rename(folder / "valid/texts"),
        ["no folder valid/labels/"],
    ),
    "YOLO: no images": (
        "yolo",
        lambda folder: (folder / "valid/images").rename(folder / "valid/pictures"),
        ["no folder valid/images/"],
    ),
    "VOC: no file": (
        "voc",
        lambda folder: [path.unlink() for path in (folder / "valid").glob("*.xml")] and None,
        ["export/valid", "no XML file"],
    ),
    "TFRecord: damaged": (
        "tfrecord",
        _flip,
        ["project.tfrecord", "record 3 is damaged (its checksum is wrong)"],
    ),
    "TFRecord: cut": (
        "tfrecord",
        lambda folder: _cut(folder / "train/project.tfrecord"),
        ["project.tfrecord", "record 3 is damaged (its end is missing)"],
    ),
    "TFRecord: no record": (
        "tfrecord",
        put_bytes("train/project.tfrecord", b""),
        ["export/train", "no image"],
    ),
    "TFRecord: no file": (
        "tfrecord",
        lambda folder: (folder / "valid/project.tfrecord").unlink(),
        ["export/valid", "no .tfrecord"],
    ),
    "two formats": (
        "coco",
        put_bytes("valid/_annotations.csv", b""),
        ["several formats", "tensorflow (valid/_annotations.csv)", "coco (train/_annotations.coco.json)"],
    ),
    "another format": (
        "tensorflow",
        lambda folder: (
            [
                path.rename(path.with_name("_annotations.createml.json"))
                for path in list(folder.glob("*/*.csv"))
            ]
            and None
        ),
        ["_annotations.createml.json", "supported are tensorflow", "tfrecord"],
    ),
    "one split in two folders": (
        "tensorflow",
        lambda folder: (folder / "val").mkdir(),
        ["valid/ and val/", "the same split"],
    ),
}


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


@pytest.mark.parametrize("refusal", REFUSALS)
def test_an_unreadable_export_is_one_sentence(tmp_path: Path, refusal: str) -> None:
    name, spoil, words = REFUSALS[refusal]
    folder = write(tmp_path, name)
    spoil(folder)

    with pytest.raises(InputError) as caught:
        read(folder)

    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message
    assert message.endswith(".")
    assert len(message) < 600


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("yolo", "train/labels/volume_1_slice_1.txt"),
        ("voc", "train/volume_1_slice_1.xml"),
        ("tfrecord", "train/project.tfrecord"),
    ],
)
def test_a_pipe_among_annotations_is_not_waited_for(name: str, file: str, tmp_path: Path) -> None:
    folder = write(tmp_path, name)
    (folder / file).unlink()
    os.mkfifo(folder / file)
    try:
        said = [finding.message for split in read(folder).splits for finding in split.findings]
    except InputError as error:
        said = [str(error)]
    assert any("is a pipe or a device" in each for each in said)
