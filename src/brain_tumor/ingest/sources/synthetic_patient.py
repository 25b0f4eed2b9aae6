"""A synthetic patient: a head in space, a scanner's plane and sequence, and possibly a tumor.

Two coordinate frames are used, both in units of half the head's size. The head's is (x, y, z): from left to
right, from front to back, from bottom to top, each -1..1. The slices' is (p, q, s): p to the right and q down
in the picture, s along the stack of slices. A patient is scanned in one plane, which defines the mapping
between the two.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from brain_tumor.ingest.sources.synthetic_tumor import Tumor, draw_tumor

Array = NDArray[np.float32]
Coordinate = Array | float
Point = tuple[float, float, float]
Plane = Literal["axial", "coronal", "sagittal"]
Sequence = Literal["t1", "t1_contrast", "t2", "flair"]

PLANES: dict[Plane, float] = {"axial": 0.84, "coronal": 0.08, "sagittal": 0.08}
SEQUENCES: dict[Sequence, float] = {"t1": 0.06, "t1_contrast": 0.26, "t2": 0.13, "flair": 0.55}
WITHOUT_TUMOR = 1 / 8
STRIPPED = 0.8  # fraction of patients with the skull removed, as in the data of the BraTS challenge
BRAIN = 0.86  # the brain's radius; the skull and the scalp are around it
# The stack's heights where a slice still shows brain.
REACH: dict[Plane, tuple[float, float]] = {
    "axial": (-0.6, 0.82),
    "coronal": (-0.78, 0.8),
    "sagittal": (-0.72, 0.72),
}
SIZES: dict[Plane, tuple[tuple[int, int], tuple[int, int]]] = {  # width and height in pixels
    "axial": ((128, 148), (140, 178)),
    "coronal": ((132, 150), (134, 156)),
    "sagittal": ((146, 172), (136, 158)),
}


@dataclass(frozen=True)
class Levels:
    """Grey levels, 0..1, of a head's structures in a sequence."""

    white: float
    grey: float
    fluid: float
    scalp: float
    bone: float
    muscle: float
    vessel: float
    choroid: float
    caps: float  # how much brighter the white matter at the ventricles' horns is

    @property
    def tissue(self) -> float:
        """The brain's level on average."""
        return (self.white + self.grey) / 2


LEVELS: dict[Sequence, Levels] = {
    "t1": Levels(0.66, 0.46, 0.14, 0.88, 0.07, 0.36, 0.25, 0.4, -0.05),
    "t1_contrast": Levels(0.58, 0.44, 0.14, 0.85, 0.07, 0.42, 0.92, 0.85, -0.05),
    "t2": Levels(0.31, 0.48, 0.92, 0.6, 0.05, 0.22, 0.07, 0.6, 0.2),
    "flair": Levels(0.42, 0.52, 0.1, 0.68, 0.06, 0.3, 0.15, 0.45, 0.24),
}


@dataclass(frozen=True)
class Blob:
    """A bent ellipsoid of one grey level, in the slices' frame; not a lesion."""

    center: Point
    axes: Point
    bend: float  # shift along p per squared distance from the center along q
    level: float
    inside: bool = True  # whether it is drawn only inside the brain, or only outside of it


@dataclass(frozen=True)
class Scanner:
    """The properties of a scan that do not depend on the head."""

    zoom: float  # the head's size as a fraction of the picture's
    tilt: float  # rotation of the head in the picture, in radians
    offset: tuple[float, float]
    gain: float  # factor on the grey levels
    blur: float  # radius in pixels
    noise: float  # standard deviation, in grey levels 0..1
    bias: tuple[float, ...]  # coefficients of the polynomial bias field, a factor on the brightness
    ghost: float  # brightness of a motion ghost, 0 for none
    ghost_shift: float  # as a fraction of the picture's side
    ghost_axis: int  # 0: down, 1: to the right


