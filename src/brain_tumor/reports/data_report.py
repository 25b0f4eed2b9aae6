"""The data report: an overview of a data set on one HTML page."""

import itertools
import re
from collections import Counter, defaultdict
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure
from numpy.typing import NDArray

from brain_tumor.artifacts.dataset import DatasetManifest
from brain_tumor.config import SPLITS, Split
from brain_tumor.ingest.findings import Finding
from brain_tumor.ingest.ingest import Ingested
from brain_tumor.reports.data_figures import (
    draw_boxes_by_label,
    draw_image_measures,
    draw_patients,
    gallery_pictures,
)
from brain_tumor.reports.drawing import shorten
from brain_tumor.reports.page import Section, page
from brain_tumor.reports.panels import legend_keys, panel_pictures
from brain_tumor.stores.files import write_file

LISTED_FINDINGS = 200
# Labels beyond these have counts in the table, but no pictures.
LISTED_LABELS = 100
DRAWN_LABELS = 9
LISTED_COMBINATIONS = 12
LONGEST_NAME = 60


def write_data_report(path: Path, ingested: Ingested) -> None:
    """Writes the report as one self-contained HTML file under 2 MB.

    Args:
        path: The file, written atomically.
        ingested: The result of the ingest step.
    """
    write_file(path, page("Data report", data_sections(ingested), ingested.dataset.manifest.notice))


def data_sections(ingested: Ingested) -> list[Section]:
    """The report's sections; those that do not apply, such as boxes of a set without any, are left out."""
    manifest = ingested.dataset.manifest
    findings, *listed = _findings(ingested.findings)
    sections = [findings, _leakage(manifest), _overview(ingested), *_labels(ingested)]
    if len(ingested.images):
        sections.append(_gallery(ingested))
    if len(ingested.annotations):
        sections += _boxes(ingested)
    if len(ingested.images):
        sections += [_images(ingested), _patients(ingested)]
    return sections + listed


def _overview(ingested: Ingested) -> Section:
    manifest = ingested.dataset.manifest
    rows = [
        [
            split,
            own.images,
            _share(own.images, len(ingested.images)),
            own.images_with_boxes,
            own.images - own.images_with_boxes,
            own.boxes,
            "unknown" if own.patients is None else own.patients,
            own.quarantined,
        ]
        for split, own in manifest.counts.items()
    ]
    header = ["split", "images", "share", "with boxes", "without boxes", "boxes", "patients", "quarantined"]
    text = (
        f"Source: {manifest.source}, format: {manifest.format}, "
        f"{'grey' if manifest.grey else 'color'} images. "
        "An image without boxes is a negative: a slice on which no label is present. "
        "Quarantined images are left out, and not counted in any other column"
    )
    if manifest.split == "patient":
        text += "; they are listed under their original split. The data were split again, by patient"
    return Section("Images", f"{text}.", header, rows)


def _labels(ingested: Ingested) -> list[Section]:
    labels, counts = ingested.dataset.manifest.labels, ingested.dataset.manifest.counts
    listed = labels[:LISTED_LABELS]
    text = "Images that show the label, and their share of the split's images."
    if len(listed) < len(labels):
        text += f" These are the first {len(listed)} of {len(labels)} labels."
    rows = [
        [
            slot,
            shorten(label, LONGEST_NAME),
            *(
                _number_and_share(counts[split].boxes_by_label[label], counts[split].images)
                for split in SPLITS
            ),
        ]
        for slot, label in enumerate(listed, start=1)
    ]
    sections = [Section("Labels", text, ["no.", "label", *SPLITS], rows)]
    if len(labels) > 1 and len(ingested.annotations):
        sections += [_combinations(ingested), _co_occurrence(ingested)]
    return sections


