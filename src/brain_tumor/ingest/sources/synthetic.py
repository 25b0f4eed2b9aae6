"""Synthetic patients: MRI-like heads, most with a tumor, written as an export on disk.

It generates patients, not single images: every patient has one head, scanned in one plane and one sequence,
and most have one tumor, a set of three nested regions in space. A slice is a section of both, so that
neighboring slices are similar and a tumor grows and shrinks along the stack, as in a real volume. No patient
is in two splits.

The images should be as hard as real ones: tumors are small or large, faint, bright or dark, and anywhere;
half of the slices show none; and other structures are bright. A detector that only finds bright regions must
fail here as it does on MRI.
"""

import csv
import hashlib
import io
from pathlib import Path

import numpy as np
from PIL import Image

from brain_tumor.config import SyntheticDataset
from brain_tumor.ingest.formats.tensorflow_csv import ANNOTATIONS, COLUMNS
from brain_tumor.ingest.sources.synthetic_patient import make_patient
from brain_tumor.ingest.sources.synthetic_slice import draw_slice
from brain_tumor.ingest.sources.synthetic_tumor import REGIONS
from brain_tumor.runtime.errors import InputError

__all__ = ["draw_slice", "make_patient", "write_export"]

JPEG_QUALITY = 92


def write_export(folder: Path, config: SyntheticDataset) -> None:
    """Writes train/, valid/ and test/ with JPEG slices and `_annotations.csv`, named as Roboflow names them.

    The same config gives the same bytes: a patient depends only on the seed and the patient's number.

    Raises:
        InputError: The config does not have three labels.
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
    for index, height in enumerate(patient.heights(config.slices_per_patient)):
        pixels, masks = draw_slice(patient, height, rng)
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
