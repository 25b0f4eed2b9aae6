"""Near-duplicates: images whose perceptual hashes differ in few bits."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

PAIRS_AT_ONCE = 250_000  # 8 bytes each


def find_near_duplicates(first: NDArray[Any], second: NDArray[Any], distance: int) -> NDArray[np.bool_]:
    """Whether images of the second set have a near-duplicate in the first, (m,).

    Identical images are near-duplicates too: their distance is 0.

    Args:
        first: 64-bit perceptual hashes, (n,) uint64.
        second: The same, (m,) uint64.
        distance: The largest Hamming distance of near-duplicates' hashes.
    """
    known = np.unique(first)
    hashes, places = np.unique(second, return_inverse=True)
    step = max(PAIRS_AT_ONCE // max(len(known), 1), 1)
    near = np.zeros(len(hashes), bool)
    for start in range(0, len(hashes), step):
        different = np.bitwise_count(hashes[start : start + step, None] ^ known)
        near[start : start + step] = (different <= distance).any(axis=1)
    return near[places]
