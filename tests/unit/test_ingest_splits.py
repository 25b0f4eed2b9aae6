"""The splits of a dataset artifact."""

from pathlib import Path

import pandas as pd
import pytest

from brain_tumor.artifacts.dataset import open_dataset
from brain_tumor.ingest.ingest import ingest
from brain_tumor.runtime.errors import InputError
from brain_tumor.stores.files import hash_files
from tests.unit.exports import directory_config, write_export, write_image, write_rows


def write_patients(folder: Path, sizes: dict[str, dict[int, int]]) -> Path:
    """An export whose splits have patients with these numbers of slices, with Roboflow's file names."""
    for split, patients in sizes.items():
        (folder / split).mkdir(parents=True)
        for patient, slices in patients.items():
            for index in range(slices):
                write_image(folder / split / f"volume_{patient}_slice_{index}_jpg.rf.{split}{index:026x}.jpg")
        first = sorted(path.name for path in (folder / split).iterdir())[0]
        write_rows(folder, split, [f"{first},40,30,label1,5,6,25,26"])
    return folder


def test_splits_by_patient(tmp_path: Path) -> None:
    """In the provided splits, patients 1 and 2 are in train and valid, as in a split by slices."""
    sizes = {
        "train": {1: 9, 2: 9, 3: 9, 4: 9, 10: 9},
        "valid": {1: 3, 2: 3, 5: 6},
        "test": {6: 6, 7: 5, 8: 1},
    }
    folder = write_patients(tmp_path / "export", sizes)

    ingest(directory_config(folder, split="patient"), tmp_path / "dataset")

    dataset = open_dataset(tmp_path / "dataset")
    images = dataset.images
    assert (images.groupby("patient_id")["split"].nunique() == 1).all()
    assert set(images["patient_id"]) == {"1", "2", "3", "4", "5", "6", "7", "8", "10"}
    assert len(images) == sum(sum(patients.values()) for patients in sizes.values())
    pd.testing.assert_series_equal(
        images["source_id"].sort_values(ignore_index=True),
        pd.Series(
            sorted(
                name.removeprefix("images/") for name in hash_files(tmp_path / "dataset") if "images/" in name
            )
        ),
        check_names=False,
    )
    assert images["split"].tolist() == sorted(images["split"], key=["train", "valid", "test"].index)
    boxes = dataset.annotations.merge(images, on="source_id", suffixes=("", "_of_image"))
    assert len(boxes) == 3 and (boxes["split"] == boxes["split_of_image"]).all()

    leakage = dataset.manifest.leakage
    assert leakage.provided["train/valid"].shared_patients == 2
    assert leakage.provided["train/valid"].patients == ["1", "2"]
    assert {pair: found.shared_patients for pair, found in leakage.used.items()} == {
        "train/valid": 0,
        "train/test": 0,
        "valid/test": 0,
    }
    metrics = dataset.manifest.metrics()
    assert metrics["train_valid_shared_patients"] == 0
    assert metrics["provided_train_valid_shared_patients"] == 2
    assert dataset.manifest.split == "patient"


def test_the_same_name_in_two_provided_splits_can_be_in_one_new_split(tmp_path: Path) -> None:
    folder = write_export(tmp_path / "export", train=["volume_1_slice_1.jpg,40,30,label0,1,2,3,4"])
    write_image(folder / "valid" / "volume_1_slice_1.jpg")
    write_rows(folder, "valid", ["volume_1_slice_1.jpg,40,30,label0,5,6,7,8"])

    ingest(directory_config(folder, split="patient"), tmp_path / "dataset")

    dataset = open_dataset(tmp_path / "dataset")
    images = dataset.images[dataset.images["filename"] == "volume_1_slice_1.jpg"]
    assert images["source_id"].tolist() == ["train/volume_1_slice_1.jpg", "valid/volume_1_slice_1.jpg"]
    assert images["split"].nunique() == 1
    boxes = dataset.annotations.set_index("source_id")["xmin"]
    assert boxes.to_dict() == {"train/volume_1_slice_1.jpg": 1, "valid/volume_1_slice_1.jpg": 5}


@pytest.mark.parametrize("missing", [["test"], ["valid", "test"]])
def test_splits_by_patient_need_no_provided_ones(tmp_path: Path, missing: list[str]) -> None:
    folder = write_patients(
        tmp_path / "export", {"train": dict.fromkeys(range(1, 9), 4), "valid": {9: 4}, "test": {10: 4}}
    )
    for split in missing:
        for path in (folder / split).iterdir():
            path.unlink()
        (folder / split).rmdir()

    ingest(directory_config(folder, split="patient"), tmp_path / "dataset")

    images = open_dataset(tmp_path / "dataset").images
    assert set(images["split"]) == {"train", "valid", "test"}
    with pytest.raises(
        InputError, match=f"no split {', '.join(missing)}; add it, or let dataset.split=patient"
    ):
        ingest(directory_config(folder), tmp_path / "other")
