"""Splitting a data set by patients."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brain_tumor.config import SPLITS
from brain_tumor.config.dataset import SplitFractions
from brain_tumor.runtime.errors import InputError


def split_by_patient(
    patients: pd.Series, labels: NDArray[np.bool_], fractions: SplitFractions, seed: int
) -> NDArray[np.str_]:
    """Gives each patient to one split, so that each split has its share of the images and of each label.

    Patients are taken by the number of their images, the largest first, those of a size in an order drawn
    from the seed. Each goes to a split that has not yet reached its share of the images, namely to the one
    where the numbers (of all images, and of those with each label) then come nearest to its shares of them,
    by the chi-square statistic. This is the idea of iterative stratification, for groups: Sechidis,
    Tsoumakas and Vlahavas, "On the Stratification of Multi-label Data", 2011.

    No split gets more images than its share by as many as the largest patient has, and so none lacks more
    than that for each other split. Each split gets a patient.

    Args:
        patients: Each image's patient, (images,). Their order does not matter.
        labels: Which labels each image shows, (images, labels).
        fractions: The share of the images that each split should get.
        seed: Seed of the order.

    Returns:
        Each image's split, (images,).

    Raises:
        InputError: There are fewer patients than splits.
    """
    shares = [getattr(fractions, split) for split in SPLITS]
    owner, known = pd.factorize(patients, sort=True)
    if len(known) < len(SPLITS):
        raise InputError(
            f"dataset.split=patient needs a patient for each of {', '.join(SPLITS)}, but there are "
            f"{len(known)}; use dataset.split=provided, or a filename_pattern that tells more patients apart."
        )
    # A patient's images, and those with each label.
    sizes = np.bincount(owner, minlength=len(known))
    shown = [np.bincount(owner, weights=column, minlength=len(known)) for column in labels.T]
    counts = np.stack([sizes, *shown], axis=1).astype(float)
    counts = counts[:, counts.any(axis=0)]  # a label that no image shows decides nothing
    order = np.random.default_rng(seed).permutation(len(known))
    order = order[np.argsort(-sizes[order], kind="stable")]

    targets = np.array(shares)[:, None] * counts.sum(axis=0)
    missing = targets.copy()
    empty = np.ones(len(SPLITS), bool)
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
    return np.array(SPLITS)[chosen[owner]]
