"""The dataset artifact: an export, checked, with tables in place of its CSVs (the ingest step)."""

import csv
import json
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from markupsafe import Markup

from brain_tumor.config import SPLITS, DatasetConfig, DirectoryDataset, SyntheticDataset, from_json, to_json
from brain_tumor.data.annotations import read_export
from brain_tumor.data.sources import synthetic
from brain_tumor.data.validation import Finding, Validation, validate
from brain_tumor.errors import InputError
from brain_tumor.html import Section, page
from brain_tumor.storage import publish, read_manifest, write_file

SYNTHETIC_NOTICE = (
    "Synthetic data: these patients were drawn by a program, and no figure here says anything about MRI."
)
LISTED_FINDINGS = 200

IMAGES_SCHEMA = pa.schema(
    [
        ("split", pa.string()),
        ("filename", pa.string()),
        ("width", pa.int64()),
        ("height", pa.int64()),
        ("patient_id", pa.string()),
        ("slice", pa.int64()),
    ]
)
ANNOTATIONS_SCHEMA = pa.schema(
    [
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
        path: Its folder; an image is at `images/<split>/<filename>` below it.
        manifest: Its manifest: `source`, `notice`, `labels`, `counts`, ...
        images: One row an image, sorted by split and file name: split, filename, width, height (pixels),
            patient_id, slice (nullable integer).
        annotations: One row a box, at most one a label and image: split, filename, label, xmin, ymin, xmax,
            ymax (pixels of the original image, xmax and ymax exclusive).
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


def _draw(config: DatasetConfig, scratch: Path) -> Path:
    assert isinstance(config, SyntheticDataset)
    synthetic.write_export(scratch, config)
    return scratch


def _directory(config: DatasetConfig, scratch: Path) -> Path:
    assert isinstance(config, DirectoryDataset)
    return Path(config.path)


@dataclass(frozen=True)
class Source:
    """Where images come from.

    Attributes:
        config: The dataclass of its config.
        fetch: Gets the config and an empty folder to work in, and says where the export is.
    """

    config: type[DatasetConfig]
    fetch: Callable[[DatasetConfig, Path], Path]


SOURCES = {
    "synthetic": Source(SyntheticDataset, _draw),
    "directory": Source(DirectoryDataset, _directory),
}


def parse_dataset_config(text: str) -> DatasetConfig:
    """Parses the config of whichever source it names (JSON).

    Raises:
        InputError: The text is no JSON object, its source is unknown, or it is no config of that source.
    """
    try:
        source = json.loads(text).get("source")
    except (json.JSONDecodeError, AttributeError) as error:
        raise InputError(f"The config of the data set is no JSON object: {text!r}.") from error
    return from_json(_find_source(source).config, text)


def _find_source(name: str | None) -> Source:
    if name not in SOURCES:
        raise InputError(f"dataset.source is {name!r}; give one of {', '.join(SOURCES)}.")
    return SOURCES[name]


def ingest(config: DatasetConfig, output: str | Path, report: str | Path) -> dict[str, int]:
    """Reads a source, sets bad images aside, and publishes a dataset artifact and a report about it.

    The artifact holds `images/<split>/` and `quarantine/<split>/` (bytes untouched), `images.parquet` and
    `annotations.parquet` (see `Dataset`) and `findings.csv`. Its manifest has `source`, `notice` (empty, or
    what every report must say about the data), `labels`, `config`, `counts` by split, and `unmatched_names`:
    how many images `filename_pattern` does not match. Such an image counts as a patient of its own.

    Args:
        config: The source's config.
        output: Folder of the artifact.
        report: File of the data report (HTML).

    Returns:
        The counts by name, the same names for the same labels.

    Raises:
        InputError: The config, the export's layout or too many of its samples are not usable. Then neither
            the artifact nor the report is written.
    """
    source = _find_source(config.source)
    if not config.labels or len(set(config.labels)) != len(config.labels):
        raise InputError(f"dataset.labels is {list(config.labels)}; give each label's name once.")
    pattern = _compile(config.filename_pattern)

    with tempfile.TemporaryDirectory() as scratch, publish(output, "dataset") as draft:
        folder = source.fetch(config, Path(scratch))
        validation = validate(read_export(folder), config)
        images, annotations, unmatched = _tables(validation, pattern)
        _copy(
            folder, draft.path / "images", [(sample.split, sample.filename) for sample in validation.samples]
        )
        _copy(folder, draft.path / "quarantine", validation.quarantined)
        _write_parquet(images, draft.path / "images.parquet", IMAGES_SCHEMA)
        _write_parquet(annotations, draft.path / "annotations.parquet", ANNOTATIONS_SCHEMA)
        _write_findings(validation.findings, draft.path / "findings.csv")
        draft.manifest = {
            "source": config.source,
            "notice": SYNTHETIC_NOTICE if config.source == "synthetic" else "",
            "labels": list(config.labels),
            "config": json.loads(to_json(config)),
            "counts": _count(images, annotations, validation, config.labels),
            "unmatched_names": unmatched,
        }
    _write_report(draft.manifest, validation.findings, Path(report))
    return _flatten(draft.manifest, validation.findings)


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


def _tables(validation: Validation, pattern: re.Pattern[str]) -> tuple[pd.DataFrame, pd.DataFrame, int]:
    """The images, the annotations, and how many of the images' names the pattern does not match."""
    images, annotations, unmatched = [], [], 0
    for sample in validation.samples:
        match = pattern.search(sample.filename)
        if match and match["patient"] and match["slice"]:
            if not match["slice"].isdecimal():
                raise InputError(
                    f"dataset.filename_pattern finds the slice {match['slice']!r} in "
                    f"{sample.split}/{sample.filename}; its group must match digits alone."
                )
            patient, index = match["patient"], int(match["slice"])
        else:
            patient, index = Path(sample.filename).stem, None
            unmatched += 1
        images.append((sample.split, sample.filename, sample.width, sample.height, patient, index))
        annotations += [(sample.split, sample.filename, label, *box) for label, box in sample.boxes.items()]
    images_frame = pd.DataFrame(images, columns=IMAGES_SCHEMA.names).astype({"slice": "Int64"})
    return images_frame, pd.DataFrame(annotations, columns=ANNOTATIONS_SCHEMA.names), unmatched


def _copy(source: Path, target: Path, files: list[tuple[str, str]]) -> None:
    for split in SPLITS:
        (target / split).mkdir(parents=True)
    for split, filename in files:
        shutil.copyfile(source / split / filename, target / split / filename)


def _write_parquet(frame: pd.DataFrame, path: Path, schema: pa.Schema) -> None:
    pq.write_table(pa.Table.from_pandas(frame, schema, preserve_index=False), path)


def _write_findings(findings: list[Finding], path: Path) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Finding)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(finding) for finding in findings)