def _combinations(ingested: Ingested) -> Section:
    """The combinations of labels in an image, the most frequent first."""
    names = [shorten(label, LONGEST_NAME) for label in ingested.dataset.manifest.labels]
    split_of = ingested.images["split"].array
    totals = Counter(split_of)
    table: defaultdict[str, Counter[str]] = defaultdict(Counter)
    boxes = zip(ingested.annotations["image"], ingested.annotations["label"].cat.codes, strict=True)
    for image, own in itertools.groupby(boxes, key=lambda box: box[0]):
        table[" + ".join(names[slot] for _, slot in own)][split_of[image]] += 1
    without = totals - sum(table.values(), Counter())
    if without:
        table["none"] += without
    ranked = sorted(table.items(), key=lambda item: (-item[1].total(), item[0]))
    rows = [
        [name, *(_number_and_share(own[split], totals[split]) for split in SPLITS)]
        for name, own in ranked[:LISTED_COMBINATIONS]
    ]
    text = "The labels that an image shows together."
    if len(rows) < len(table):
        text += f" These are the {len(rows)} most frequent of {len(table)} combinations."
    return Section("Combinations of labels", text, ["labels", *SPLITS], rows)


def _co_occurrence(ingested: Ingested) -> Section:
    labels = _most_frequent(ingested)
    shows = np.zeros((len(labels), len(ingested.images)), bool)
    for own, label in zip(shows, labels, strict=True):
        own[ingested.annotations["image"][ingested.annotations["label"] == label]] = True
    together = [[np.count_nonzero(first & second) for second in shows] for first in shows]
    names = [shorten(label, LONGEST_NAME) for label in labels]
    rows = [
        [name, *(_heat_cell(int(count), int(row[slot])) for count in row)]
        for slot, (name, row) in enumerate(zip(names, together, strict=True))
    ]
    text = "Of the images that show the row's label, the share that show the column's label too."
    if len(labels) < len(ingested.dataset.manifest.labels):
        text += f" These are the {len(labels)} most frequent labels."
    return Section("Co-occurrence of labels", text, ["", *names], rows)


def _heat_cell(count: int, total: int) -> Markup:
    share = count / total if total else 0.0
    style = f"background: rgba(11, 98, 164, {0.45 * share:.2f})"
    return Markup('<div class="heat" style="{}">{}</div>').format(style, _share(count, total))


def _gallery(ingested: Ingested) -> Section:
    text = "A random sample, spread over the patients; about a fifth of the slices have no box."
    return Section("Slices and their boxes", text, pictures=gallery_pictures(ingested), grid="slices")


def _boxes(ingested: Ingested) -> list[Section]:
    labels = [label for label in _most_frequent(ingested) if (ingested.annotations["label"] == label).any()]
    positions, extents = draw_boxes_by_label(ingested, labels)
    fewer = len(labels) < len(ingested.dataset.manifest.labels)
    more = " For the most frequent labels." if fewer else ""
    return [
        Section(
            "Positions of the boxes",
            "The share of the label's boxes that cover a position, images scaled to one square; the mean box "
            f"is dashed.{more}",
            pictures=panel_pictures(positions),
        ),
        Section(
            "Sizes of the boxes",
            f"Width and height as fractions of the image's; the color shows the number of boxes.{more}",
            pictures=panel_pictures(extents),
        ),
    ]


def _images(ingested: Ingested) -> Section:
    width, height = ingested.images["width"], ingested.images["height"]
    sizes = len(ingested.images[["width", "height"]].drop_duplicates())
    if sizes == 1:
        text = f"All images have {width.iloc[0]} x {height.iloc[0]} pixels."
    else:
        text = f"{sizes:,} sizes. Width: {_range(width)} pixels; height: {_range(height)} pixels."
    return _drawn("Image sizes and intensity", text, draw_image_measures(ingested.images, ingested.histogram))


def _patients(ingested: Ingested) -> Section:
    slices, unmatched = _slices_a_patient(ingested.images), ingested.dataset.manifest.unmatched_names
    unknown = (
        f"filename_pattern does not match the names of {unmatched} of {len(ingested.images)} images: their "
        "patients are unknown."
    )
    if not slices:
        return Section("Slices per patient", unknown)
    text = f"{_range(pd.Series(np.concatenate(list(slices.values()))))} slices per patient."
    if unmatched:
        text += f" {unknown[0].upper()}{unknown[1:]}"
    return _drawn("Slices per patient", text, draw_patients(ingested, slices))


