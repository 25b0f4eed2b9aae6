"""The tumor of a synthetic patient: three nested regions of any size, place and contrast.

All coordinates are in the slices' frame (p, q, s), see `synthetic_patient`. The regions are numbered like the
labels: label1 is the whole tumor, label2 is inside it and label0 inside label2. label2 and label0 may be
missing.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]
Point = tuple[float, float, float]

REGIONS = 3  # regions of a tumor, one per label
INWARDS = (1, 2, 0)  # labels from the outermost region to the innermost
# A region of fewer pixels gets no box: an expert would not draw one either.
SMALLEST_REGION = 10
# Width of a tumor's largest section, as a fraction of the picture's side, before its surface is made
# irregular.
SMALLEST, LARGEST = 0.04, 0.55
WITH_RING, WITH_CORE = 0.7, 0.95  # probability of label2, and of label0 given label2

# A tumor is brighter than the tissue, hardly different, darker, or a bright ring; by sequence, how often.
KINDS = ("bright", "faint", "dark", "ring")
KIND_WEIGHTS: dict[str, tuple[float, float, float, float]] = {
    "t1": (0.2, 0.1, 0.6, 0.1),
    "t1_contrast": (0.62, 0.05, 0.03, 0.3),
    "t2": (0.85, 0.05, 0.03, 0.07),
    "flair": (0.9, 0.04, 0.01, 0.05),
}


@dataclass(frozen=True)
class Region:
    """One region: the whole tumor's shape, smaller, and possibly off center."""

    shift: Point  # of its center, in half axes of the whole tumor
    scale: float  # of its size, relative to the whole tumor
    level: float  # difference of grey level from the tissue
    opacity: float  # 1 hides the tissue's own pattern, 0 leaves all of it


@dataclass(frozen=True)
class MiddleSection:
    """A tumor's middle section in a picture, float32 (height, width) each."""

    dp: Array  # offset from the center, in half axes
    dq: Array
    square: Array  # squared distance from the center, in half axes
    lobes: Array  # distance of the surface in that direction, 1 on average
    push: Array  # displacement of the tissue, as a fraction of the distance from the center


@dataclass(frozen=True)
class Tumor:
    """A tumor. Lengths are in half sizes of the head."""

    kind: str  # of KINDS
    center: Point
    axes: Point  # half axes of the whole tumor
    lobes: NDArray[np.float64]  # amplitudes and phases that make its surface irregular, (lobes, 2)
    roughness: float  # how much its surface follows the tissue's pattern
    pressure: float  # the largest displacement of the tissue, see `MiddleSection.push`
    regions: tuple[Region | None, ...]  # by label

    def middle_section(self, p: Array, q: Array) -> MiddleSection:
        """The data that does not depend on the height, for pixels at p and q."""
        dp, dq = (p - self.center[0]) / self.axes[0], (q - self.center[1]) / self.axes[1]
        direction, square = np.arctan2(dq, dp), dp**2 + dq**2
        lobes = np.ones_like(direction)
        for k, (amplitude, phase) in enumerate(self.lobes.tolist(), start=2):
            lobes += amplitude * np.cos(k * direction + phase)
        push = np.asarray(self.pressure * np.exp(-square / 3), np.float32)
        return MiddleSection(dp, dq, square, lobes, push)

    def masks(self, middle: MiddleSection, s: float, pattern: Array, brain: Mask) -> list[Mask]:
        """The regions' sections at height s: a boolean mask (height, width) for each label, possibly empty.

        Args:
            middle: The tumor's middle section.
            s: The height.
            pattern: The tissue's pattern at that height, which makes the surface rough.
            brain: The brain's mask, which limits the tumor.
        """
        masks: list[Mask] = [np.zeros_like(brain)] * REGIONS
        outer = brain
        for label in INWARDS:
            region = self.regions[label]
            if region is None:
                continue
            a, b, c = region.shift
            left = region.scale**2 - ((s - self.center[2]) / self.axes[2] - c) ** 2
            if left <= 0:
                continue
            square = middle.square - (2 * a) * middle.dp - (2 * b) * middle.dq + (a * a + b * b)
            surface = middle.lobes + self.roughness * pattern
            inside = (square < left * surface * np.abs(surface)) & outer
            if np.count_nonzero(inside) >= SMALLEST_REGION:
                masks[label] = outer = inside
            else:
                break  # the regions inside it are smaller still
        return masks


