"""Near-duplicates: images whose perceptual hashes differ in few bits."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

PAIRS_AT_ONCE = 250_000  # 8 bytes each


def count_near_duplicates(first: NDArray[Any], second: NDArray[Any], distance: int) -> int:
    """How many images of the second set have a near-duplicate in the first.

    Identical images count too: their distance is 0.

    Args:
        first: 64-bit perceptual hashes, (n,) uint64.
        second: Likewise, (m,).
        distance: In up to how many bits two hashes of near-duplicates differ (their Hamming distance).
    """
    known = np.unique(first)
    hashes, images = np.unique(second, return_counts=True)
    step = max(PAIRS_AT_ONCE // max(len(known), 1), 1)
    count = 0
    for start in range(0, len(hashes), step):
        different = np.bitwise_count(hashes[start : start + step, None] ^ known)
        count += int(images[start : start + step][(different <= distance).any(axis=1)].sum())
    return count
