from typing import Any

import pandas as pd

from brain_tumor.ingest.leakage import LISTED_PATIENTS, measure_leakage


def leakage_table(rows: list[tuple[str, str, str, int]]) -> tuple[pd.DataFrame, pd.Series]:
    frame = pd.DataFrame(rows, columns=["split", "patient_id", "sha256", "perceptual_hash"])
    frame = frame.assign(filename=[f"{place}.jpg" for place in frame.index])
    return frame.astype({"perceptual_hash": "uint64"}), frame["split"]


def test_unknown_patients_are_not_counted_and_copies_of_a_picture_are() -> None:
    images, splits = leakage_table(
        [
            ("train", None, "a", 0b0),
            ("train", None, "b", 2**40 - 1),
            ("valid", None, "c", 2**63 - 1),
            ("valid", None, "d", 2**33 - 1),
            ("test", "3", "e", 2**20 - 1),
        ]
    )
    names = ["x_jpg.rf.0a1.jpg", "y_jpg.rf.0a2.jpg", "x_jpg.rf.0a3.jpg", "y.jpg", "z_jpg.rf.0a3.jpg"]
    found = measure_leakage(images.assign(filename=names), splits, distance=0)
    assert [(shared.shared_patients, shared.patients) for shared in found.values()] == [(None, [])] * 3
    assert {pair: shared.near_duplicates for pair, shared in found.items()} == {
        "train/valid": 1,
        "train/test": 0,
        "valid/test": 0,
    }


def test_leakage_is_counted_by_pair() -> None:
    images, splits = leakage_table(
        [
            ("train", "1", "a", 0b0),
            ("train", "10", "b", 2**40 - 1),
            ("train", "2", "c", 2**63),
            ("valid", "2", "a", 0b0),  # the same bytes as train's first image, so a near-duplicate too
            ("valid", "10", "d", 0b11),  # two bits from it
            ("test", "3", "e", 2**20),  # one bit from it
            ("test", "3", "d", 2**64 - 1),
        ]
    )
    assert {
        pair: shared.model_dump() for pair, shared in measure_leakage(images, splits, distance=2).items()
    } == {
        "train/valid": {
            "shared_patients": 2,
            "patients": ["2", "10"],
            "identical_images": 1,
            "near_duplicates": 2,
        },
        "train/test": {"shared_patients": 0, "patients": [], "identical_images": 0, "near_duplicates": 1},
        "valid/test": {"shared_patients": 0, "patients": [], "identical_images": 1, "near_duplicates": 1},
    }


def test_many_shared_patients_are_counted_and_the_first_listed() -> None:
    rows: list[Any] = [
        (split, str(number), f"{split}{number}", number)
        for split in ("train", "test")
        for number in range(50)
    ]
    leakage = measure_leakage(*leakage_table(rows), distance=0)["train/test"]
    assert leakage.shared_patients == 50
    assert leakage.patients == [str(number) for number in range(LISTED_PATIENTS)]
