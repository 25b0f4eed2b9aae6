"""Who is drawn in a bootstrap: patients, each with all of their slices, which resemble each other."""

import numpy as np
import pandas as pd

from brain_tumor.artifacts.dataset import picture_name
from brain_tumor.evaluation.resampled import Array


def with_patients(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows whose patients all have a name, and whether it was unknown as one more column `patient_unknown`.

    Where a patient is unknown, the picture stands for the patient: the copies that Roboflow makes of one are
    no more independent than slices are.
    """
    unknown = rows["patient_id"].isna()
    if not unknown.any():
        return rows.assign(patient_unknown=False)
    pictures = "picture " + rows["filename"].map(picture_name)
    return rows.assign(patient_id=rows["patient_id"].fillna(pictures), patient_unknown=unknown)


def draw_patients(patients: int, resamples: int, seed: int) -> Array:
    """How often each patient is drawn, (resamples, patients)."""
    shares = np.full(patients, 1 / patients)
    drawn = np.random.default_rng(seed).multinomial(patients, shares, size=resamples)
    return drawn.astype(np.float64)
