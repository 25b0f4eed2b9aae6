"""The dataset artifact: an export, checked, with tables in place of its annotations (the ingest step)."""

import csv
import json
import re
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from brain_tumor.config import SPLITS, DatasetConfig, to_json
from brain_tumor.data.annotations import Export, read_export
from brain_tumor.data.export import TextColumn
from brain_tumor.data.findings import Finding
from brain_tumor.data.sources import fetch
from brain_tumor.data.splits import METHODS, check_fractions, measure_leakage, split_by_patient
from brain_tumor.data.validation import Validation, validate
from brain_tumor.errors import InputError
from brain_tumor.storage import publish, read_manifest

SYNTHETIC_NOTICE = (
    "Synthetic data: these patients were drawn by a program, and no figure here says anything about MRI."
)
LARGEST_SLICE = 2**63 - 1
ROW_GROUP = 8192

IMAGES_SCHEMA = pa.schema(
    [
        ("split", pa.string()),
        ("filename", pa.string()),
        ("source_id", pa.string()),
        ("width", pa.int64()),
        ("height", pa.int64()),
        ("patient_id", pa.string()),
        ("slice", pa.int64()),
        ("grey", pa.bool_()),
        ("sha256", pa.string()),
        ("perceptual_hash", pa.string()),
    ]
)
ANNOTATIONS_SCHEMA = pa.schema(
    [
        ("source_id", pa.string()),
        ("split", pa.string()),
        ("filename", pa.string()),
        ("label", pa.string()),
        ("xmin", pa.float64()),
        ("ymin", pa.float64()),
        ("xmax", pa.float64()),
        ("ymax", pa.float64()),
    ]
)


@dataclass(frozen=True)
class Dataset:
    """A dataset artifact, opened.

    Attributes:
        path: Its folder; an image is at `images/<source_id>` below it.
        manifest: Its manifest, see `ingest`.
        images: One row an image, sorted by split and file name: split, filename, source_id
            (`<split as provided>/<filename>`, unique), width, height (pixels), patient_id, slice (nullable
            integer), grey (whether all its pixels have equal red, green and blue), sha256 (hexadecimal),
            perceptual_hash (64 bits, hexadecimal).
        annotations: One row a box, at most one a label and image: source_id, split, filename, label, xmin,
            ymin, xmax, ymax (pixels of the original image, xmax and ymax exclusive).
    """

    path: Path
    manifest: dict[str, Any]
    images: pd.DataFrame
    annotations: pd.DataFrame


def open_dataset(path: str | Path) -> Dataset:
    """Opens what `ingest` made.

    Raises:
        InputError: There is no dataset artifact at `path`.
    """
    path = Path(path)
    manifest = read_manifest(path, "dataset")
    return Dataset(
        path,
        manifest,
        pd.read_parquet(path / "images.parquet"),
        pd.read_parquet(path / "annotations.parquet"),
    )


def ingest(config: DatasetConfig, output: str | Path, report: str | Path) -> dict[str, int]:
    """Reads a source, sets bad images aside, and publishes a dataset artifact and a report about it.

    The artifact holds `images/<split>/` and `quarantine/<split>/` (bytes untouched, splits as provided),
    `images.parquet` and `annotations.parquet` (see `Dataset`) and `findings.csv`. Its manifest has `source`,
    `format` (of the export), `notice` (empty, or what every report must say about the data), `labels`,
    `grey` (whether all images are), `config`, `counts` by split, `findings` (how many of each kind),
    `unmatched_names` (how many images `filename_pattern` does not match: each counts as a patient of its
    own), `split` (the method) and `leakage`, of the splits `used` and of those `provided` (see
    `measure_leakage`). The sha256 of images/ are in `images.parquet`, those of all else in `files`.

    Args:
        config: The source's config.
        output: Folder of the artifact.
        report: File of the data report (HTML).

    Returns:
        The counts and what splits share by name, sorted; the same names for the same labels.

    Raises:
        InputError: The config, the export's layout or too many of its samples are not usable. Then neither
            the artifact nor the report is written.
    """
    _check(config)
    pattern = _compile(config.filename_pattern)

    with publish(output, "dataset", indexed=["images"]) as draft:
        export_format, validation = _read(config, draft.path)
        images = _add_names(validation.images, pattern)
        images, annotations = _assign_splits(images, validation.boxes, config)
        _write_tables(images, annotations, draft.path)
        _write_findings(validation.findings, draft.path / "findings.csv")
        leakage = {"used": measure_leakage(images, images["split"], config.near_duplicate_distance)}
        leakage["provided"] = (
            leakage["used"]
            if config.split == "provided"
            else measure_leakage(images, images["provided"], config.near_duplicate_distance)
        )
        draft.manifest = {
            "source": config.source,
            "format": export_format,
            "notice": SYNTHETIC_NOTICE if config.source == "synthetic" else "",
            "labels": list(config.labels),
            "grey": bool(images["grey"].all()),
            "config": json.loads(to_json(config)),
            "counts": _count(images, annotations, validation.quarantined),
            "findings": dict(sorted(Counter(finding.kind for finding in validation.findings).items())),
            "unmatched_names": int(images["slice"].isna().sum()),
            "split": config.split,
            "leakage": leakage,
        }
    # It imports Matplotlib, which a step that fails need not wait for.
    from brain_tumor.data.data_report import write_report

    write_report(
        Path(report),
        Dataset(Path(output), draft.manifest, images, annotations),
        validation.findings,
        validation.histogram,
    )
    return _flatten(draft.manifest, len(validation.findings))