@dataclass(frozen=True)
class Patient:
    """One head, how it was scanned, and its tumor if it has one."""

    plane: Plane
    sequence: Sequence
    stripped: bool  # without skull and scalp
    width: int
    height: int
    facing: int  # in a sagittal slice: 1 if the face is to the left, -1 if to the right
    span: tuple[float, float]  # the heights s that the scan covers, lowest and highest
    levels: Levels
    outline: NDArray[np.float64]  # amplitudes and phases of the outline's waves, (waves, 2)
    fine: Array  # noise pattern of the cortical folds, (layers, rows, columns), standard normal
    coarse: Array  # the same for slow variations of the tissue
    ventricles: tuple[float, ...]  # width, length, height, distance from the middle, slant, asymmetry
    blobs: tuple[Blob, ...]
    scanner: Scanner
    tumor: Tumor | None

    @cached_property
    def frame(self) -> "Frame":
        """The data that all slices share."""
        return Frame(self)

    def heights(self, count: int) -> list[float]:
        """The heights of `count` slices, evenly spaced over the scan."""
        return [float(s) for s in np.linspace(*self.span, count)]


class Frame:
    """The pixels' coordinates in the slices' frame, and other data that all slices of a patient share.

    All arrays are float32 (height, width), the patterns (layers, height, width). Cached per patient, since it
    is half the work of a slice.
    """

    def __init__(self, patient: Patient) -> None:
        w, h, scanner = patient.width, patient.height, patient.scanner
        u = (np.arange(w, dtype=np.float32)[None, :] + 0.5) / w * 2 - 1 - scanner.offset[0]
        v = (np.arange(h, dtype=np.float32)[:, None] + 0.5) / h * 2 - 1 - scanner.offset[1]
        cos, sin = float(np.cos(scanner.tilt) / scanner.zoom), float(np.sin(scanner.tilt) / scanner.zoom)
        self.p: Array = np.asarray(cos * u + sin * v, np.float32)
        self.q: Array = np.asarray(cos * v - sin * u, np.float32)
        angle = np.arctan2(self.q, self.p)
        waves = np.ones_like(angle)
        for k, (amplitude, phase) in enumerate(patient.outline.tolist(), start=2):
            waves += amplitude * np.cos(k * angle + phase)
        self.waves: Array = waves
        q = self.q
        if patient.plane != "axial":
            q = np.where(q > 0, 0.55 * q, q)  # below its middle a head continues as face and neck
        self.flat: Array = self.p**2 + q**2  # squared distance from the stack's axis
        b = scanner.bias
        bias = 1 + b[0] * u + b[1] * v + b[2] * u * v + b[3] * u**2 + b[4] * v**2
        self.bias: Array = np.asarray(bias, np.float32)
        self.fine: Array = _enlarge(patient.fine, (h, w))
        self.coarse: Array = _enlarge(patient.coarse, (h, w))
        self.tumor_middle = patient.tumor.middle_section(self.p, self.q) if patient.tumor else None


def _enlarge(pattern: Array, shape: tuple[int, int]) -> Array:
    """A pattern's layers (layers, rows, columns) enlarged to (layers, height, width)."""
    columns = _spline(pattern.shape[2], shape[1]).T
    tall = _spline(pattern.shape[1], shape[0]) @ pattern
    enlarged = np.empty((len(pattern), *shape), np.float32)
    # In blocks so small that BLAS uses a single thread: several would contend on a busy machine.
    for top in range(0, shape[0], 48):
        enlarged[:, top : top + 48] = tall[:, top : top + 48] @ columns
    return enlarged


def _spline(points: int, size: int) -> Array:
    """Weights (size, points) of a cubic B-spline, scaled to keep the variance of independent points."""
    position = (np.arange(size) + 0.5) / size * (points - 3) + 1
    distance = np.abs(position[:, None] - np.arange(points)[None, :])
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.clip(2 - distance, 0, None) ** 3 / 6
    weights = np.where(distance < 1, near, far)
    return np.asarray(weights / np.sqrt((weights**2).sum(axis=1).mean()), np.float32)


def to_slices(plane: Plane, facing: int, point: Point) -> Point:
    """A point of the head's frame (x, y, z) in the slices' frame (p, q, s)."""
    x, y, z = point
    if plane == "axial":
        return x, y, z
    return (x, -z, y) if plane == "coronal" else (y * facing, -z, x)


