"""Patients as resampling units of the bootstrap, since slices of one patient are correlated."""

import numpy as np
import pandas as pd

from brain_tumor.artifacts.dataset import picture_name
from brain_tumor.evaluation.resampled import Array


def with_patients(rows: pd.DataFrame) -> pd.DataFrame:
    """Fills in unknown patients, and marks their rows in a column `patient_unknown`.

    If the patient is unknown, the original picture is the unit: Roboflow's augmented copies of one picture
    are as correlated as the slices of one patient.
    """
    unknown = rows["patient_id"].isna()
    if not unknown.any():
        return rows.assign(patient_unknown=False)
    pictures = "picture " + rows["filename"].map(picture_name)
    return rows.assign(patient_id=rows["patient_id"].fillna(pictures), patient_unknown=unknown)


def draw_patients(patients: int, resamples: int, seed: int) -> Array:
    """Draws bootstrap resamples: how often each contains each patient, (resamples, patients)."""
    probabilities = np.full(patients, 1 / patients)
    drawn = np.random.default_rng(seed).multinomial(patients, probabilities, size=resamples)
    return drawn.astype(np.float64)
