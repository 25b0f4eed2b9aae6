import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from brain_tumor.artifacts.dataset import open_dataset
from brain_tumor.config.compose import compose
from brain_tumor.config.dataset import AnyDataset
from brain_tumor.ingest.ingest import ingest
from brain_tumor.runtime.errors import InputError
from brain_tumor.stores.files import hash_file, hash_files
from tests.unit.exports import FAULTS, directory_config, write_export, write_image, write_rows

ROWS = {
    "train": [
        "volume_1_slice_2.jpg,40,30,label1,5,6,25,26.5",
        "volume_1_slice_2.jpg,40,30,label0,7,8,9,10",
        "volume_2_slice_1.jpg,40,30,label1,1,1,2,2",
    ],
    "valid": ["volume_3_slice_3.jpg,40,30,label2,0,0,40,30"],
}


def synthetic_config(seed: int = 0) -> AnyDataset:
    sizes = {"train_patients": 2, "valid_patients": 1, "test_patients": 1, "slices_per_patient": 4}
    overrides = [f"dataset.{name}={number}" for name, number in sizes.items()]
    return compose([*overrides, f"dataset.seed={seed}"]).steps().dataset


def test_the_artifact_contains_the_unchanged_images_and_two_tables(tmp_path: Path) -> None:
    folder = write_export(tmp_path / "export", **ROWS)

    ingest(directory_config(folder), tmp_path / "dataset")

    for split in ("train", "valid", "test"):
        before = {path.name: path.read_bytes() for path in (folder / split).glob("*.jpg")}
        after = {path.name: path.read_bytes() for path in (tmp_path / "dataset" / "images" / split).iterdir()}
        assert before == after
    dataset = open_dataset(tmp_path / "dataset")
    assert dataset.images["split"].tolist() == ["train"] * 6 + ["valid"] * 3 + ["test"] * 3
    image = folder / "train" / "volume_1_slice_2.jpg"
    found = dataset.images.iloc[1].to_dict()
    assert len(found.pop("perceptual_hash")) == 16
    assert found == {
        "split": "train",
        "filename": "volume_1_slice_2.jpg",
        "source_id": "train/volume_1_slice_2.jpg",
        "width": 40,
        "height": 30,
        "patient_id": "1",
        "slice": 2,
        "grey": True,
        "format": "jpeg",
        "sha256": hash_file(image),
    }
    assert [row[0] for row in dataset.annotations.to_dict("split")["data"]] == [
        f"{split}/{name}" for split, name, *_ in dataset.annotations.iloc[:, 1:].to_dict("split")["data"]
    ]
    assert dataset.annotations.iloc[:, 1:].to_dict("split")["data"] == [
        ["train", "volume_1_slice_2.jpg", "label0", 7.0, 8.0, 9.0, 10.0],
        ["train", "volume_1_slice_2.jpg", "label1", 5.0, 6.0, 25.0, 26.5],
        ["train", "volume_2_slice_1.jpg", "label1", 1.0, 1.0, 2.0, 2.0],
        ["valid", "volume_3_slice_3.jpg", "label2", 0.0, 0.0, 40.0, 30.0],
    ]


@pytest.mark.parametrize("split", ["provided", "patient"])
def test_the_result_equals_the_artifact(tmp_path: Path, split: str) -> None:
    folder = write_export(tmp_path / "export", **ROWS)

    ingested = ingest(directory_config(folder, split=split), tmp_path / "dataset")

    dataset = open_dataset(tmp_path / "dataset")
    assert ingested.dataset.manifest == dataset.manifest
    assert ingested.images["source_id"].tolist() == dataset.images["source_id"].tolist()
    assert ingested.images["intensity"].between(0, 255).all()
    places = ingested.annotations["image"]
    assert dataset.images["source_id"][places].tolist() == dataset.annotations["source_id"].tolist()
    assert ingested.annotations["label"].tolist() == dataset.annotations["label"].tolist()
    assert ingested.histogram.sum() == 12 * 40 * 30


def test_each_file_of_the_artifact_has_its_sha256_once(tmp_path: Path) -> None:
    folder = write_export(tmp_path / "export")
    (folder / "test" / "volume_4_slice_1.jpg").write_bytes(b"")

    ingest(directory_config(folder), tmp_path / "dataset")

    dataset = open_dataset(tmp_path / "dataset")
    images = "images/" + dataset.images["source_id"]
    indexed = dict(zip(images, dataset.images["sha256"], strict=True))
    assert sorted(dataset.manifest.files) == [
        "annotations.parquet",
        "findings.csv",
        "images.parquet",
        "quarantine/test/volume_4_slice_1.jpg",
    ]
    found = hash_files(tmp_path / "dataset")
    del found["manifest.json"]
    assert indexed | dataset.manifest.files == found


