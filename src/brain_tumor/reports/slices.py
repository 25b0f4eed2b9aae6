"""The choice of slices for a gallery."""

import pandas as pd

SHARE_WITHOUT_BOX = 0.2


def choose_slices(slices: pd.DataFrame, count: int, seed: int) -> list[str]:
    """Samples slices for a gallery, spread over the patients, about a fifth of them without a box.

    Args:
        slices: One row per slice: source_id, patient_id, slice, has_box.
        count: The number of slices; all of them if there are fewer.
        seed: Seed of the random choice.

    Returns:
        Their source_id, sorted by patient and slice.
    """
    # Each slice of an unknown patient counts as a patient of its own.
    slices = slices.assign(patient_id=slices["patient_id"].astype("str").fillna(slices["source_id"]))
    drawn = slices.reset_index(drop=True)[["has_box", "patient_id"]].sample(frac=1, random_state=seed)
    # Round-robin: first each patient's first slice, then each patient's second one, and so on.
    drawn["turn"] = drawn.groupby(["has_box", "patient_id"], sort=False).cumcount()
    drawn = drawn.sort_values("turn", kind="stable")
    with_box, without_box = drawn.index[drawn["has_box"]], drawn.index[~drawn["has_box"]]
    wanted = max(round(count * SHARE_WITHOUT_BOX), count - len(with_box))
    without_box = without_box[:wanted]
    chosen = slices.take([*with_box[: count - len(without_box)], *without_box])
    chosen["digits"] = chosen["patient_id"].str.len()  # patient 2 before patient 10
    return chosen.sort_values(["digits", "patient_id", "slice", "source_id"])["source_id"].tolist()
