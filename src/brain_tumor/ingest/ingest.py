"""The ingest step: validates an export and writes it as a dataset artifact."""

import csv
import re
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from brain_tumor.artifacts.dataset import (
    Dataset,
    DatasetDraft,
    DatasetManifest,
    Leakage,
    SplitCounts,
    count_patients,
    create_dataset,
    open_dataset,
)
from brain_tumor.config import SPLITS, AnyDataset, DatasetConfig, Split
from brain_tumor.config.dataset import AUTO
from brain_tumor.ingest.export import Export
from brain_tumor.ingest.findings import Finding
from brain_tumor.ingest.formats.registry import read_export
from brain_tumor.ingest.labels import read_labels
from brain_tumor.ingest.leakage import measure_leakage
from brain_tumor.ingest.shortcuts import explain_shortcuts, find_shortcuts
from brain_tumor.ingest.sources.fetch import errors_name_source, fetch
from brain_tumor.ingest.splits import split_by_patient
from brain_tumor.ingest.text_column import TextColumn
from brain_tumor.ingest.validation import Validation, validate
from brain_tumor.runtime.errors import InputError
from brain_tumor.runtime.text import display_name

SYNTHETIC_NOTICE = (
    "Synthetic data: these patients were drawn by a program, and no figure here says anything about MRI."
)
LARGEST_SLICE = 2**63 - 1


@dataclass(frozen=True)
class Ingested:
    """The result of ingest: the dataset artifact, and data for the report that it does not contain.

    Attributes:
        dataset: The artifact.
        images: Its images, one row each, as in `Dataset.images`, but `perceptual_hash` is uint64, and with
            `provided` (the original split), `bytes` (its size) and `intensity` (mean grey level,
            0..255).
        annotations: Its boxes, one row each, by image and label: `image` (the position in `images`), `label`
            (a category in slot order), and the `COORDINATES` in pixels of the original image.
        findings: All findings, sorted.
        histogram: The histogram of grey levels of all decoded pixels, (256,).
    """

    dataset: Dataset
    images: pd.DataFrame
    annotations: pd.DataFrame
    findings: list[Finding]
    histogram: NDArray[np.int64]


def ingest(config: AnyDataset, output: Path) -> Ingested:
    """Reads a source, quarantines bad images, and publishes a dataset artifact.

    Args:
        config: The source's config.
        output: Folder of the artifact.

    Raises:
        InputError: The export's layout, a slice's number or too many samples are invalid. Then no artifact is
            written.
    """
    if config.labels == [AUTO]:
        config = config.model_copy(update={"labels": read_labels(config)})
    with create_dataset(output) as draft:
        export_format, validation = _read(config, draft)
        images = _add_names(validation.images, re.compile(config.filename_pattern))
        images, annotations = _assign_splits(images, validation.boxes, config)
        _write_tables(images, annotations, draft)
        _write_findings(validation.findings, draft.findings)
        has_box = np.zeros(len(images), bool)
        has_box[annotations["image"]] = True
        shortcuts = find_shortcuts(images, has_box)
        notices = [SYNTHETIC_NOTICE if config.source == "synthetic" else "", explain_shortcuts(shortcuts)]
        draft.finish(
            DatasetManifest(
                source=config.source,
                format=export_format,
                notice=" ".join(filter(None, notices)),
                labels=config.labels,
                grey=bool(images["grey"].all()),
                config=config.model_dump(mode="json"),
                counts=_count(images, annotations, validation.quarantined),
                findings=dict(sorted(Counter(finding.kind for finding in validation.findings).items())),
                unmatched_names=int(images["slice"].isna().sum()),
                shortcuts=shortcuts,
                split=config.split,
                leakage=_measure_leakage(images, config),
            )
        )
    return Ingested(open_dataset(output), images, annotations, validation.findings, validation.histogram)


def _read(config: AnyDataset, draft: DatasetDraft) -> tuple[str, Validation]:
    """Reads and validates the export, which is deleted afterwards, and copies its images to the draft."""
    with tempfile.TemporaryDirectory() as download, tempfile.TemporaryDirectory() as extracted:
        with errors_name_source(config, Path(download)):
            folder = fetch(config, Path(download))
        with errors_name_source(config, folder), errors_name_source(config, Path(extracted)):
            export = read_export(folder, Path(extracted))
            _check_splits(export, config)
            return export.format, validate(export, config, draft)


