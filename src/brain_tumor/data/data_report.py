"""The data report: what a first look at a data set should show, on one HTML page."""

import itertools
import re
from collections import Counter, defaultdict
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from brain_tumor.config import SPLITS
from brain_tumor.data.dataset import Dataset
from brain_tumor.data.findings import Finding
from brain_tumor.drawing import (
    COLORS,
    GALLERY_COLUMNS,
    GREY,
    TEXT_COLORS,
    choose_slices,
    draw_box,
    draw_captions,
    draw_slice,
    figure_text,
    of_slot,
    panels,
    read_thumbnail,
    shorten,
)
from brain_tumor.html import Section, figure_uri, page
from brain_tumor.storage import write_file

DPI = 110  # a figure's 10 inches then fill the page's width
GALLERY_IMAGES = 12
GALLERY_SEED = 0
LISTED_FINDINGS = 200
# More labels than these have their counts in the table, but no picture of their own.
LISTED_LABELS = 100
DRAWN_LABELS = 9
LISTED_COMBINATIONS = 12
LISTED_CAPTIONS = 4
LONGEST_NAME = 60
GRID = 64  # cells a side of a heat map of positions
SPLIT_COLORS = {"train": "#0b62a4", "valid": "#d95f02", "test": "#1b8a5a"}
HEAT = "viridis"
COORDINATES = ["xmin", "ymin", "xmax", "ymax"]


def write_report(
    path: Path, dataset: Dataset, findings: list[Finding], histogram: NDArray[np.integer[Any]]
) -> None:
    """Writes the report as one HTML file that needs no other, and stays under 2 MB.

    Args:
        path: The file. It appears whole or not at all.
        dataset: The dataset artifact, its tables as `ingest` has them: the images have intensity (mean grey
            level) besides, the annotations name their image by its position.
        findings: All findings.
        histogram: How many pixels have each grey level, (256,).
    """
    manifest, images = dataset.manifest, dataset.images
    boxes = dataset.annotations
    sections = [_overview(dataset), *_labels(dataset)]
    if len(images):
        sections.append(_gallery(dataset))
    if len(boxes):
        sections += _boxes(dataset)
    if len(images):
        sections += [_images(images, histogram), _patients(dataset)]
    sections += [_leakage(manifest), *_findings(findings)]
    write_file(path, page("Data report", sections, manifest["notice"]))