def _count(
    images: pd.DataFrame, annotations: pd.DataFrame, validation: Validation, labels: list[str]
) -> dict[str, dict[str, Any]]:
    counts = {}
    for split in SPLITS:
        own, boxes = images[images["split"] == split], annotations[annotations["split"] == split]
        counts[split] = {
            "images": len(own),
            "images_with_boxes": boxes["filename"].nunique(),
            "boxes": len(boxes),
            "patients": own["patient_id"].nunique(),
            "quarantined": sum(name == split for name, _ in validation.quarantined),
            "boxes_by_label": {label: int((boxes["label"] == label).sum()) for label in labels},
        }
    return counts


def _flatten(manifest: dict[str, Any], findings: list[Finding]) -> dict[str, int]:
    flat: dict[str, int] = {}
    for split, counts in manifest["counts"].items():
        for name, value in counts.items():
            if name == "boxes_by_label":
                flat |= {f"{split}_boxes_{label}": count for label, count in value.items()}
            else:
                flat[f"{split}_{name}"] = value
    return flat | {"findings": len(findings), "unmatched_names": manifest["unmatched_names"]}


def _write_report(manifest: dict[str, Any], findings: list[Finding], path: Path) -> None:
    counts, labels = manifest["counts"], manifest["labels"]
    columns = ["images", "images_with_boxes", "boxes", "patients", "quarantined"]
    sections = [
        Section(
            "Counts",
            "An image without a box is a negative: a slice on which no label is present.",
            ["split", *(column.replace("_", " ") for column in columns)],
            [[split, *(counts[split][column] for column in columns)] for split in SPLITS],
        ),
        Section(
            "Labels",
            "Images that show the label, and their share of the split's images.",
            ["split", *labels],
            [[split, *(_share(counts[split], label) for label in labels)] for split in SPLITS],
        ),
    ]
    if manifest["unmatched_names"]:
        text = f"Images whose name filename_pattern does not match: {manifest['unmatched_names']}."
        sections.append(Section("Patients", f"{text} Each counts as a patient of its own."))
    sections += _report_findings(findings)

    write_file(path, page("Data report", sections, manifest["notice"]))


def _share(counts: dict[str, Any], label: str) -> str:
    boxes = counts["boxes_by_label"][label]
    return f"{boxes} ({boxes / counts['images']:.1%})" if counts["images"] else "0"


def _report_findings(findings: list[Finding]) -> list[Section]:
    if not findings:
        return [Section("Findings", "None: every image can be decoded, and every row fits its image.")]
    kinds = Counter((finding.kind, finding.action) for finding in findings)
    text = "Quarantined images are kept in the artifact's folder quarantine/."
    summary = Section(
        "Findings",
        text,
        ["kind", "action", "findings"],
        [[*key, number] for key, number in sorted(kinds.items())],
    )
    listed = findings[:LISTED_FINDINGS]
    text = "A row is a line of the split's _annotations.csv; its header is row 1."
    if len(listed) < len(findings):
        text += f" These are the first {len(listed)} of {len(findings)}; the artifact's findings.csv has all."
    names = [field.name for field in fields(Finding)]
    rows = [[_breakable(value) for value in asdict(finding).values()] for finding in listed]
    return [
        summary,
        Section("All findings" if len(listed) == len(findings) else "First findings", text, names, rows),
    ]


def _breakable(value: str | int | None) -> Markup:
    """A table's cell whose long file names may break after an underscore or a dot."""
    text = "" if value is None else str(value)
    return Markup("<wbr>").join(re.split(r"(?<=[_.])", text))
