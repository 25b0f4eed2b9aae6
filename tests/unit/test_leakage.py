from typing import Any

import pandas as pd

from brain_tumor.ingest.leakage import LISTED_PATIENTS, measure_leakage


def leakage_table(rows: list[tuple[str, str, str, int]]) -> tuple[pd.DataFrame, pd.Series]:
    frame = pd.DataFrame(rows, columns=["split", "patient_id", "sha256", "perceptual_hash"])
    return frame.astype({"perceptual_hash": "uint64"}), frame["split"]


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