def coverage(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """How many of the boxes lie over each place.

    Args:
        boxes: `[xmin, ymin, xmax, ymax]`, normalised to 0..1, (n, 4).

    Returns:
        The share of the boxes that cover each cell of a grid, (GRID, GRID).
    """
    # Each box adds 1 at its first row and column and takes it back after its last: sums then fill it.
    edges = np.zeros((GRID + 1, GRID + 1))
    low = np.minimum((boxes[:, :2] * GRID).astype(int), GRID - 1)
    high = np.clip(np.ceil(boxes[:, 2:] * GRID).astype(int), low + 1, GRID)
    for y, x, sign in ((low, low, 1), (low, high, -1), (high, low, -1), (high, high, 1)):
        np.add.at(edges, (y[:, 1], x[:, 0]), sign)
    coverage: NDArray[np.float64] = edges.cumsum(axis=0).cumsum(axis=1)[:GRID, :GRID] / len(boxes)
    return coverage


def _overview(dataset: Dataset) -> Section:
    manifest, counts = dataset.manifest, dataset.manifest["counts"]
    rows = [
        [
            split,
            own["images"],
            _share(own["images"], len(dataset.images)),
            own["images_with_boxes"],
            own["images"] - own["images_with_boxes"],
            own["boxes"],
            own["patients"],
            own["quarantined"],
        ]
        for split, own in counts.items()
    ]
    header = ["split", "images", "share", "with boxes", "without boxes", "boxes", "patients", "quarantined"]
    text = (
        f"Source: {manifest['source']}, format: {manifest['format']}, "
        f"{'grey' if manifest['grey'] else 'color'} images. "
        "An image without boxes is a negative: a slice on which no label is present. "
        "Quarantined images are set aside, and counted in no other column"
    )
    if manifest["split"] == "patient":
        text += "; they are listed by the split that they had. The splits were made anew, by patient"
    return Section("Images", f"{text}.", header, rows)


def _labels(dataset: Dataset) -> list[Section]:
    labels, counts = dataset.manifest["labels"], dataset.manifest["counts"]
    listed = labels[:LISTED_LABELS]
    text = "Images that show the label, and their share of the split's images."
    if len(listed) < len(labels):
        text += f" These are the first {len(listed)} of {len(labels)} labels."
    rows = [
        [
            slot,
            shorten(label, LONGEST_NAME),
            *(
                _number_and_share(counts[split]["boxes_by_label"][label], counts[split]["images"])
                for split in SPLITS
            ),
        ]
        for slot, label in enumerate(listed, start=1)
    ]
    sections = [Section("Labels", text, ["no.", "label", *SPLITS], rows)]
    if len(labels) > 1 and len(dataset.annotations):
        sections += [_combinations(dataset), _co_occurrence(dataset)]
    return sections


def _combinations(dataset: Dataset) -> Section:
    """Which labels images show together, the most frequent first."""
    names = [shorten(label, LONGEST_NAME) for label in dataset.manifest["labels"]]
    split_of = dataset.images["split"].array
    totals = Counter(split_of)
    table: defaultdict[str, Counter[str]] = defaultdict(Counter)
    boxes = zip(dataset.annotations["image"], dataset.annotations["label"].cat.codes, strict=True)
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
    text = "Which labels an image shows."
    if len(rows) < len(table):
        text += f" These are the {len(rows)} most frequent of {len(table)} combinations."
    return Section("Combinations of labels", text, ["labels", *SPLITS], rows)


def _co_occurrence(dataset: Dataset) -> Section:
    labels = _most_frequent(dataset)
    shows = np.zeros((len(labels), len(dataset.images)), bool)
    for own, label in zip(shows, labels, strict=True):
        own[dataset.annotations["image"][dataset.annotations["label"] == label]] = True
    together = [[np.count_nonzero(first & second) for second in shows] for first in shows]
    names = [shorten(label, LONGEST_NAME) for label in labels]
    rows = [
        [name, *(_heat_cell(int(count), int(row[slot])) for count in row)]
        for slot, (name, row) in enumerate(zip(names, together, strict=True))
    ]
    text = "Of the images that show the row's label, the share that show the column's label too."
    if len(labels) < len(dataset.manifest["labels"]):
        text += f" These are the {len(labels)} most frequent labels."
    return Section("Co-occurrence of labels", text, ["", *names], rows)


def _heat_cell(count: int, total: int) -> Markup:
    share = count / total if total else 0.0
    style = f"background: rgba(11, 98, 164, {0.45 * share:.2f}); margin: -.25em -.9em; padding: .25em .9em"
    return Markup('<div style="{}">{}</div>').format(style, _share(count, total))


def _gallery(dataset: Dataset) -> Section:
    labels, images = dataset.manifest["labels"], dataset.images
    slices = images[["source_id", "patient_id", "slice"]].assign(has_box=_has_box(dataset))
    chosen = choose_slices(slices, GALLERY_IMAGES, GALLERY_SEED)
    places = {
        images["source_id"].iloc[place]: place for place in np.flatnonzero(images["source_id"].isin(chosen))
    }
    names = _figure_names(labels)
    figure, axes = panels(len(chosen), GALLERY_COLUMNS, height=3.2)
    for axis, source_id in zip(axes, chosen, strict=True):
        image: Any = images.iloc[places[source_id]]
        thumbnail = read_thumbnail(dataset.path / "images" / source_id, "L" if image["grey"] else "RGB")
        draw_slice(axis, thumbnail, image["width"], image["height"], image["patient_id"], image["slice"])
        boxes = dataset.annotations[dataset.annotations["image"] == places[source_id]]
        captions = []
        for box in boxes.to_dict("records"):
            slot = labels.index(box["label"])
            draw_box(axis, np.array([box[name] for name in COORDINATES]), of_slot(COLORS, slot))
            captions.append((of_slot(TEXT_COLORS, slot), names[box["label"]]))
        more = len(captions) - LISTED_CAPTIONS
        if more > 0:
            captions = [*captions[:LISTED_CAPTIONS], ("#222222", f"and {more} more")]
        draw_captions(axis, captions or [("#222222", "no box")])
    text = "Drawn at random, spread over the patients; about a fifth of them without a box."
    return Section("Slices and their boxes", text, image=figure_uri(figure, DPI, "webp"))


def _boxes(dataset: Dataset) -> list[Section]:
    boxes, names = dataset.annotations, _figure_names(dataset.manifest["labels"])
    labels = [label for label in _most_frequent(dataset) if (boxes["label"] == label).any()]
    sizes = dataset.images[["width", "height"]].to_numpy()[boxes["image"]]
    corners = boxes[COORDINATES].to_numpy() / np.tile(sizes, 2)
    own = {label: corners[(boxes["label"] == label).to_numpy()] for label in labels}
    positions, axes = panels(len(labels), 3, height=3.2)
    for axis, label in zip(axes, labels, strict=True):
        _draw_positions(axis, own[label])
        axis.set(
            title=names[label], xlabel=f"{len(own[label]):,} {'box' if len(own[label]) == 1 else 'boxes'}"
        )
    extents, axes = panels(len(labels), 3, height=3.2)
    for axis, label in zip(axes, labels, strict=True):
        _draw_sizes(axis, own[label])
        axis.set(title=names[label])
    more = " For the most frequent labels." if len(labels) < len(dataset.manifest["labels"]) else ""
    return [
        Section(
            "Positions of the boxes",
            "The share of the label's boxes that cover a place, images scaled to one square; the mean box "
            f"is dashed.{more}",
            image=figure_uri(positions, DPI),
        ),
        Section(
            "Sizes of the boxes",
            f"Width and height as shares of the image's; the color says how many boxes.{more}",
            image=figure_uri(extents, DPI),
        ),
    ]


def _draw_positions(axis: Axes, boxes: NDArray[np.float64]) -> None:
    image = axis.imshow(coverage(boxes), cmap=HEAT, vmin=0, extent=(0, 1, 1, 0), interpolation="nearest")
    draw_box(axis, boxes.mean(axis=0), "white", (0, (4, 2.5)))
    axis.set(xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
    _add_color_bar(axis, image, PercentFormatter(1.0))


def _draw_sizes(axis: Axes, boxes: NDArray[np.float64]) -> None:
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    *_, image = axis.hist2d(width, height, bins=32, range=[[0, 1], [0, 1]], cmap=HEAT, cmin=1)
    axis.set(xlabel="width", ylabel="height", aspect="equal", xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
    _add_color_bar(axis, image)


def _images(images: pd.DataFrame, histogram: NDArray[np.integer[Any]]) -> Section:
    width, height = images["width"], images["height"]
    sizes = images.groupby(["width", "height"]).size()
    if len(sizes) == 1:
        text = f"All images have {width.iloc[0]} x {height.iloc[0]} pixels."
    else:
        text = f"{len(sizes):,} sizes. Width: {_range(width)} pixels; height: {_range(height)} pixels."
    figure, axes = panels(3, 3, height=3.2)
    axis = axes[0]
    dots = axis.scatter(
        sizes.index.get_level_values(0),
        sizes.index.get_level_values(1),
        c=sizes.to_numpy(),
        cmap=HEAT,
        vmin=0,
        s=24,
    )
    axis.set(title="image sizes", xlabel="width in pixels", ylabel="height in pixels")
    axis.margins(0.15)
    for direction in (axis.xaxis, axis.yaxis):
        direction.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    _add_color_bar(axis, dots, label="images")

    axis = axes[1]
    axis.stairs(histogram / histogram.sum(), np.arange(257), fill=True, color=GREY)
    axis.set(title="intensity of the pixels", xlabel="grey level", ylabel="share of all pixels")
    axis.set(yscale="log", xlim=(0, 256))

    axis = axes[2]
    bins = np.histogram_bin_edges(images["intensity"], 30).tolist()
    for split, own in _by_split(images[["split", "intensity"]]):
        weights = np.full(len(own), 1 / len(own))
        axis.hist(
            own["intensity"],
            bins,
            weights=weights,
            histtype="step",
            color=SPLIT_COLORS[split],
            lw=1.8,
        )
    axis.set(title="mean intensity of an image", xlabel="grey level", ylabel="share of the split's images")
    _add_split_legend(figure)
    return Section("Image sizes and intensity", text, image=figure_uri(figure, DPI))


def _patients(dataset: Dataset) -> Section:
    images = dataset.images
    unmatched = dataset.manifest["unmatched_names"]
    known = images["slice"].notna().to_numpy()
    figure, axes = panels(2 if known.any() else 1, 2, height=3.2)
    axis = axes[0]
    parts = _by_split(images[["split", "patient_id"]])
    sizes = {split: np.bincount(pd.factorize(own["patient_id"])[0]) for split, own in parts}
    together = pd.Series(np.concatenate(list(sizes.values())))
    bins = _integer_bins(int(together.min()), int(together.max()))
    axis.hist(
        list(sizes.values()),
        bins,
        stacked=True,
        color=[SPLIT_COLORS[split] for split in sizes],
    )
    axis.set(title="slices a patient", xlabel="slices", ylabel="patients")
    for direction in (axis.xaxis, axis.yaxis):
        direction.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if known.any():
        _draw_box_share(axes[1], images["slice"][known].to_numpy(np.int64), _has_box(dataset)[known])
    _add_split_legend(figure)
    text = f"{_range(together)} slices a patient."
    if unmatched:
        text += (
            f" Images whose name filename_pattern does not match: {unmatched}. "
            "Each counts as a patient of its own."
        )
    return Section("Slices a patient", text, image=figure_uri(figure, DPI))


def _draw_box_share(axis: Axes, number: NDArray[np.int64], has_box: NDArray[np.bool_]) -> None:
    """Draws how often slices have a box, by their number."""
    bins = _integer_bins(int(number.min()), int(number.max()))
    everything, _ = np.histogram(number, bins)
    with_box, _ = np.histogram(number[has_box], bins)
    share = np.divide(with_box, everything, out=np.zeros(len(everything)), where=everything > 0)
    axis.stairs(share, bins, fill=True, color=GREY)
    axis.set(title="share of slices with a box", xlabel="slice number", ylim=(0, 1))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axis.yaxis.set_major_formatter(PercentFormatter(1.0))


def _integer_bins(smallest: int, largest: int) -> list[float]:
    """Edges of at most 40 bins, each around as many integers."""
    width = -(-(largest - smallest + 1) // 40)
    count = -(-(largest - smallest + 1) // width)
    return [smallest - 0.5 + width * index for index in range(count + 1)]


def _leakage(manifest: dict[str, Any]) -> Section:
    distance = manifest["config"]["near_duplicate_distance"]
    kinds = {"used": "used", "provided": "provided"}
    if manifest["split"] == "provided":
        kinds = {"used": "used (as provided)"}
    rows = [
        [
            title,
            pair.replace("/", " / "),
            leakage["shared_patients"],
            leakage["identical_images"],
            leakage["near_duplicates"],
            ", ".join(shorten(patient, LONGEST_NAME) for patient in leakage["patients"])
            + (", ..." if leakage["shared_patients"] > len(leakage["patients"]) else ""),
        ]
        for kind, title in kinds.items()
        for pair, leakage in manifest["leakage"][kind].items()
    ]
    header = ["splits", "pair", "shared patients", "identical images", "near-duplicates", "which patients"]
    text = (
        "Identical images and near-duplicates: images of the pair's second split that have one of the same "
        f"bytes, or one whose perceptual hash differs in up to {distance} of 64 bits, in its first split. "
        "What two splits share makes figures look better than they are."
    )
    return Section("Leakage between splits", text, header, rows)


def _findings(findings: list[Finding]) -> list[Section]:
    if not findings:
        text = "None: every image can be decoded, every box fits its image, and no file is there twice."
        return [Section("Findings", text)]
    kinds = Counter((finding.kind, finding.action) for finding in findings)
    summary = Section(
        "Findings",
        "Quarantined images are kept in the artifact's folder quarantine/.",
        ["kind", "action", "findings"],
        [[*key, number] for key, number in sorted(kinds.items())],
    )
    listed = findings[:LISTED_FINDINGS]
    text = "A row is a line of the annotation file (its first is 1), or a position in it."
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
    text = "" if value is None else shorten(str(value), 500)
    return Markup("<wbr>").join(re.split(r"(?<=[_.])", text))


def _most_frequent(dataset: Dataset) -> list[str]:
    """The labels that are drawn, in slot order: all, or the most frequent ones."""
    labels = dataset.manifest["labels"]
    counts = dataset.annotations["label"].value_counts()
    frequent = sorted(labels, key=lambda label: -counts.get(label, 0))[:DRAWN_LABELS]
    return [label for label in labels if label in frequent]


def _figure_names(labels: list[str]) -> dict[str, str]:
    """Labels as figures show them: by their number where the figures' font lacks a letter."""
    return {label: figure_text(label, instead=f"label no. {slot}") for slot, label in enumerate(labels, 1)}


def _has_box(dataset: Dataset) -> NDArray[np.bool_]:
    """Which images have a box, (images,)."""
    has_box = np.zeros(len(dataset.images), bool)
    has_box[dataset.annotations["image"]] = True
    return has_box


def _by_split(images: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The splits that have images, with these."""
    parts = [(split, images[images["split"] == split]) for split in SPLITS]
    return [(split, own) for split, own in parts if len(own)]


def _add_split_legend(figure: Figure) -> None:
    handles = [Line2D([], [], color=color, linewidth=4) for color in SPLIT_COLORS.values()]
    figure.legend(handles, list(SPLIT_COLORS), loc="outside upper left", ncols=3, frameon=False)


def _add_color_bar(axis: Axes, image: Any, formatter: Any = None, label: str = "") -> None:
    figure = axis.get_figure()
    assert isinstance(figure, Figure)
    bar = figure.colorbar(image, ax=axis, format=formatter, shrink=0.8, label=label)
    bar.locator = MaxNLocator(4, integer=formatter is None, min_n_ticks=1)
    bar.update_ticks()


def _range(values: pd.Series) -> str:
    low, high = values.min(), values.max()
    return f"{low}" if low == high else f"{low} to {high} (median {values.median():g})"


def _number_and_share(count: int, total: int) -> str:
    return f"{count} ({_share(count, total)})"


def _share(count: int, total: int) -> str:
    return f"{count / total:.1%}" if total else "\u2013"
