import csv
import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from brain_tumor.boxes.measures import area
from brain_tumor.config import SyntheticDataset
from brain_tumor.ingest.sources.synthetic import draw_slice, make_patient, write_export
from brain_tumor.runtime.errors import InputError
from brain_tumor.stores.files import hash_files

NAME = re.compile(r"volume_(\d+)_slice_(\d+)_jpg\.rf\.[0-9a-f]{32}\.jpg")


def config(**changes: Any) -> SyntheticDataset:
    values: dict[str, Any] = {
        "source": "synthetic",
        "labels": ["core", "whole", "ring"],
        "train_patients": 3,
        "valid_patients": 1,
        "test_patients": 2,
        "slices_per_patient": 16,
    }
    return SyntheticDataset.model_validate(values | changes)


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic") / "export"
    write_export(folder, config())
    return folder


def parse_name(name: str) -> tuple[str, str]:
    """The patient and the slice in a file name."""
    match = NAME.fullmatch(name)
    assert match
    return match[1], match[2]


def read_boxes(folder: Path, split: str) -> dict[str, dict[str, list[int]]]:
    """A split's boxes by file name and label."""
    boxes: dict[str, dict[str, list[int]]] = {}
    with open(folder / split / "_annotations.csv", newline="") as file:
        for row in csv.DictReader(file):
            box = [int(row[name]) for name in ("xmin", "ymin", "xmax", "ymax")]
            assert row["class"] not in boxes.setdefault(row["filename"], {})
            boxes[row["filename"]][row["class"]] = box
    return boxes


def test_the_layout_is_that_of_an_export(export: Path) -> None:
    assert sorted(path.name for path in export.iterdir()) == ["test", "train", "valid"]
    for split, patients in (("train", 3), ("valid", 1), ("test", 2)):
        lines = (export / split / "_annotations.csv").read_text().splitlines()
        assert lines[0] == "filename,width,height,class,xmin,ymin,xmax,ymax"
        names = {path.name for path in (export / split).iterdir()} - {"_annotations.csv"}
        assert len(names) == patients * 16
        assert {parse_name(name)[1] for name in names} == {str(index) for index in range(1, 17)}
        for row in csv.DictReader(lines):
            with Image.open(export / split / row["filename"]) as image:
                assert (image.format, image.mode) == ("JPEG", "L")
                assert image.size == (int(row["width"]), int(row["height"]))


def test_no_patient_is_in_two_splits(export: Path) -> None:
    patients = {
        split: {parse_name(path.name)[0] for path in (export / split).glob("*.jpg")}
        for split in ("train", "valid", "test")
    }
    assert patients == {"train": {"1", "2", "3"}, "valid": {"4"}, "test": {"5", "6"}}


def test_the_seed_determines_the_bytes(export: Path, tmp_path: Path) -> None:
    write_export(tmp_path / "again", config())
    write_export(tmp_path / "other", config(seed=1))

    assert hash_files(tmp_path / "again") == hash_files(export)
    assert not set(hash_files(tmp_path / "other").values()) & set(hash_files(export).values())


def test_a_patient_does_not_depend_on_the_number_of_patients(export: Path, tmp_path: Path) -> None:
    write_export(tmp_path / "fewer", config(train_patients=1))

    fewer = {path.name: path.read_bytes() for path in (tmp_path / "fewer" / "train").glob("*.jpg")}
    assert len(fewer) == 16
    assert all((export / "train" / name).read_bytes() == content for name, content in fewer.items())


def test_regions_and_their_boxes_are_nested(export: Path) -> None:
    with_all = 0
    for split in ("train", "valid", "test"):
        for boxes in read_boxes(export, split).values():
            assert "whole" in boxes
            for inner, outer in (("core", "ring"), ("ring", "whole")):
                if inner in boxes:
                    (a, b, c, d), (e, f, g, h) = boxes[inner], boxes[outer]
                    assert e <= a < c <= g and f <= b < d <= h
            with_all += len(boxes) == 3
    assert with_all >= 6


def test_a_box_encloses_its_region_exactly(export: Path) -> None:
    rng = np.random.default_rng([0, 1])
    patient = make_patient(rng)
    boxes = {
        parse_name(name)[1]: found
        for name, found in read_boxes(export, "train").items()
        if "volume_1_" in name
    }

    seen = 0
    for index, height in enumerate(patient.heights(16), start=1):
        _, masks = draw_slice(patient, height, rng)
        found = boxes.get(str(index), {})
        for label, mask in zip(("core", "whole", "ring"), masks, strict=True):
            assert (label in found) == mask.any()
            if label in found:
                xmin, ymin, xmax, ymax = found[label]
                inside = mask[ymin:ymax, xmin:xmax]
                assert inside.sum() == mask.sum()
                assert all(edge.any() for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))
                seen += 1
    assert seen > 3


def test_a_tumor_grows_and_shrinks_along_the_slices(export: Path) -> None:
    for split in ("train", "valid", "test"):
        areas: dict[str, list[int]] = {}
        boxes = read_boxes(export, split)
        for path in (export / split).glob("*.jpg"):
            patient, index = parse_name(path.name)
            box = boxes.get(path.name, {}).get("whole", [0, 0, 0, 0])
            areas.setdefault(patient, [0] * 16)[int(index) - 1] = int(area(np.array(box)))
        for along in areas.values():
            present = [index for index, extent in enumerate(along) if extent]
            if not present:
                continue  # a patient without a tumor
            assert 3 <= len(present) < 16  # some slices show no tumor
            assert present == list(range(present[0], present[-1] + 1))
            # Except for its rough surface, it first only grows, and then only shrinks.
            rough, top = 0.1 * max(along), along.index(max(along))
            assert all(a <= b + rough for a, b in itertools.pairwise(along[: top + 1]))
            assert all(a >= b - rough for a, b in itertools.pairwise(along[top:]))


def test_another_number_of_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"dataset\.labels has 1"):
        write_export(tmp_path / "export", config(labels=["tumor"]))
    assert not (tmp_path / "export").exists()