def above_base(x: Coordinate, y: Coordinate, z: Coordinate) -> Array:
    """How far a point is above the base of the skull: there is no cerebrum where this is below 0."""
    return np.asarray(z + 0.38 + 0.28 * y + 0.4 * np.abs(x), np.float32)


def make_patient(rng: np.random.Generator) -> Patient:
    """Draws a patient."""
    plane: Plane = list(PLANES)[rng.choice(len(PLANES), p=list(PLANES.values()))]
    sequence: Sequence = list(SEQUENCES)[rng.choice(len(SEQUENCES), p=list(SEQUENCES.values()))]
    stripped = bool(rng.random() < STRIPPED)
    levels = Levels(
        *(
            float(np.clip(level + rng.normal(0, 0.02), 0.02, 0.98))
            for level in vars(LEVELS[sequence]).values()
        )
    )
    (narrow, wide), (low, high) = SIZES[plane]
    width, height = int(rng.integers(narrow, wide)), int(rng.integers(low, high))
    facing = int(rng.choice([-1, 1]))
    scanner = _draw_scanner(rng, stripped)
    tumor = None
    if rng.random() >= WITHOUT_TUMOR:
        center = to_slices(plane, facing, _draw_place(rng))
        tumor = draw_tumor(rng, sequence, center, (width, height), scanner.zoom)
    return Patient(
        plane=plane,
        sequence=sequence,
        stripped=stripped,
        width=width,
        height=height,
        facing=facing,
        span=_draw_span(rng, plane, tumor),
        levels=levels,
        outline=np.stack(
            [rng.normal(0, [0.016, 0.01, 0.006, 0.004, 0.003]), rng.uniform(0, 2 * np.pi, 5)], axis=1
        ),
        fine=rng.standard_normal((11, 32, 30), dtype=np.float32),
        coarse=rng.standard_normal((6, 9, 9), dtype=np.float32),
        ventricles=_draw_ventricles(rng),
        blobs=tuple(_draw_blobs(rng, plane, facing, sequence, levels)),
        scanner=scanner,
        tumor=tumor,
    )


def _draw_place(rng: np.random.Generator) -> Point:
    """A random point in the brain, away from its surface (head's frame)."""
    while True:
        x, y, z = rng.uniform(-BRAIN, BRAIN, 3).tolist()
        if x * x + y * y + z * z < 0.78**2 and above_base(x, y, z) > 0.1:
            return x, y, z


def _draw_span(rng: np.random.Generator, plane: Plane, tumor: Tumor | None) -> tuple[float, float]:
    """The heights that the scan covers: a slab around the tumor, or any slab without one.

    The slab is thin for a small tumor, so that about the middle half of the slices shows a tumor of any size.
    """
    low, high = REACH[plane]
    if tumor is None:
        length = float(rng.uniform(0.3, 1.0)) * (high - low)
        bottom = float(rng.uniform(low, high - length))
        return bottom, bottom + length
    middle, half = tumor.center[2], tumor.axes[2]
    length = max(2 * half / float(rng.uniform(0.3, 0.78)), 0.12)
    bottom = middle - half - float(rng.uniform(0, 1)) * (length - 2 * half)
    return max(low, bottom), min(high, bottom + length)


def _draw_ventricles(rng: np.random.Generator) -> tuple[float, ...]:
    width = rng.uniform(0.045, 0.1)
    return (
        width,
        rng.uniform(0.3, 0.42),
        rng.uniform(0.16, 0.26),
        width + rng.uniform(0.01, 0.04),
        rng.uniform(0.15, 0.45),
        rng.uniform(0.65, 1.5),
    )


