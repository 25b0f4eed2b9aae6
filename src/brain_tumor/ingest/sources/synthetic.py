"""Synthetic patients: MRI-like heads, some slices with a tumor, written as an export on disk.

It makes patients, not pictures: every patient has one head (outline, ventricles, tissue texture, bias field)
and one tumor, a set of three nested regions in space. A slice shows the section of both at its height, so
that neighboring slices resemble each other and a tumor grows and shrinks along the axis, as in a real
volume. No patient stands in two splits.
"""

import csv
import hashlib
import io
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from brain_tumor.config import SyntheticDataset
from brain_tumor.ingest.formats.tensorflow_csv import ANNOTATIONS, COLUMNS
from brain_tumor.runtime.errors import InputError

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]

JPEG_QUALITY = 92
REGIONS = 3  # of a tumor, one a label
# A region of fewer pixels gets no box: an expert would not draw one either.
SMALLEST_REGION = 10


@dataclass(frozen=True)
class Patient:
    """One head and its tumor. Lengths in pixels, heights in -1 (bottom) .. 1 (top)."""

    width: int
    height: int
    outline: NDArray[np.float64]  # amplitudes and phases of the outline's waves, (waves, 2)
    texture: Array  # low-frequency tissue pattern, (2 * depth, rows, columns)
    bias: Array  # polynomial coefficients of the bias field, (5,)
    ventricles: NDArray[np.float64]  # width, length, distance from the middle, slant
    tissue: float  # grey level of the tissue, 0..1
    tumor_center: NDArray[np.float64]  # x, y in pixels, z as a height
    tumor_axes: NDArray[np.float64]  # half axes of the whole tumor: x, y in pixels, z as a height
    tumor_lobes: NDArray[np.float64]  # amplitudes and phases that make its surface irregular, (lobes, 2)
    region_scales: NDArray[np.float64]  # size of each label's region relative to the whole tumor, (3,)
    region_levels: NDArray[np.float64]  # grey level each region adds to the tissue, (3,)

    @cached_property
    def outline_waves(self) -> tuple[Array, NDArray[np.float64]]:
        """Each pixel's angle around the middle, and how far the outline there deviates from an ellipse."""
        y, x = np.mgrid[0 : self.height, 0 : self.width].astype(np.float32)
        angle = np.arctan2((y + 0.5) / self.height * 2 - 1, (x + 0.5) / self.width * 2 - 1)
        waves = sum(a * np.cos(k * angle + p) for k, (a, p) in enumerate(self.outline, start=2))
        return angle, np.asarray(waves)


def make_patient(rng: np.random.Generator) -> Patient:
    """Draws a patient."""
    width, height = int(rng.integers(128, 148)), int(rng.integers(140, 178))
    # The whole tumor lies inside the brain: its center within 0.62 of the way to the outline.
    angle, distance = rng.uniform(0, 2 * np.pi), 0.62 * np.sqrt(rng.uniform(0.02, 1))
    center = np.array(
        [
            width / 2 + distance * np.cos(angle) * width / 2,
            height / 2 + distance * np.sin(angle) * height / 2,
            rng.uniform(-0.45, 0.45),
        ]
    )
    size = rng.uniform(14, 30)
    stretch = rng.uniform(0.75, 1.3)
    return Patient(
        width=width,
        height=height,
        outline=np.stack([rng.normal(0, 0.012, 5), rng.uniform(0, 2 * np.pi, 5)], axis=1),
        texture=rng.normal(0, 1, (6, 12, 10)).astype(np.float32),
        bias=rng.normal(0, 0.06, 5).astype(np.float32),
        ventricles=np.array(
            [rng.uniform(0.05, 0.09), rng.uniform(0.2, 0.3), rng.uniform(0.09, 0.13), rng.uniform(0.1, 0.5)]
        ),
        tissue=rng.uniform(0.42, 0.52),
        tumor_center=center,
        tumor_axes=np.array([size * stretch, size / stretch, rng.uniform(0.25, 0.5)]),
        tumor_lobes=np.stack([rng.normal(0, 0.08, 4), rng.uniform(0, 2 * np.pi, 4)], axis=1),
        region_scales=np.array([rng.uniform(0.3, 0.45), 1.0, rng.uniform(0.55, 0.75)]),
        region_levels=np.array([-0.25, rng.uniform(0.2, 0.28), rng.uniform(0.36, 0.46)]),
    )


