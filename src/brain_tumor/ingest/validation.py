"""Validates an export's samples: bad ones are quarantined with a finding, too many fail the step.

Each image is read and decoded once. That pass measures everything that later steps need, and writes the
image's bytes to the artifact, so that only a row of numbers per image stays in memory.
"""

import itertools
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike, NDArray

from brain_tumor.artifacts.dataset import DatasetDraft
from brain_tumor.artifacts.tables import COORDINATES
from brain_tumor.config import SPLITS, DatasetConfig, Split
from brain_tumor.ingest.box_checks import clip_boxes, describe_place, find_bad_boxes, merge_boxes
from brain_tumor.ingest.duplicates import find_duplicates
from brain_tumor.ingest.export import Export, ExportSplit
from brain_tumor.ingest.findings import LEFT_OUT, QUARANTINED, ROW_IGNORED, Finding
from brain_tumor.ingest.image_measures import MEASURES, Defect, measure_images
from brain_tumor.runtime.errors import InputError
from brain_tumor.runtime.progress import Progress
from brain_tumor.runtime.text import display_name, quote

LEFT_EMPTY = "split left empty"
QUOTED_FINDINGS = 3
# Columns of the measures.
TEXTS = ("format", "sha256")


@dataclass(frozen=True)
class Validation:
    """The result of a validation.

    Attributes:
        images: The good images, by split and file name: split (as provided), filename, width, height
            (pixels), grey (whether all pixels have equal red, green and blue), format (`jpeg` or `png`),
            bytes (the file's size), intensity (mean grey level, 0..255), perceptual_hash (uint64), sha256
            (hexadecimal).
        boxes: Their boxes, at most one per label and image, by image and label: image (its position in
            `images`), label, xmin, ymin, xmax, ymax in pixels, within the image, xmax and ymax exclusive.
        quarantined: The bad images: split, filename.
        findings: All findings, sorted.
        histogram: The histogram of grey levels of all decoded pixels, (256,).
    """

    images: pd.DataFrame
    boxes: pd.DataFrame
    quarantined: pd.DataFrame
    findings: list[Finding]
    histogram: NDArray[np.int64]


def validate(export: Export, config: DatasetConfig, draft: DatasetDraft) -> Validation:
    """Decodes each image, validates each box, and copies the images.

    An image with a bad box is bad. A row that names a missing image or none counts as a bad image. A box up
    to a pixel beyond the edge is clipped. Duplicate files and images without a box are good.

    Args:
        export: The export.
        config: Labels, `duplicate_boxes` and `max_bad_fraction`.
        draft: The artifact draft, whose folders receive the good and bad images.

    Raises:
        InputError: More than `config.max_bad_fraction` of the images or of the annotations are unusable, or
            a file cannot be read.
    """
    histogram = np.zeros(256, np.int64)
    images, boxes, quarantined = [], [], []
    findings: list[Finding] = []
    good_images = lost = 0
    total = sum(len(split.images) for split in export.splits)
    with Progress("Validating", total, "images") as progress:
        for split in export.splits:
            measures, defects = measure_images(split, draft.images / split.name, histogram, progress)
            kept, found = _validate_split(split, measures, defects, config)
            findings += found
            bad = _bad_images(split, found)
            image = _positions(split.boxes["filename"], split.images)
            lost += split.unread + int(((image < 0) | bad[image]).sum())
            for position in np.flatnonzero(bad):
                file = f"{split.name}/{split.images[position]}"
                os.rename(draft.images / file, draft.quarantine / file)
            images.append(_table(split, measures, ~bad))
            quarantined.append(_table(split, measures, bad)[["split", "filename"]])
            kept = kept[~bad[kept["image"]]]
            places = np.cumsum(~bad) - 1 + good_images
            boxes.append(kept.assign(image=places[kept["image"]]))
            good_images += len(images[-1])

    good = pd.concat(images, ignore_index=True)
    findings += find_duplicates(good)
    findings += _find_empty_splits(export, good)
    findings.sort(
        key=lambda finding: (SPLITS.index(finding.split), finding.file, finding.row or 0, finding.kind)
    )
    validation = Validation(
        good,
        pd.concat(boxes, ignore_index=True),
        pd.concat(quarantined, ignore_index=True),
        findings,
        histogram,
    )
    annotations = sum(len(split.boxes) + split.unread for split in export.splits)
    _stop_if_too_many("images", *_count_bad_images(validation), findings, config.max_bad_fraction)
    _stop_if_too_many("annotations", lost, annotations, findings, config.max_bad_fraction)
    return validation


