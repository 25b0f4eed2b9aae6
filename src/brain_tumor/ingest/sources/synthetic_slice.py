"""Draws a slice of a synthetic patient: the section of the head and of its tumor at one height."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from brain_tumor.ingest.sources.synthetic_patient import BRAIN, Array, Coordinate, Patient, Point, above_base
from brain_tumor.ingest.sources.synthetic_tumor import INWARDS, Mask

# Ellipsoids in the head's frame: center and half axes.
CEREBELLUM = (0.0, 0.46, -0.44), (0.55, 0.34, 0.29)
BRAIN_STEM = (0.0, 0.14, -0.42), (0.14, 0.13, 0.42)
THIRD_VENTRICLE = (0.0, 0.0, -0.08), (0.022, 0.17, 0.13)
FOURTH_VENTRICLE = (0.0, 0.33, -0.4), (0.07, 0.05, 0.1)
SKULL, SCALP = 0.885, 0.94  # radii at which bone and skin begin


@dataclass(frozen=True)
class Section:
    """A head at one height. Arrays are float32 (height, width); the coordinate along the stack is a float."""

    s: float
    p: Array  # position of a pixel's tissue before the tumor displaced it
    q: Array
    x: Coordinate  # the same in the head's frame
    y: Coordinate
    z: Coordinate
    radius: Array  # 1 at the head's surface
    above: Array  # how far a pixel is above the base of the skull
    fine: Array
    coarse: Array
    brain: Mask


def draw_slice(patient: Patient, z: float, rng: np.random.Generator) -> tuple[NDArray[np.uint8], list[Mask]]:
    """Draws the section of a patient at a height of the stack of slices, see `Patient.heights`.

    Returns:
        The slice, uint8 (height, width), and one boolean mask of that shape for each of the three labels. The
        regions are nested: label1 (the whole tumor) contains label2, which contains label0.
    """
    section = _make_section(patient, float(z))
    image = _paint_brain(patient, section)
    _paint_ventricles(patient, section, image)
    if patient.stripped:
        image *= section.brain
    else:
        np.copyto(image, _paint_skull(patient, section), where=~section.brain)
    _paint_blobs(patient, section, image)
    tumor, middle = patient.tumor, patient.frame.tumor_middle
    masks: list[Mask] = [np.zeros_like(section.brain)] * len(INWARDS)
    if tumor is not None and middle is not None:
        masks = tumor.masks(middle, z, section.fine, section.brain)
        for label in INWARDS:  # from the outside in: each region is painted over the one around it
            region = tumor.regions[label]
            if region is not None and masks[label].any():
                target = (patient.levels.tissue + region.level) + 0.04 * section.coarse + 0.03 * section.fine
                image += (region.opacity * masks[label]).astype(np.float32) * (target - image)
    return _simulate_scanner(patient, section, image, rng), masks


def _make_section(patient: Patient, s: float) -> Section:
    frame, tumor = patient.frame, patient.tumor
    p, q = frame.p, frame.q
    if tumor is not None and frame.tumor_middle is not None:
        near = 1 - ((s - tumor.center[2]) / (2 * tumor.axes[2])) ** 2
        if near > 0 and tumor.pressure:
            push = near * frame.tumor_middle.push
            p = p - push * (p - tumor.center[0])
            q = q - push * (q - tumor.center[1])
    x, y, z = _to_head(patient, p, q, s)
    height = 0.55 * s if patient.plane == "axial" and s < 0 else s
    radius = np.sqrt(frame.flat + height**2) / frame.waves
    above = above_base(x, y, z)
    fine, coarse = _layer(frame.fine, s), _layer(frame.coarse, s)
    brain = above > 0.05 * coarse + 0.015 * fine
    for ellipsoid in (CEREBELLUM, BRAIN_STEM):
        inside = _within(x, y, z, *ellipsoid)
        if inside is not None:
            brain |= inside
    brain &= radius < BRAIN
    return Section(s, p, q, x, y, z, radius, above, fine, coarse, brain)


def _to_head(patient: Patient, p: Array, q: Array, s: float) -> tuple[Coordinate, Coordinate, Coordinate]:
    match patient.plane:
        case "axial":
            return p, q, s
        case "coronal":
            return p, s, -q
        case "sagittal":
            return s, p * patient.facing, -q


def _layer(layers: Array, s: float) -> Array:
    """A pattern at height s, of its layers (layers, height, width)."""
    position = (s + 1) / 2 * (len(layers) - 1)
    below = max(0, min(int(position), len(layers) - 2))
    turn = (position - below) * np.pi / 2
    # Weights whose squares add up to 1 keep the pattern's variance between two layers.
    lower, upper = float(np.cos(turn)), float(np.sin(turn))
    return np.asarray(lower * layers[below] + upper * layers[below + 1], np.float32)


def _within(x: Coordinate, y: Coordinate, z: Coordinate, center: Point, axes: Point) -> Mask | None:
    """Which pixels are in an ellipsoid of the head's frame; None if the slice does not cut it."""
    height = 0.0
    square: Coordinate = 0.0
    for coordinate, middle, axis in zip((x, y, z), center, axes, strict=True):
        if isinstance(coordinate, float):
            height = ((coordinate - middle) / axis) ** 2
        else:
            square = square + ((coordinate - middle) * np.float32(1 / axis)) ** 2
    return np.asarray(square < 1 - height) if height < 1 else None


