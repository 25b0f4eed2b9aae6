"""Statistics of synthetic patients: as varied as real MRI, and tumors are not simply the bright areas."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from brain_tumor.ingest.sources.synthetic import draw_slice, make_patient
from brain_tumor.ingest.sources.synthetic_patient import (
    BRAIN,
    PLANES,
    SEQUENCES,
    STRIPPED,
    Patient,
    to_slices,
)
from brain_tumor.ingest.sources.synthetic_tumor import KINDS, SMALLEST_REGION

PATIENTS, SLICES = 180, 6

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Slice:
    patient: Patient
    height: float
    pixels: NDArray[np.uint8]
    masks: list[Mask]  # label0, label1, label2


@pytest.fixture(scope="module")
def stacks() -> list[list[Slice]]:
    """The slices of many patients, one list per patient."""
    stacks = []
    for number in range(PATIENTS):
        rng = np.random.default_rng([3, number])
        patient = make_patient(rng)
        stacks.append(
            [Slice(patient, height, *draw_slice(patient, height, rng)) for height in patient.heights(SLICES)]
        )
    return stacks


@pytest.fixture(scope="module")
def slices(stacks: list[list[Slice]]) -> list[Slice]:
    return [one for stack in stacks for one in stack]


def bounds(mask: Mask) -> tuple[int, int, int, int]:
    """xmin, ymin, xmax and ymax, the last two exclusive."""
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(xs[0]), int(ys[0]), int(xs[-1]) + 1, int(ys[-1]) + 1


def side(one: Slice) -> float:
    """The longer side of the whole tumor's box, as a fraction of the picture's."""
    xmin, ymin, xmax, ymax = bounds(one.masks[1])
    return max(xmax - xmin, ymax - ymin) / max(one.pixels.shape)


def contrast(one: Slice) -> float:
    """How much brighter the whole tumor is than the tissue near its box, in grey levels; 0 without tissue."""
    xmin, ymin, xmax, ymax = bounds(one.masks[1])
    near = np.zeros_like(one.masks[1])
    near[max(0, ymin - 8) : ymax + 8, max(0, xmin - 8) : xmax + 8] = True
    around = one.pixels[near & ~one.masks[1] & (one.pixels > 12)]
    return float(one.pixels[one.masks[1]].mean() - around.mean()) if around.size else 0.0


def alike(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """The correlation of two pictures where both are not empty."""
    h, w = min(a.shape[0], b.shape[0]), min(a.shape[1], b.shape[1])
    return float(np.corrcoef(a[:h, :w].ravel(), b[:h, :w].ravel())[0, 1])


def test_the_seed_determines_patient_and_slices() -> None:
    drawn = []
    for _ in range(2):
        rng = np.random.default_rng(5)
        patient = make_patient(rng)
        drawn.append([draw_slice(patient, height, rng)[0].tobytes() for height in patient.heights(3)])
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) == 3


def test_slices_are_uint8_of_the_patients_size(slices: list[Slice]) -> None:
    for one in slices:
        shape = (one.patient.height, one.patient.width)
        assert one.pixels.dtype == np.uint8
        assert one.pixels.shape == shape
        assert [mask.shape for mask in one.masks] == [shape] * 3
        assert one.pixels.max() > 60


def test_regions_are_nested_and_none_is_tiny(slices: list[Slice]) -> None:
    for core, whole, ring in (one.masks for one in slices):
        assert not (core & ~ring).any()
        assert not (ring & ~whole).any()
        assert all(mask.sum() == 0 or mask.sum() >= SMALLEST_REGION for mask in (core, whole, ring))


def test_all_planes_and_sequences_have_their_documented_frequencies(stacks: list[list[Slice]]) -> None:
    for shares, name in ((PLANES, "plane"), (SEQUENCES, "sequence")):
        values = [getattr(stack[0].patient, name) for stack in stacks]
        assert set(values) == set(shares)
        for value, share in shares.items():
            assert values.count(value) / PATIENTS == pytest.approx(share, abs=0.1)
    assert np.mean([stack[0].patient.stripped for stack in stacks]) == pytest.approx(STRIPPED, abs=0.1)


def test_labels_are_present_as_often_as_in_real_data(slices: list[Slice]) -> None:
    present = np.array([[mask.any() for mask in one.masks] for one in slices])

    assert present.mean(axis=0) == pytest.approx([0.2, 0.47, 0.26], abs=0.06)
    assert 0.45 < 1 - present.any(axis=1).mean() < 0.6  # slices without any box


def test_some_patients_have_no_tumor_and_some_tumors_lack_a_region(stacks: list[list[Slice]]) -> None:
    tumors = [stack[0].patient.tumor for stack in stacks]

    assert 0.06 < tumors.count(None) / PATIENTS < 0.2
    kinds = [tuple(region is not None for region in tumor.regions) for tumor in tumors if tumor]
    assert set(kinds) == {(True, True, True), (False, True, True), (False, True, False)}
    for stack, tumor in zip(stacks, tumors, strict=True):
        shown = [one.masks[1].any() for one in stack]
        assert any(shown) == (tumor is not None)
        assert not all(shown)


def test_tumors_have_all_sizes(slices: list[Slice]) -> None:
    sides = [side(one) for one in slices if one.masks[1].any()]

    assert min(sides) < 0.04
    assert 0.45 < max(sides) < 0.7
    assert 0.25 < np.median(sides) < 0.36  # the medians of two real data sets
    counts, _ = np.histogram(sides, [0, 0.08, 0.16, 0.24, 0.32, 0.4, 1])
    assert counts.min() > 0.03 * len(sides)


def test_tumors_are_anywhere_in_the_brain(stacks: list[list[Slice]]) -> None:
    centers = np.array([stack[0].patient.tumor.center for stack in stacks if stack[0].patient.tumor])

    assert (np.linalg.norm(centers, axis=1) < BRAIN).all()
    assert (centers.std(axis=0) > 0.25).all()
    for axis in range(3):
        assert (centers[:, axis] < -0.2).mean() > 0.1
        assert (centers[:, axis] > 0.2).mean() > 0.1


def test_tumors_are_faint_and_bright_and_dark_and_rings(slices: list[Slice]) -> None:
    contrasts: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for one in slices:
        if one.patient.tumor and one.masks[1].sum() > 60:
            contrasts[one.patient.tumor.kind].append(contrast(one))

    assert np.median(contrasts["bright"]) > 30
    assert np.median(contrasts["dark"]) < -15
    assert np.median(np.abs(contrasts["faint"])) < 25
    everything = np.concatenate(list(contrasts.values()))
    assert 0.08 < (np.abs(everything) < 12).mean() < 0.5
    assert 0.1 < (everything > 45).mean() < 0.8
    assert 0.08 < (everything < -8).mean() < 0.5


def test_a_ring_is_brighter_than_its_interior(stacks: list[list[Slice]]) -> None:
    compared = 0
    for one in (one for stack in stacks for one in stack):
        core, whole, ring = one.masks
        if one.patient.tumor and one.patient.tumor.kind == "ring" and core.sum() > 40:
            shell = one.pixels[ring & ~core].mean()
            assert shell > one.pixels[core].mean()
            compared += shell > one.pixels[whole & ~ring].mean()
    assert compared >= 5


def test_distractors_change_pixels_and_no_boxes(stacks: list[list[Slice]]) -> None:
    changed = 0
    for stack in stacks[:40]:
        patient = stack[0].patient
        scanner = dataclasses.replace(patient.scanner, bias=(0.0,) * 5, ghost=0.0, noise=0.0, blur=0.0)
        plain = dataclasses.replace(patient, blobs=(), scanner=scanner)
        for one in stack[::2]:
            pixels, masks = draw_slice(plain, one.height, np.random.default_rng(0))
            assert all((a == b).all() for a, b in zip(masks, one.masks, strict=True))
            changed += bool((pixels != one.pixels).any())
    assert changed == 40 * 3


def test_bright_distractors_occur_without_a_tumor(stacks: list[list[Slice]]) -> None:
    """Always boxing the brightest object must fail here: blobs and vessels stand out like tumors."""
    healthy = [stack[0].patient for stack in stacks if stack[0].patient.tumor is None]
    assert healthy
    for patient in healthy:
        inside = [blob for blob in patient.blobs if blob.inside]
        assert len(inside) >= 5
        assert max(abs(blob.level - patient.levels.tissue) for blob in inside) > 0.2


def test_neighboring_slices_are_similar(stacks: list[list[Slice]]) -> None:
    neighbors, strangers, ends = [], [], []
    for number, stack in enumerate(stacks):
        pictures = [one.pixels for one in stack]
        neighbors.append(alike(pictures[2], pictures[3]))
        ends.append(alike(pictures[0], pictures[-1]))
        strangers.append(alike(pictures[2], stacks[number - 1][2].pixels))

    assert np.median(neighbors) > 0.75
    assert np.median(neighbors) > np.median(ends) + 0.1
    assert np.median(neighbors) > np.median(strangers) + 0.25


@pytest.mark.parametrize("name", ["ghost", "noise", "blur", "gain"])
def test_scans_differ(stacks: list[list[Slice]], name: str) -> None:
    assert np.std([getattr(stack[0].patient.scanner, name) for stack in stacks]) > 0.005


def test_the_brightest_pixel_is_often_not_the_tumors(slices: list[Slice]) -> None:
    """If the picture's brightest pixel is in the tumor, finding it needs no detector.

    This holds for 93 % of the real slices of six skull-stripped FLAIR patients, and for 4 % of the slices of
    mixed clinical sequences with a skull.
    """
    found = []
    for one in slices:
        if one.masks[1].any():
            xmin, ymin, xmax, ymax = bounds(one.masks[1])
            y, x = np.unravel_index(int(one.pixels.argmax()), one.pixels.shape)
            found.append(xmin <= x < xmax and ymin <= y < ymax)
    assert 0.05 < np.mean(found) < 0.6


def test_frames_agree() -> None:
    assert to_slices("axial", 1, (0.1, 0.2, 0.3)) == (0.1, 0.2, 0.3)
    assert to_slices("coronal", 1, (0.1, 0.2, 0.3)) == (0.1, -0.3, 0.2)
    assert to_slices("sagittal", -1, (0.1, 0.2, 0.3)) == (-0.2, -0.3, 0.1)