def draw_slice(patient: Patient, z: float, rng: np.random.Generator) -> tuple[NDArray[np.uint8], list[Mask]]:
    """Draws the section of a patient at height z.

    Returns:
        The slice, uint8 (height, width), and one boolean mask of that shape for each of the three labels. The
        regions are nested: label1 (the whole tumor) contains label2, which contains label0.
    """
    w, h = patient.width, patient.height
    y, x = np.mgrid[0:h, 0:w].astype(np.float32)
    u, v = (x + 0.5) / w * 2 - 1, (y + 0.5) / h * 2 - 1

    # The head's section is smaller towards the top and the bottom, and its outline is not a perfect ellipse.
    section = np.sqrt(1 - (0.62 * z) ** 2)
    angle, waves = patient.outline_waves
    radius = np.hypot(u, v) / (0.97 * section * (1 + waves))
    brain = radius < 1

    texture = _section_of_texture(patient, z, (h, w))
    image = patient.tissue + 0.035 * texture
    image = np.where(
        radius > 0.82, image - 0.04 + 0.06 * np.sin(14 * angle + 3 * texture), image
    )  # folds of the cortex
    image = np.where(np.abs(u + 0.02 * texture) < 0.012, image - 0.2, image)  # the fissure between the halves

    width, length, distance, slant = patient.ventricles
    size = max(0.0, 1 - (z / 0.55) ** 2)
    for side in (-1, 1):
        across = (u * side - distance - slant * np.abs(v) * 0.3) / max(width * size, 1e-3)
        image = np.where(across**2 + (v / max(length * size, 1e-3)) ** 2 < 1, 0.1 + 0.02 * texture, image)

    masks = _tumor_regions(patient, z, brain)
    for label in (1, 2, 0):  # from the outside in: each region is painted over the one around it
        if masks[label].any():
            level = patient.tissue + patient.region_levels[label] + 0.05 * texture
            image = np.where(masks[label], level, image)

    b = patient.bias
    image = image * (1 + b[0] * u + b[1] * v + b[2] * u * v + b[3] * u**2 + b[4] * v**2)
    image = np.where(brain, image + rng.normal(0, 0.025, (h, w)), 0)
    return (np.clip(image, 0, 1) * 255).astype(np.uint8), masks


def _tumor_regions(patient: Patient, z: float, brain: Mask) -> list[Mask]:
    """The tumor's section at height z: a mask of the brain's shape for each label, empty if it is uncut."""
    masks: list[Mask] = [np.zeros_like(brain)] * REGIONS
    depth = z - patient.tumor_center[2]
    ax, ay, az = patient.tumor_axes
    if abs(depth) >= az:
        return masks
    y, x = np.mgrid[0 : patient.height, 0 : patient.width].astype(np.float32)
    dx, dy = x - patient.tumor_center[0], y - patient.tumor_center[1]
    direction = np.arctan2(dy, dx)
    lobes = sum(a * np.cos(k * direction + p + z) for k, (a, p) in enumerate(patient.tumor_lobes, start=2))
    for label, scale in enumerate(patient.region_scales):
        left = max(0.0, 1 - (depth / (az * scale)) ** 2)
        inside = (np.hypot(dx / ax, dy / ay) / scale < np.sqrt(left) * (1 + lobes)) & brain
        if inside.sum() >= SMALLEST_REGION:
            masks[label] = inside
    return masks


def _section_of_texture(patient: Patient, z: float, shape: tuple[int, int]) -> Array:
    """The tissue pattern at height z: neighboring layers blended, then enlarged to (height, width)."""
    position = (z + 1) / 2 * (len(patient.texture) - 1)
    below = int(min(position, len(patient.texture) - 2))
    layer = patient.texture[below] + (position - below) * (
        patient.texture[below + 1] - patient.texture[below]
    )
    return np.asarray(Image.fromarray(layer).resize(shape[::-1], Image.Resampling.BICUBIC))


def write_export(folder: Path, config: SyntheticDataset) -> None:
    """Writes train/, valid/ and test/ with JPEG slices and `_annotations.csv`, named as Roboflow names them.

    The same config gives the same bytes: each patient is drawn from the seed and the patient's number alone.

    Raises:
        InputError: The config has not three labels.
    """
    if len(config.labels) != REGIONS:
        raise InputError(
            f"The synthetic source draws {REGIONS} labels, but dataset.labels has {len(config.labels)}; "
            f"give {REGIONS} names."
        )
    patients = {"train": config.train_patients, "valid": config.valid_patients, "test": config.test_patients}
    number = 0
    for split, count in patients.items():
        (folder / split).mkdir(parents=True)
        rows = []
        for _ in range(count):
            number += 1
            rows += _write_patient(folder / split, number, config)
        with open(folder / split / ANNOTATIONS, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            writer.writerows(rows)


def _write_patient(folder: Path, number: int, config: SyntheticDataset) -> list[list[object]]:
    rng = np.random.default_rng([config.seed, number])
    patient = make_patient(rng)
    rows: list[list[object]] = []
    for index, z in enumerate(np.linspace(-0.8, 0.8, config.slices_per_patient)):
        pixels, masks = draw_slice(patient, float(z), rng)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=JPEG_QUALITY)
        digest = hashlib.md5(buffer.getvalue(), usedforsecurity=False).hexdigest()
        name = f"volume_{number}_slice_{index + 1}_jpg.rf.{digest}.jpg"
        (folder / name).write_bytes(buffer.getvalue())
        for label, mask in zip(config.labels, masks, strict=True):
            if mask.any():
                ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
                box = [int(xs[0]), int(ys[0]), int(xs[-1]) + 1, int(ys[-1]) + 1]
                rows.append([name, patient.width, patient.height, label, *box])
    return rows
