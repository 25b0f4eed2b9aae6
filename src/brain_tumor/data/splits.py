"""Splitting a data set by patients, and what two splits share."""

import itertools
import math
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brain_tumor.config import SPLITS
from brain_tumor.data.near_duplicates import count_near_duplicates
from brain_tumor.errors import InputError

METHODS = ("provided", "patient")
LISTED_PATIENTS = 20


def check_fractions(fractions: dict[str, float]) -> None:
    """Refuses shares that are none.

    Raises:
        InputError: A split is missing or unknown, or the shares are not between 0 and 1 with a sum of 1.
    """
    values = list(fractions.values())
    if (
        set(fractions) != set(SPLITS)
        or not all(0 <= value <= 1 for value in values)
        or not math.isclose(sum(values), 1, abs_tol=1e-6)
    ):
        raise InputError(
            f"dataset.split_fractions is {dict(fractions)}; give {', '.join(SPLITS)} a share each, 0 to 1, "
            "that add up to 1."
        )


def split_by_patient(
    patients: pd.Series, labels: NDArray[np.bool_], fractions: dict[str, float], seed: int
) -> NDArray[np.str_]:
    """Gives each patient to one split, so that each split has its share of the images and of each label.

    Patients are taken by the number of their images, the largest first, those of a size in an order drawn
    from the seed. Each goes to a split that has not yet reached its share of the images, namely to the one
    where the numbers (of all images, and of those with each label) then come nearest to its shares of them,
    by the chi-square statistic. This is the idea of iterative stratification, for groups: Sechidis,
    Tsoumakas and Vlahavas, "On the Stratification of Multi-label Data", 2011.

    No split gets more images than its share by as many as the largest patient has, and so none lacks more
    than that for each other split. Each split with a share above 0 gets a patient.

    Args:
        patients: Each image's patient, (images,). Their order does not matter.
        labels: Which labels each image shows, (images, labels).
        fractions: The share of each split, see `check_fractions`.
        seed: Seed of the order.

    Returns:
        Each image's split, (images,).

    Raises:
        InputError: There are fewer patients than splits.
    """
    check_fractions(fractions)
    names = [split for split in SPLITS if fractions[split] > 0]
    owner, known = pd.factorize(patients, sort=True)
    if len(known) < len(names):
        raise InputError(
            f"dataset.split=patient needs a patient for each of {', '.join(names)}, but there are "
            f"{len(known)}; use dataset.split=provided, or a filename_pattern that tells more patients apart."
        )
    # A patient's images, and those with each label.
    sizes = np.bincount(owner, minlength=len(known))
    shown = [np.bincount(owner, weights=column, minlength=len(known)) for column in labels.T]
    counts = np.stack([sizes, *shown], axis=1).astype(float)
    counts = counts[:, counts.any(axis=0)]  # a label that no image shows decides nothing
    order = np.random.default_rng(seed).permutation(len(known))
    order = order[np.argsort(-sizes[order], kind="stable")]

    targets = np.array([fractions[name] for name in names])[:, None] * counts.sum(axis=0)
    missing = targets.copy()
    empty = np.ones(len(names), bool)
    chosen = np.empty(len(known), np.int64)
    for rank, patient in enumerate(order):
        room = missing[:, 0] > 1e-6  # what all miss adds up to the images left, so one of them has room
        if len(order) - rank <= empty.sum():
            room = empty
        gain = ((2 * missing - counts[patient]) * counts[patient] / targets).sum(axis=1)
        split = int(np.argmax(np.where(room, gain, -np.inf)))
        chosen[patient] = split
        missing[split] -= counts[patient]
        empty[split] = False
    return np.array(names)[chosen[owner]]


def measure_leakage(images: pd.DataFrame, splits: pd.Series, distance: int) -> dict[str, dict[str, Any]]:
    """What the splits share, by pair (`train/valid`, ...).

    Args:
        images: The images: patient_id, sha256, perceptual_hash (uint64).
        splits: The split of each.
        distance: In up to how many bits the hashes of near-duplicates differ.

    Returns:
        `shared_patients`: how many patients have images in both splits, the first of them in `patients`.
        `identical_images` and `near_duplicates`: how many images of the pair's second split have one of the
        same bytes, or a near-duplicate (one of the same bytes is one too), in its first split.
    """
    patients, names = pd.factorize(images["patient_id"])
    contents, _ = pd.factorize(images["sha256"])
    hashes = images["perceptual_hash"].to_numpy()
    parts = {split: (splits == split).to_numpy() for split in SPLITS}
    leakage = {}
    for first, second in itertools.combinations(SPLITS, 2):
        a, b = parts[first], parts[second]
        shared = names[np.intersect1d(patients[a], patients[b])]
        leakage[f"{first}/{second}"] = {
            "shared_patients": len(shared),
            # Patient 2 before patient 10.
            "patients": sorted(shared, key=lambda name: (len(name), name))[:LISTED_PATIENTS],
            "identical_images": int(np.isin(contents[b], contents[a]).sum()),
            "near_duplicates": count_near_duplicates(hashes[a], hashes[b], distance),
        }
    return leakage