def _check(config: DatasetConfig) -> None:
    if not config.labels or len(set(config.labels)) != len(config.labels):
        raise InputError(f"dataset.labels is {list(config.labels)}; give each label's name once.")
    if config.split not in METHODS:
        raise InputError(f"dataset.split is {config.split!r}; give one of {', '.join(METHODS)}.")
    check_fractions(config.split_fractions)


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InputError(f"dataset.filename_pattern is no regular expression ({error}): {pattern}") from error
    if not {"patient", "slice"} <= set(compiled.groupindex):
        raise InputError(
            f"dataset.filename_pattern needs the groups (?P<patient>...) and (?P<slice>...): {pattern}"
        )
    return compiled


def _read(config: DatasetConfig, output: Path) -> tuple[str, Validation]:
    """The export's format and its samples, judged; their bytes go to `output`. The export is gone then."""
    with tempfile.TemporaryDirectory() as download, tempfile.TemporaryDirectory() as extracted:
        export = read_export(fetch(config, Path(download)), Path(extracted))
        _check_splits(export, config)
        return export.format, validate(export, config, output)


def _check_splits(export: Export, config: DatasetConfig) -> None:
    missing = [name for name in SPLITS if name not in {split.name for split in export.splits}]
    if missing and config.split == "provided":
        raise InputError(
            f"The export has no split {', '.join(missing)}; add it, or let dataset.split=patient make the "
            "splits anew."
        )


def _add_names(images: pd.DataFrame, pattern: re.Pattern[str]) -> pd.DataFrame:
    """Adds source_id, patient_id, and slice, which is missing where the pattern does not match."""
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
            patients.append(Path(filename).stem)
            unmatched[place] = True
    return images.assign(
        source_id=images["split"].astype("str") + "/" + images["filename"],
        patient_id=patients.finish(),
        slice=pd.arrays.IntegerArray(slices, unmatched),
    )


def _assign_splits(
    images: pd.DataFrame, boxes: pd.DataFrame, config: DatasetConfig
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The images and the boxes with the split to use, both sorted; `provided` is the split they had."""
    images = images.rename(columns={"split": "provided"})
    if config.split == "provided":
        return images.assign(split=images["provided"]), boxes
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


def _write_tables(images: pd.DataFrame, annotations: pd.DataFrame, folder: Path) -> None:
    def complete_images(part: pd.DataFrame) -> pd.DataFrame:
        return part.assign(perceptual_hash=[f"{value:016x}" for value in part["perceptual_hash"]])

    def complete_annotations(part: pd.DataFrame) -> pd.DataFrame:
        places = part["image"].to_numpy()
        names = ("source_id", "split", "filename")
        return part.assign(**{name: images[name].array.take(places) for name in names})

    _write_parquet(images, complete_images, folder / "images.parquet", IMAGES_SCHEMA)
    _write_parquet(annotations, complete_annotations, folder / "annotations.parquet", ANNOTATIONS_SCHEMA)


def _write_parquet(
    frame: pd.DataFrame, complete: Callable[[pd.DataFrame], pd.DataFrame], path: Path, schema: pa.Schema
) -> None:
    """Writes a table whose columns `complete` makes, a row group at a time."""

    def convert(start: int) -> pa.Table:
        part = complete(frame.iloc[start : start + ROW_GROUP])[schema.names]
        texts = {name: "str" for name in part if part[name].dtype == "category"}
        return pa.Table.from_pandas(part.astype(texts), schema, preserve_index=False)

    first = convert(0)
    with pq.ParquetWriter(path, first.schema) as writer:  # with what pandas notes there
        writer.write_table(first)
        for start in range(ROW_GROUP, len(frame), ROW_GROUP):
            writer.write_table(convert(start))


def _write_findings(findings: list[Finding], path: Path) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Finding)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(finding) for finding in findings)


def _count(
    images: pd.DataFrame, annotations: pd.DataFrame, quarantined: pd.DataFrame
) -> dict[str, dict[str, Any]]:
    counts = {}
    split_of_box = images["split"].array[annotations["image"]]
    for split in SPLITS:
        own, boxes = images["split"] == split, annotations[split_of_box == split]
        counts[split] = {
            "images": int(own.sum()),
            "images_with_boxes": boxes["image"].nunique(),
            "boxes": len(boxes),
            "patients": images["patient_id"][own].nunique(),
            "quarantined": int((quarantined["split"] == split).sum()),
            "boxes_by_label": boxes["label"].value_counts(sort=False).to_dict(),
        }
    return counts


def _flatten(manifest: dict[str, Any], findings: int) -> dict[str, int]:
    flat = {"findings": findings, "unmatched_names": manifest["unmatched_names"]}
    for split, counts in manifest["counts"].items():
        for name, value in counts.items():
            if name == "boxes_by_label":
                flat |= {f"{split}_boxes_{label}": count for label, count in value.items()}
            else:
                flat[f"{split}_{name}"] = value
    for splits, prefix in (("used", ""), ("provided", "provided_")):
        for pair, leakage in manifest["leakage"][splits].items():
            for name in ("shared_patients", "identical_images", "near_duplicates"):
                flat[f"{prefix}{pair.replace('/', '_')}_{name}"] = leakage[name]
    return dict(sorted(flat.items()))