def _check_splits(export: Export, config: DatasetConfig) -> None:
    missing = [name for name in SPLITS if name not in {split.name for split in export.splits}]
    if missing and config.split == "provided":
        raise InputError(
            f"The export has no split {', '.join(missing)}; add it, or let dataset.split=patient make "
            "new splits."
        )


def _add_names(images: pd.DataFrame, pattern: re.Pattern[str]) -> pd.DataFrame:
    """Adds source_id, and patient_id and slice, which are missing if the pattern does not match."""
    patients = TextColumn()
    slices, unmatched = np.zeros(len(images), np.int64), np.zeros(len(images), bool)
    for place, (split, filename) in enumerate(zip(images["split"], images["filename"], strict=True)):
        match = pattern.search(filename)
        if match and match["patient"] and match["slice"]:
            if not match["slice"].isdecimal() or int(match["slice"]) > LARGEST_SLICE:
                raise InputError(
                    f"dataset.filename_pattern finds the slice {match['slice']!r} in {split}/{filename}; "
                    f"its group must match digits alone, a number up to {LARGEST_SLICE}."
                )
            patients.append(match["patient"])
            slices[place] = int(match["slice"])
        else:
            patients.append("")
            unmatched[place] = True
    return images.assign(
        source_id=images["split"].astype("str") + "/" + images["filename"],
        patient_id=patients.finish().mask(unmatched),
        slice=pd.arrays.IntegerArray(slices, unmatched),
    )


def _assign_splits(
    images: pd.DataFrame, boxes: pd.DataFrame, config: DatasetConfig
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Adds the split to use to images and boxes, both sorted; `provided` is the original split."""
    images = images.rename(columns={"split": "provided"})
    if config.split == "provided":
        return images.assign(split=images["provided"]), boxes
    unknown = images["source_id"][images["patient_id"].isna()]
    if len(unknown):
        raise InputError(
            f"dataset.split=patient needs each image's patient, and dataset.filename_pattern finds none in "
            f"{len(unknown)} of {len(images)} names, such as {display_name(unknown.iloc[0])}; give a pattern "
            "that does, or use dataset.split=provided."
        )
    shown = np.zeros((len(images), len(config.labels)), bool)
    shown[boxes["image"], boxes["label"].cat.codes] = True
    splits = split_by_patient(images["patient_id"], shown, config.split_fractions, config.split_seed)
    images["split"] = pd.Categorical(splits, SPLITS)
    keys = {"split": images["split"].cat.codes, "filename": images["filename"], "id": images["source_id"]}
    order = pc.sort_indices(pa.table(keys), [(key, "ascending") for key in keys]).to_numpy()
    places = np.empty(len(order), np.int64)
    places[order] = np.arange(len(order))
    boxes = boxes.assign(image=places[boxes["image"]])
    return images.take(order).reset_index(drop=True), boxes.sort_values(["image", "label"], ignore_index=True)


def _write_tables(images: pd.DataFrame, annotations: pd.DataFrame, draft: DatasetDraft) -> None:
    def complete_images(part: pd.DataFrame) -> pd.DataFrame:
        return part.assign(perceptual_hash=[f"{value:016x}" for value in part["perceptual_hash"]])

    def complete_annotations(part: pd.DataFrame) -> pd.DataFrame:
        places = part["image"].to_numpy()
        names = ("source_id", "split", "filename")
        return part.assign(**{name: images[name].array.take(places) for name in names})

    draft.write_images(images, complete_images)
    draft.write_annotations(annotations, complete_annotations)


def _write_findings(findings: list[Finding], path: Path) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Finding)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(finding) for finding in findings)


def _count(
    images: pd.DataFrame, annotations: pd.DataFrame, quarantined: pd.DataFrame
) -> dict[Split, SplitCounts]:
    counts: dict[Split, SplitCounts] = {}
    split_of_box = images["split"].array[annotations["image"]]
    for split in SPLITS:
        own, boxes = images["split"] == split, annotations[split_of_box == split]
        counts[split] = SplitCounts(
            images=int(own.sum()),
            images_with_boxes=boxes["image"].nunique(),
            boxes=len(boxes),
            patients=count_patients(images["patient_id"][own]),
            quarantined=int((quarantined["split"] == split).sum()),
            boxes_by_label=boxes["label"].value_counts(sort=False).to_dict(),
        )
    return counts


def _measure_leakage(images: pd.DataFrame, config: DatasetConfig) -> Leakage:
    used = measure_leakage(images, images["split"], config.near_duplicate_distance)
    provided = used
    if config.split != "provided":
        provided = measure_leakage(images, images["provided"], config.near_duplicate_distance)
    return Leakage(used=used, provided=provided)
