"""Splits a data set by patients."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brain_tumor.config import SPLITS
from brain_tumor.config.dataset import SplitFractions
from brain_tumor.runtime.errors import InputError


def split_by_patient(
    patients: pd.Series, labels: NDArray[np.bool_], fractions: SplitFractions, seed: int
) -> NDArray[np.str_]:
    """Assigns patients to splits so that each split gets its fraction of the images and of each label.

    Patients are processed by their number of images in descending order, ties in random order (from the
    seed). Each is assigned to one of the splits that have not reached their fraction of the images: the one
    for which the counts (of all images, and of those with each label) then fit the fractions best, by the
    chi-square statistic. This is iterative stratification for groups: Sechidis, Tsoumakas and Vlahavas, "On
    the Stratification of Multi-label Data", 2011.

    No split exceeds its fraction by as many images as the largest patient has. Each split gets a patient.

    Args:
        patients: Each image's patient, (images,). Their order does not matter.
        labels: Whether each image shows each label, (images, labels).
        fractions: The fraction of the images that each split should get.
        seed: Seed of the random order.

    Returns:
        Each image's split, (images,).

    Raises:
        InputError: There are fewer patients than splits.
    """
    owner, known = pd.factorize(patients, sort=True)
    if len(known) < len(SPLITS):
        raise InputError(
            f"dataset.split=patient needs a patient for each of {', '.join(SPLITS)}, but there are "
            f"{len(known)}; use dataset.split=provided, or a filename_pattern that tells more patients apart."
        )
    # Per patient, the number of images, and of those with each label.
    sizes = np.bincount(owner, minlength=len(known))
    shown = [np.bincount(owner, weights=column, minlength=len(known)) for column in labels.T]
    counts = np.stack([sizes, *shown], axis=1).astype(float)
    counts = counts[:, counts.any(axis=0)]  # labels in no image are ignored
    order = np.random.default_rng(seed).permutation(len(known))
    order = order[np.argsort(-sizes[order], kind="stable")]

    targets = np.array([getattr(fractions, split) for split in SPLITS])[:, None] * counts.sum(axis=0)
    missing = targets.copy()
    empty = np.ones(len(SPLITS), bool)
    chosen = np.empty(len(known), np.int64)
    for rank, patient in enumerate(order):
        room = missing[:, 0] > 1e-6  # never all False: the splits lack as many images as are left
        if len(order) - rank <= empty.sum():
            room = empty
        gain = ((2 * missing - counts[patient]) * counts[patient] / targets).sum(axis=1)
        split = int(np.argmax(np.where(room, gain, -np.inf)))
        chosen[patient] = split
        missing[split] -= counts[patient]
        empty[split] = False
    return np.array(SPLITS)[chosen[owner]]
