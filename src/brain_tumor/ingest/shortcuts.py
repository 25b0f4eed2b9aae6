"""Shortcuts: differences between images with and without a tumor other than the tumor.

If negatives come from another source than positives, for example in another size or format, a classifier can
tell them apart by that alone, without learning anything about tumors.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

FEWEST_IMAGES = 10
# The Kolmogorov-Smirnov statistic (largest difference of two cumulative distributions) from which a shortcut
# is reported. It must also be significant, at p = 0.001 (`CRITICAL`).
REPORTED_DISTANCE = 0.5
CRITICAL = 1.95


def find_shortcuts(images: pd.DataFrame, has_box: NDArray[np.bool_]) -> dict[str, float]:
    """Finds the measures in which images with and without a box differ, and how much, 0..1.

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
    critical = CRITICAL * np.sqrt((positives + negatives) / (positives * negatives))
    distances = {name: _distance(values.to_numpy(float), has_box) for name, values in measures.items()}
    return {
        name: round(distance, 3)
        for name, distance in distances.items()
        if distance >= max(REPORTED_DISTANCE, critical)
    }


def explain_shortcuts(shortcuts: dict[str, float]) -> str:
    """The notice about shortcuts for every report; empty if there are none."""
    if not shortcuts:
        return ""
    found = ", ".join(f"{name} ({distance:.2f})" for name, distance in shortcuts.items())
    return (
        f"A shortcut in the data: images with and without a box differ in {found} (0: alike, 1: apart), so a "
        "classifier can tell them apart by these alone, and the labels' figures may say nothing about tumors."
    )


def _distance(values: NDArray[np.float64], has_box: NDArray[np.bool_]) -> float:
    """The Kolmogorov-Smirnov statistic of the values with a box and those without."""
    points = np.unique(values)
    cumulative = [
        np.searchsorted(np.sort(own), points, side="right") / len(own)
        for own in (values[has_box], values[~has_box])
    ]
    return float(np.abs(cumulative[0] - cumulative[1]).max())
