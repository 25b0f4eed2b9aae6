"""The choice of slices for a gallery."""

import pandas as pd

from brain_tumor.reports.slices import choose_slices


def make_slices(patients: dict[str, tuple[int, int]]) -> pd.DataFrame:
    """Rows of slices, given the number with and without a box by patient."""
    rows = [
        {
            "patient_id": patient,
            "slice": number,
            "source_id": f"test/{patient}_{number}.jpg",
            "has_box": number < with_box,
        }
        for patient, (with_box, without_box) in patients.items()
        for number in range(with_box + without_box)
    ]
    return pd.DataFrame(rows)


def test_slices_are_spread_over_patients_and_some_have_no_box() -> None:
    table = make_slices({"1": (40, 40), "2": (3, 60), "10": (5, 5)})
    chosen = choose_slices(table, 10, seed=0)
    rows = table.set_index("source_id").loc[chosen]
    assert rows["has_box"].sum() == 8
    assert set(rows[rows["has_box"]]["patient_id"].value_counts()) == {3, 2}
    assert rows[~rows["has_box"]]["patient_id"].nunique() == 2
    assert list(dict.fromkeys(rows["patient_id"])) == ["1", "2", "10"]
    assert chosen == choose_slices(table, 10, seed=0) != choose_slices(table, 10, seed=1)


def test_missing_slices_are_replaced_by_others() -> None:
    assert len(choose_slices(make_slices({"1": (9, 0)}), 8, seed=0)) == 8
    assert len(choose_slices(make_slices({"1": (1, 9)}), 8, seed=0)) == 8
    assert len(choose_slices(make_slices({"1": (1, 2)}), 8, seed=0)) == 3


def test_slices_of_unknown_patients_are_drawn_too() -> None:
    slices = make_slices({"1": (2, 2), "2": (2, 2)})
    slices["patient_id"] = pd.array([None] * 8, "str")
    assert len(choose_slices(slices, 6, seed=0)) == 6