def _drawn(heading: str, text: str, figure: Figure) -> Section:
    return Section(heading, text, legend=legend_keys(figure), pictures=panel_pictures(figure))


def _slices_a_patient(images: pd.DataFrame) -> dict[Split, NDArray[np.int64]]:
    """The number of slices of each known patient, by split; splits without known patients are left out."""
    own = {split: images["patient_id"][images["split"] == split].dropna() for split in SPLITS}
    return {split: np.bincount(pd.factorize(ids)[0]) for split, ids in own.items() if len(ids)}


def _leakage(manifest: DatasetManifest) -> Section:
    distance = manifest.config["near_duplicate_distance"]
    leakage = manifest.leakage
    tables = {"used": leakage.used, "provided": leakage.provided}
    if manifest.split == "provided":
        tables = {"used (as provided)": leakage.used}
    rows = [
        [
            title,
            pair.replace("/", " / "),
            "unknown" if shared.shared_patients is None else shared.shared_patients,
            shared.identical_images,
            shared.near_duplicates,
            ", ".join(shorten(patient, LONGEST_NAME) for patient in shared.patients)
            + (", ..." if (shared.shared_patients or 0) > len(shared.patients) else ""),
        ]
        for title, pairs in tables.items()
        for pair, shared in pairs.items()
    ]
    header = ["splits", "pair", "shared patients", "identical images", "near-duplicates", "which patients"]
    text = (
        "Images of the pair's second split that have a match in its first split. Identical: the same bytes. "
        f"Near-duplicate: the perceptual hash differs in at most {distance} of 64 bits, or both are copies "
        "of the same picture (by Roboflow's names of augmented copies). Leakage makes figures look better "
        "than they are."
    )
    if manifest.unmatched_names:
        text += (
            " Patients are unknown, so it is unknown whether splits share them; near-duplicates are the best "
            "indication."
        )
    return Section("Leakage between splits", text, header, rows)


def _findings(findings: list[Finding]) -> list[Section]:
    if not findings:
        text = "None: every image can be decoded, every box fits its image, and there are no duplicate files."
        return [Section("Findings", text)]
    kinds = Counter((finding.kind, finding.action) for finding in findings)
    summary = Section(
        "Findings",
        "Quarantined images are kept in the artifact's folder quarantine/.",
        ["kind", "action", "findings"],
        [[*key, number] for key, number in sorted(kinds.items())],
    )
    listed = findings[:LISTED_FINDINGS]
    text = "Row: the line in the annotation file (starting at 1), or the position in it."
    if len(listed) < len(findings):
        text += f" These are the first {len(listed)} of {len(findings)}; the artifact's findings.csv has all."
    names = [field.name for field in fields(Finding)]
    rows = [[_breakable(value) for value in asdict(finding).values()] for finding in listed]
    return [
        summary,
        Section("All findings" if len(listed) == len(findings) else "First findings", text, names, rows),
    ]


def _breakable(value: str | int | None) -> Markup:
    """A table cell in which long file names can wrap after an underscore or a dot."""
    text = "" if value is None else shorten(str(value), 500)
    return Markup("<wbr>").join(re.split(r"(?<=[_.])", text))


def _most_frequent(ingested: Ingested) -> list[str]:
    """The labels to draw, in slot order: all, or the most frequent ones."""
    labels = ingested.dataset.manifest.labels
    counts = ingested.annotations["label"].value_counts()
    frequent = sorted(labels, key=lambda label: -counts.get(label, 0))[:DRAWN_LABELS]
    return [label for label in labels if label in frequent]


def _range(values: pd.Series) -> str:
    low, high = values.min(), values.max()
    return f"{low}" if low == high else f"{low} to {high} (median {values.median():g})"


def _number_and_share(count: int, total: int) -> str:
    return f"{count} ({_share(count, total)})"


def _share(count: int, total: int) -> str:
    return f"{count / total:.1%}" if total else "\u2013"