def test_the_manifest_has_the_counts(tmp_path: Path) -> None:
    folder = write_export(tmp_path / "export", **ROWS)
    (folder / "train" / "volume_2_slice_2.jpg").write_bytes(b"")

    ingest(directory_config(folder), tmp_path / "dataset")

    manifest = open_dataset(tmp_path / "dataset").manifest
    assert (manifest.source, manifest.notice) == ("directory", "")
    assert manifest.labels == ["label0", "label1", "label2"]
    assert manifest.config["path"] == str(folder)
    assert (manifest.format, manifest.grey, manifest.split) == ("tensorflow", True, "provided")
    assert manifest.findings == {"unreadable_image": 1}
    assert manifest.leakage.used == manifest.leakage.provided
    assert manifest.counts["train"].model_dump() == {
        "images": 5,
        "images_with_boxes": 2,
        "boxes": 3,
        "patients": 2,
        "quarantined": 1,
        "boxes_by_label": {"label0": 1, "label1": 2, "label2": 0},
    }
    assert manifest.counts["test"].images_with_boxes == 0
    metrics = manifest.metrics()
    assert metrics["train_images"] == 5
    assert metrics["train_quarantined"] == 1
    assert metrics["train_boxes_label1"] == 2
    assert metrics["valid_boxes_label2"] == 1
    assert (metrics["findings"], metrics["unmatched_names"]) == (1, 0)
    assert all(type(value) is int for value in metrics.values())
    assert list(metrics) == sorted(metrics)


def test_a_bad_image_is_quarantined_byte_for_byte(tmp_path: Path) -> None:
    folder = write_export(tmp_path / "export", train=["volume_1_slice_2.jpg,40,30,tumor,5,6,25,26"])
    whole = (folder / "test" / "volume_4_slice_1.jpg").read_bytes()
    (folder / "test" / "volume_4_slice_1.jpg").write_bytes(whole[:-30])

    ingest(directory_config(folder), tmp_path / "dataset")

    quarantine = tmp_path / "dataset" / "quarantine"
    assert sorted(hash_files(quarantine)) == ["test/volume_4_slice_1.jpg", "train/volume_1_slice_2.jpg"]
    assert (quarantine / "test" / "volume_4_slice_1.jpg").read_bytes() == whole[:-30]
    bad = folder / "train" / "volume_1_slice_2.jpg"
    assert (quarantine / "train" / "volume_1_slice_2.jpg").read_bytes() == bad.read_bytes()
    assert not (tmp_path / "dataset" / "images" / "train" / "volume_1_slice_2.jpg").exists()
    with open(tmp_path / "dataset" / "findings.csv", newline="") as file:
        findings = list(csv.DictReader(file))
    assert [(row["split"], row["file"], row["row"], row["kind"], row["action"]) for row in findings] == [
        ("train", "volume_1_slice_2.jpg", "2", "unknown_label", "image quarantined"),
        ("test", "volume_4_slice_1.jpg", "", "unreadable_image", "image quarantined"),
    ]


def test_a_row_cannot_cause_access_outside_the_export(tmp_path: Path) -> None:
    folder = write_export(tmp_path / "export")
    write_image(tmp_path / "outside.jpg")
    names = ["../../outside.jpg", str(tmp_path / "outside.jpg"), "../train/volume_1_slice_1.jpg"]
    write_rows(folder, "train", [f"{name},40,30,label0,1,1,2,2" for name in names])
    before = hash_files(tmp_path)

    ingest(directory_config(folder), tmp_path / "out" / "dataset")

    after = hash_files(tmp_path)
    new = {name for name in after if name not in before}
    assert {name: after[name] for name in before} == before
    assert all(name.startswith("out/dataset/") for name in new)
    assert before["outside.jpg"] not in {after[name] for name in new}
    assert open_dataset(tmp_path / "out" / "dataset").annotations.empty


@pytest.mark.parametrize("fault", FAULTS)
def test_nothing_is_left_after_a_structural_defect(tmp_path: Path, fault: str) -> None:
    folder = write_export(tmp_path / "export")
    FAULTS[fault][0](folder)

    with pytest.raises(InputError):
        ingest(directory_config(folder), tmp_path / "out" / "dataset")

    assert list((tmp_path / "out").iterdir()) == []


def test_nothing_is_left_when_too_much_is_bad(tmp_path: Path) -> None:
    folder = write_export(tmp_path / "export", train=["absent.jpg,40,30,label0,1,1,2,2"])

    with pytest.raises(InputError, match=r"1 of 13 images .* row 2 names absent\.jpg"):
        ingest(directory_config(folder, max_bad_fraction=0.05), tmp_path / "out" / "dataset")

    assert list((tmp_path / "out").iterdir()) == []


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    folder = write_export(tmp_path / "export", **ROWS, test=["absent.jpg,40,30,label0,1,1,2,2"])

    for run in ("first", "second"):
        ingest(directory_config(folder), tmp_path / run / "dataset")

    first, second = hash_files(tmp_path / "first"), hash_files(tmp_path / "second")
    assert first == second
    assert {"dataset/manifest.json", "dataset/images.parquet"} <= set(first)