def draw_tumor(
    rng: np.random.Generator, sequence: str, center: Point, picture: tuple[int, int], zoom: float
) -> Tumor:
    """Draws a tumor at a place.

    Args:
        rng: The random generator.
        sequence: The scan's sequence, see `KIND_WEIGHTS`.
        center: Its center, in the slices' frame.
        picture: Width and height in pixels: the tumor is about as wide as it is high.
        zoom: The head's size as a fraction of the picture's.
    """
    kind = KINDS[rng.choice(len(KINDS), p=KIND_WEIGHTS[sequence])]
    # On a logarithmic scale, skewed to large ones: the median box is 0.3 of the picture wide. In two real
    # data sets it is 0.25 and 0.36.
    size = SMALLEST * (LARGEST / SMALLEST) ** float(rng.random() ** 0.33) / zoom
    stretch = float(np.exp(rng.normal(0, 0.18)))
    side = max(picture)
    axes = (
        min(size * stretch, LARGEST / zoom) * side / picture[0],
        min(size / stretch, LARGEST / zoom) * side / picture[1],
        size * float(rng.uniform(0.8, 1.4)),
    )
    ring = float(rng.uniform(0.6, 0.92))
    core = ring * float(rng.uniform(0.7, 0.9) if kind == "ring" else rng.uniform(0.6, 0.92))
    levels = _draw_levels(rng, kind, sequence)
    # The inner regions are off center, but stay inside the outer ones.
    direction = rng.normal(0, 1, 3)
    direction *= rng.uniform(0, 0.8) * (1 - ring) / np.linalg.norm(direction)
    further = rng.normal(0, 1, 3)
    further = direction + further * rng.uniform(0, 0.6) * (ring - core) / np.linalg.norm(further)
    opacity = float(rng.uniform(0.5, 0.95))
    has_ring = kind == "ring" or rng.random() < WITH_RING
    has_core = has_ring and rng.random() < WITH_CORE
    whole = Region((0.0, 0.0, 0.0), 1.0, levels[1], opacity)
    return Tumor(
        kind=kind,
        center=center,
        axes=axes,
        lobes=np.stack([rng.normal(0, 0.07, 4), rng.uniform(0, 2 * np.pi, 4)], axis=1),
        roughness=float(rng.uniform(0.02, 0.12)),
        pressure=float(rng.uniform(0, 0.5)) * min(1.0, size / 0.3),
        regions=(
            Region(_point(further), core, levels[0], 0.85) if has_core else None,
            whole,
            Region(_point(direction), ring, levels[2], 0.85) if has_ring else None,
        ),
    )


def _point(array: NDArray[np.float64]) -> Point:
    a, b, c = array.tolist()
    return a, b, c


def _draw_levels(rng: np.random.Generator, kind: str, sequence: str) -> tuple[float, float, float]:
    """By how much label0, label1 and label2 differ from the tissue, in grey levels 0..1."""
    sign = float(rng.choice([-1, 1]))
    match kind:
        case "bright":
            whole = rng.uniform(0.3, 0.55)
            ring = whole + sign * rng.uniform(0.08, 0.2)
            core = ring - rng.uniform(0.12, 0.4)
        case "faint":
            whole = sign * rng.uniform(0.07, 0.13)
            step = rng.choice([-1, 1])
            ring = whole + step * rng.uniform(0.07, 0.12)
            core = ring - step * rng.uniform(0.07, 0.14)
        case "dark":
            whole = -rng.uniform(0.16, 0.34)
            ring = whole + rng.uniform(0.08, 0.2)
            core = whole - rng.uniform(0.02, 0.12)
        case _:
            edema = rng.uniform(0.06, 0.16)
            whole = -edema if sequence.startswith("t1") else edema
            ring = rng.uniform(0.22, 0.48)
            core = -rng.uniform(0.02, 0.3)
    return float(core), float(whole), float(ring)