def _paint_brain(patient: Patient, section: Section) -> Array:
    """White matter, cortex, fluid in the sulci, cerebellum and brain stem, in the whole picture."""
    levels, depth = patient.levels, BRAIN - section.radius
    # The sulci are where the pattern crosses zero; they narrow with depth.
    fold = np.abs(section.fine)
    white = np.clip(3.5 * fold + (6 * depth - 2.1), 0, 1)
    np.minimum(white, np.clip((depth - 0.03) * 25, 0, 1), out=white)
    fluid = np.clip((0.34 - 1.3 * depth - fold) * 4, 0, 1)
    coordinates = section.x, section.y, section.z
    cerebellum, stem = _within(*coordinates, *CEREBELLUM), _within(*coordinates, *BRAIN_STEM)
    if cerebellum is not None:
        # Its folds are finer, and fluid surrounds it.
        around = _within(*coordinates, CEREBELLUM[0], (0.575, 0.365, 0.305))
        if around is not None:
            fluid = np.where(around & (section.above > -0.1), 0.6, fluid)
        stripes = 0.5 + 0.5 * np.sin(50 * (section.y - section.z) + 3 * section.fine)
        white, fluid = (
            np.where(cerebellum, 0.8 * stripes, white),
            np.where(cerebellum, 0.2 - 0.2 * stripes, fluid),
        )
    if stem is not None:
        white, fluid = np.where(stem, 0.85, white), np.where(stem, 0, fluid)
    image = levels.grey + (levels.white - levels.grey) * white
    image += fluid * (levels.fluid - image)
    image += 0.02 * section.coarse
    return np.asarray(image, np.float32)


def _paint_ventricles(patient: Patient, section: Section, image: Array) -> None:
    """The interhemispheric fissure, the corpus callosum and the ventricles."""
    levels, (x, y, z) = patient.levels, (section.x, section.y, section.z)
    width, length, height, distance, slant, asymmetry = patient.ventricles
    fluid = np.float32(levels.fluid)
    if not isinstance(x, float) or abs(x) < 0.16:
        middle = np.abs(x + 0.008 * section.coarse)
        arc = (y / 0.46) ** 2 + ((z - 0.02) / 0.36) ** 2
        if not isinstance(x, float):  # a sagittal slice does not show the fissure
            np.copyto(image, fluid, where=(middle < 0.016) & (arc > 1) & (section.above > 0.14))
        corpus_callosum = (middle < 0.14) & (arc > 0.72) & (arc < 1) & (z > 0.02)
        np.copyto(image, np.float32(levels.white), where=corpus_callosum)
    for center, axes in (THIRD_VENTRICLE, FOURTH_VENTRICLE):
        inside = _within(x, y, z, center, axes)
        if inside is not None:
            np.copyto(image, fluid, where=inside)
    up = z - 0.1 + 0.25 * np.maximum(y, 0)
    flat = (y / length) ** 2 + (up / height) ** 2
    if np.min(flat) > 1.7:
        return
    ends = np.abs(y) > 0.6 * length
    apart = distance + (1.6 * slant) * (y - 0.05) ** 2
    for side, scale in ((-1, 1.0), (1, asymmetry)):
        rim = ((x * side - apart) / (width * scale)) ** 2 + flat
        np.add(image, np.float32(levels.caps), out=image, where=(rim < 1.7) & ends)
        np.copyto(image, fluid, where=rim + 0.08 * section.fine < 1)


def _paint_skull(patient: Patient, section: Section) -> Array:
    """Everything except the brain: fluid around it, bone, scalp, face and neck, and black air."""
    levels, radius = patient.levels, section.radius
    fat = np.clip((section.fine - 0.6) * 2, 0, 1)
    image = levels.muscle + 0.07 * section.coarse + fat * (levels.scalp - levels.muscle) * 0.7
    bone = levels.bone + np.clip(0.12 * section.coarse, 0, 0.3)
    image = np.where((section.above > -0.1) & (radius > SKULL - 0.1), bone, image)
    image = np.where((section.above > 0) & (radius < SKULL), np.float32(levels.fluid), image)
    scalp = levels.scalp + 0.08 * section.fine
    image = np.where(radius > SCALP + 0.012 * section.coarse, scalp, image)
    return np.asarray(np.where(radius < 1, image, 0), np.float32)


def _paint_blobs(patient: Patient, section: Section, image: Array) -> None:
    head = section.radius < 1
    for blob in patient.blobs:
        left = 1 - ((section.s - blob.center[2]) / blob.axes[2]) ** 2
        if left <= 0 or (patient.stripped and not blob.inside):
            continue
        down = section.q - blob.center[1]
        square = (down / blob.axes[1]) ** 2
        across = section.p - blob.center[0]
        if blob.bend:
            across = across - blob.bend * down**2
        square += (across / blob.axes[0]) ** 2
        where = (square < left) & (section.brain if blob.inside else head & ~section.brain)
        np.copyto(image, np.float32(blob.level), where=where)


def _simulate_scanner(
    patient: Patient, section: Section, image: Array, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Applies blur, the bias field, ghosts, noise, and the display window."""
    scanner = patient.scanner
    sharp = Image.fromarray((np.clip(image, 0, 1) * 255).astype(np.uint8))
    image = np.asarray(sharp.filter(ImageFilter.BoxBlur(scanner.blur)), np.float32)
    image = image * ((scanner.gain / 255) * patient.frame.bias)
    if scanner.ghost:
        shift = int(scanner.ghost_shift * image.shape[scanner.ghost_axis])
        image = image + scanner.ghost * np.roll(image, shift, scanner.ghost_axis)
    image += scanner.noise * rng.standard_normal(image.shape, dtype=np.float32)
    if patient.stripped:
        image *= section.brain
    return (np.clip(image, 0, 1) * 255).astype(np.uint8)