def _draw_scanner(rng: np.random.Generator, stripped: bool) -> Scanner:
    ghost = rng.random() < 0.25
    return Scanner(
        zoom=float(rng.uniform(1.0, 1.13) if stripped else rng.uniform(0.86, 0.98)),
        tilt=float(rng.normal(0, 0.08)),
        offset=(float(rng.normal(0, 0.02)), float(rng.normal(0, 0.02))),
        gain=float(rng.uniform(0.75, 1.3)),
        blur=float(rng.uniform(0.2, 0.75)),
        noise=float(rng.uniform(0.01, 0.035)),
        bias=tuple(rng.normal(0, 0.11, 5).tolist()),
        ghost=float(rng.uniform(0.05, 0.14)) if ghost else 0.0,
        ghost_shift=float(rng.uniform(0.15, 0.5)),
        ghost_axis=int(rng.integers(2)),
    )


def _draw_blobs(
    rng: np.random.Generator, plane: Plane, facing: int, sequence: Sequence, levels: Levels
) -> list[Blob]:
    """Structures easily mistaken for a lesion: vessels, choroid plexus, calcifications, cysts."""
    blobs: list[Blob] = []

    def add(center: Point, axes: Point, level: float, bend: float = 0.0, inside: bool = True) -> None:
        a, b, c = (abs(axis) for axis in to_slices(plane, facing, axes))
        blobs.append(Blob(to_slices(plane, facing, center), (a, b, c), bend, level, inside))

    for side in (-1, 1):
        add((side * 0.36, -0.7, -0.3), (0.15, 0.15, 0.14), levels.fluid, inside=False)  # eyes
        add((side * 0.22, -0.06, -0.02), (0.09, 0.22, 0.13), levels.grey)  # basal ganglia and thalamus
        if rng.random() < 0.55:  # choroid plexus, drawn independently for each side
            size = rng.uniform(0.03, 0.075)
            place = (side * rng.uniform(0.12, 0.2), rng.uniform(0.15, 0.32), rng.uniform(0.02, 0.14))
            add(place, (size, 1.6 * size, 1.3 * size), levels.choroid)
    add((0, -0.7, -0.42), (0.22, 0.2, 0.18), 0.02, inside=False)  # air of the nose
    add((0, -0.1, -0.72), (0.12, 0.07, 0.3), 0.02, inside=False)  # air of the throat
    add((0, -0.5, -0.72), (0.3, 0.32, 0.09), levels.muscle + 0.12, inside=False)  # tongue
    vessel = levels.vessel
    if sequence != "t1_contrast" and rng.random() < 0.35:
        vessel = 0.85  # inflowing blood can be bright in any sequence
    add((0, 0.83, 0.2), (0.045, 0.05, 0.5), vessel)  # sagittal sinus
    for _ in range(int(rng.integers(3, 9))):
        thickness = float(rng.uniform(0.014, 0.032))
        axes = [thickness] * 3
        axes[int(rng.integers(3))] = float(rng.uniform(0.08, 0.35))
        blobs.append(
            Blob(
                to_slices(plane, facing, _draw_place(rng)),
                (axes[0], axes[1], max(axes[2], 0.07)),
                float(rng.normal(0, 1.2)),
                vessel,
            )
        )
    if rng.random() < 0.4:  # calcification of the pineal gland
        size = rng.uniform(0.02, 0.045)
        add((0, 0.22, 0.0), (size, size, size), float(rng.choice([0.03, 0.9])))
    if rng.random() < 0.4:  # calcification of the falx
        size = rng.uniform(0.02, 0.05)
        add((0, rng.uniform(-0.6, 0.4), rng.uniform(0.4, 0.7)), (size, 2 * size, 2 * size), 0.9)
    if rng.random() < 0.3:  # arachnoid cyst
        direction = rng.normal(0, 1, 3)
        direction[2] = abs(direction[2])
        x, y, z = (0.84 * direction / np.linalg.norm(direction)).tolist()
        add((x, y, z), (rng.uniform(0.1, 0.2), rng.uniform(0.1, 0.2), rng.uniform(0.1, 0.2)), levels.fluid)
    for _ in range(int(rng.integers(0, 4))):  # fat and marrow in the skull
        angle = rng.uniform(0, 2 * np.pi)
        place = (0.91 * np.cos(angle), 0.91 * np.sin(angle), rng.uniform(-0.2, 0.3))
        add(place, (0.05, 0.09, 0.12), 0.95, inside=False)
    return blobs
