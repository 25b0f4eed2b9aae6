"""Shortcuts: what tells images with a tumor from those without, and is not a tumor.

Where negatives come from another source than positives, in another size or format, say, a classifier that
looks at that alone has good figures, and has learned nothing about tumors.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

FEWEST_IMAGES = 10
# From where on the largest difference between two cumulative distributions (the Kolmogorov-Smirnov statistic)
# is told: half of the images can then be recognized. It must be no chance either, at p = 0.001.
LARGEST_DISTANCE = 0.5
CRITICAL = 1.95


def find_shortcuts(images: pd.DataFrame, has_box: NDArray[np.bool_]) -> dict[str, float]:
    """In what images with a box and those without differ, and how far, 0..1.

    Args:
        images: width, height, grey, format, bytes of each.
        has_box: Which have a box, (images,).
    """
    measures = {
        "width": images["width"],
        "height": images["height"],
        "color": images["grey"],
        "format": images["format"] == "png",
        "file size": images["bytes"],
    }
    positives, negatives = int(has_box.sum()), int((~has_box).sum())
    if min(positives, negatives) < FEWEST_IMAGES:
        return {}
    chance = CRITICAL * np.sqrt((positives + negatives) / (positives * negatives))
    distances = {name: _distance(values.to_numpy(float), has_box) for name, values in measures.items()}
    return {
        name: round(distance, 3)
        for name, distance in distances.items()
        if distance >= max(LARGEST_DISTANCE, chance)
    }


def explain_shortcuts(shortcuts: dict[str, float]) -> str:
    """The sentence that every report must show; empty if there are none."""
    if not shortcuts:
        return ""
    found = ", ".join(f"{name} ({distance:.2f})" for name, distance in shortcuts.items())
    return (
        f"A shortcut in the data: images with and without a box differ in {found} (0: alike, 1: apart), so a "
        "classifier needs no tumor to tell them, and figures about labels may say nothing about tumors."
    )


def _distance(values: NDArray[np.float64], has_box: NDArray[np.bool_]) -> float:
    """The Kolmogorov-Smirnov statistic of the values with a box and those without."""
    points = np.unique(values)
    shares = [
        np.searchsorted(np.sort(own), points, side="right") / len(own)
        for own in (values[has_box], values[~has_box])
    ]
    return float(np.abs(shares[0] - shares[1]).max())