def _validate_split(
    split: ExportSplit, measures: NDArray[np.void], defects: dict[int, Defect], config: DatasetConfig
) -> tuple[pd.DataFrame, list[Finding]]:
    """A split's valid boxes by image (its position) and label, and its findings.

    Boxes of bad images are dropped.
    """
    findings = list(split.findings)
    for position, (kind, problem) in sorted(defects.items()):
        name = split.images[position]
        message = f"{split.name}/{display_name(name)} {problem}."
        findings.append(Finding(split.name, name, None, kind, message, QUARANTINED))

    image = _positions(split.boxes["filename"], split.images)
    findings += [_stray_row(split.name, row) for row in split.boxes[image < 0].itertuples()]
    boxes = split.boxes.drop(columns="filename").assign(image=image)
    boxes = boxes[(image >= 0) & ~np.isin(image, list(defects))]
    findings += find_bad_boxes(split, boxes, measures, config.labels)
    boxes = boxes[~_bad_images(split, findings)[boxes["image"]]]
    boxes, clipped = clip_boxes(split, boxes, measures)
    findings += clipped
    known = pd.CategoricalDtype(config.labels)
    labels = pd.Categorical.from_codes(_positions(boxes["label"], config.labels), dtype=known)
    boxes, repeated = merge_boxes(split, boxes.assign(label=labels), config.duplicate_boxes)
    return boxes[["image", "label", *COORDINATES]], findings + repeated


def _stray_row(split: Split, row: Any) -> Finding:
    """A finding about a row that matches no image. Its file name is never opened: it may be a path."""
    name = row.filename
    if "/" in name or "\\" in name:
        problem = f"names {quote(name)}, a path; give the name of a file in {split}/"
        kind = "path_in_filename"
    elif name:
        kind, problem = (
            "missing_image",
            f"names {display_name(name)}, which {split}/ lacks; add the image or delete the row",
        )
    else:
        kind, problem = "missing_image", "names no image; fill in the file name or delete the row"
    number = None if pd.isna(row.row) else int(row.row)
    return Finding(split, name, number, kind, f"{describe_place(row)} {problem}.", ROW_IGNORED)


def _bad_images(split: ExportSplit, findings: list[Finding]) -> NDArray[np.bool_]:
    """Which of the split's images the findings quarantine, (images,)."""
    bad = {finding.file for finding in findings if finding.action == QUARANTINED}
    return np.fromiter((name in bad for name in split.images), bool, len(split.images))


def _positions(texts: Iterable[str], known: ArrayLike) -> NDArray[np.int32]:
    """The position of each string among the known ones, or -1, without one Python object per string."""
    found = pc.index_in(pa.array(texts, pa.large_string()), pa.array(known, pa.large_string()))
    positions: NDArray[np.int32] = found.fill_null(-1).to_numpy()
    return positions


def _table(split: ExportSplit, measures: NDArray[np.void], chosen: NDArray[np.bool_]) -> pd.DataFrame:
    names = pa.array(itertools.compress(split.images, chosen), pa.large_string())
    own = measures[chosen]
    columns = {name: own[name] for name in MEASURES.names or () if name not in TEXTS}
    texts = {name: pa.array(own[name], pa.large_binary()).cast(pa.large_string()) for name in TEXTS}
    frame: pd.DataFrame = pa.table({"filename": names, **columns, **texts}).to_pandas()
    frame["split"] = pd.Categorical([split.name], SPLITS).repeat(len(frame))
    return frame


def _count_bad_images(validation: Validation) -> tuple[int, int]:
    """The number of bad images, including missing ones, and of all images."""
    ignored = [item for item in validation.findings if item.action in (ROW_IGNORED, LEFT_OUT)]
    named = {(item.split, item.file) for item in ignored if item.file}
    bad = len(validation.quarantined) + len(named) + sum(not item.file for item in ignored)
    return bad, len(validation.images) + bad


def _stop_if_too_many(what: str, bad: int, total: int, findings: list[Finding], limit: float) -> None:
    if bad > limit * total:
        unknown = any(finding.kind == "unknown_label" for finding in findings)
        advice = "Name all labels in dataset.labels, fix the export" if unknown else "Fix the export"
        quoted = " ".join([finding.message for finding in findings if finding.bad][:QUOTED_FINDINGS])
        raise InputError(
            f"{bad} of {total} {what} ({bad / total:.1%}) are unusable, more than dataset.max_bad_fraction "
            f"allows ({limit:.1%}): {quoted} {advice} or raise the limit."
        )


def _find_empty_splits(export: Export, images: pd.DataFrame) -> list[Finding]:
    left = set(images["split"])
    return [
        Finding(split.name, "", None, "empty_split", f"{split.name} has no good image.", LEFT_EMPTY)
        for split in export.splits
        if split.name not in left
    ]