def test_synthetic_patients_depend_on_the_seed_and_have_a_notice(tmp_path: Path) -> None:
    for run, seed in (("first", 0), ("second", 0), ("other", 1)):
        ingest(synthetic_config(seed), tmp_path / run / "dataset")

    assert hash_files(tmp_path / "first") == hash_files(tmp_path / "second")
    assert hash_files(tmp_path / "first") != hash_files(tmp_path / "other")
    dataset = open_dataset(tmp_path / "first" / "dataset")
    assert len(dataset.images) == 16
    assert dataset.images["patient_id"].unique().tolist() == ["1", "2", "3", "4"]
    assert "Synthetic data" in dataset.manifest.notice


def test_the_patient_of_a_name_that_the_pattern_does_not_match_is_unknown(tmp_path: Path) -> None:
    folder = write_export(tmp_path / "export")
    write_image(folder / "train" / "scan A.jpg")
    write_image(folder / "train" / "volume_9_slice_x.jpg")

    dataset = ingest(directory_config(folder), tmp_path / "dataset").dataset

    images, counts = dataset.images.set_index("filename"), dataset.manifest.counts
    unknown = ["scan A.jpg", "volume_9_slice_x.jpg"]
    assert sorted(images.index[images["patient_id"].isna()]) == unknown
    assert images["slice"].isna().sum() == dataset.manifest.unmatched_names == 2
    assert (counts["train"].patients, counts["valid"].patients) == (None, 1)
    assert dataset.manifest.leakage.used["train/valid"].shared_patients is None
    assert dataset.manifest.leakage.used["valid/test"].shared_patients == 0
    assert "train_patients" not in dataset.manifest.metrics()

    with pytest.raises(InputError, match=r"finds none in 2 of 14 names, such as train/scan A\.jpg; give a"):
        ingest(directory_config(folder, split="patient"), tmp_path / "other")


def test_a_slice_number_that_is_too_large_is_refused(tmp_path: Path) -> None:
    folder = write_export(tmp_path / "export")
    write_image(folder / "train" / f"volume_1_slice_{10**30}.jpg")

    with pytest.raises(
        InputError, match=r"finds the slice '10{30}' in train/volume_1_slice_10+\.jpg; its group"
    ):
        ingest(directory_config(folder), tmp_path / "dataset")


def test_one_color_image_makes_a_color_data_set(tmp_path: Path) -> None:
    folder = write_export(tmp_path / "export")
    Image.new("RGB", (40, 30), (200, 30, 30)).save(folder / "valid" / "volume_3_slice_2.jpg", "JPEG")

    ingest(directory_config(folder), tmp_path / "dataset")

    dataset = open_dataset(tmp_path / "dataset")
    assert dataset.manifest.grey is False
    assert dataset.images.loc[~dataset.images["grey"], "source_id"].tolist() == ["valid/volume_3_slice_2.jpg"]


def test_the_tables_keep_their_types_when_they_are_empty(tmp_path: Path) -> None:
    folder = write_export(tmp_path / "export")
    full, empty = tmp_path / "full", tmp_path / "empty"
    ingest(directory_config(folder), full)
    for path in folder.glob("*/*.jpg"):
        path.write_bytes(b"")
    ingest(directory_config(folder), empty)

    assert len(open_dataset(empty).images) == len(open_dataset(empty).annotations) == 0
    pd.testing.assert_series_equal(open_dataset(full).images.dtypes, open_dataset(empty).images.dtypes)
    assert len(hash_files(empty / "quarantine")) == 12


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"filename_pattern": "(?P<patient>v)(?P<slice>o)"}, "the slice 'o' in train/volume_1_slice_1.jpg"),
        (
            {"split": "patient", "filename_pattern": "(?P<patient>volume).*(?P<slice>[0-9])"},
            "dataset.split=patient needs a patient for each of train, valid, test, but there are 1",
        ),
    ],
)
def test_a_config_that_does_not_fit_is_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    folder = write_export(tmp_path / "export")

    with pytest.raises(InputError) as caught:
        ingest(directory_config(folder, **changes), tmp_path / "dataset")

    assert words in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["export"]


def test_opening_something_else_than_a_dataset_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no dataset artifact"):
        open_dataset(tmp_path)


def test_ingest_imports_neither_tensorflow_nor_matplotlib() -> None:
    code = (
        "import sys, brain_tumor.ingest.ingest; "
        "print({'tensorflow', 'keras', 'matplotlib'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"
