"""Leakage: patients and images that splits share, which inflates the figures."""

import itertools

import numpy as np
import pandas as pd

from brain_tumor.artifacts.dataset import SharedBySplits, picture_name
from brain_tumor.config import SPLITS
from brain_tumor.ingest.near_duplicates import find_near_duplicates

LISTED_PATIENTS = 20


def measure_leakage(images: pd.DataFrame, splits: pd.Series, distance: int) -> dict[str, SharedBySplits]:
    """Measures what each pair of splits shares (`train/valid`, ...).

    Args:
        images: The images: filename, patient_id, sha256, perceptual_hash (uint64).
        splits: The split of each image.
        distance: The largest Hamming distance of near-duplicates' hashes.
    """
    patients, names = pd.factorize(images["patient_id"])  # -1 if unknown
    pictures, _ = pd.factorize(images["filename"].map(picture_name))
    copied = (images["filename"].map(picture_name) != images["filename"]).to_numpy()
    contents, _ = pd.factorize(images["sha256"])
    hashes = images["perceptual_hash"].to_numpy()
    parts = {split: (splits == split).to_numpy() for split in SPLITS}
    leakage = {}
    for first, second in itertools.combinations(SPLITS, 2):
        a, b = parts[first], parts[second]
        both = np.intersect1d(patients[a], patients[b])
        shared = names[both[both >= 0]]
        unknown = (patients[a | b] < 0).any()
        copies = copied[b] & np.isin(pictures[b], pictures[a & copied])
        leakage[f"{first}/{second}"] = SharedBySplits(
            shared_patients=None if unknown else len(shared),
            # Patient 2 before patient 10.
            patients=sorted(shared, key=lambda name: (len(name), name))[:LISTED_PATIENTS],
            identical_images=int(np.isin(contents[b], contents[a]).sum()),
            near_duplicates=int((copies | find_near_duplicates(hashes[a], hashes[b], distance)).sum()),
        )
    return leakage
