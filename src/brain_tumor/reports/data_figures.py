"""The data report's plots: slices, positions and sizes of the boxes, measures of the images, patients."""

from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from brain_tumor.artifacts.tables import COORDINATES
from brain_tumor.config import Split
from brain_tumor.ingest.ingest import Ingested
from brain_tumor.reports.drawing import (
    COLORS,
    GALLERY_COLUMNS,
    GREY,
    TEXT_COLORS,
    WIDTH,
    draw_box,
    draw_slice,
    figure_text,
    panels,
    read_thumbnail,
    shorten,
    slice_name,
    slot_color,
)
from brain_tumor.reports.page import Picture, colored
from brain_tumor.reports.panels import panel_pictures
from brain_tumor.reports.slices import choose_slices

GALLERY_IMAGES = 12
GALLERY_SEED = 0
LISTED_CAPTIONS = 4
GRID = 64  # cells a side of a heat map of positions
SPLIT_COLORS: dict[Split, str] = {"train": "#0b62a4", "valid": "#d95f02", "test": "#1b8a5a"}
HEAT = "viridis"
LONGEST_NAME = 28


def gallery_pictures(ingested: Ingested) -> list[Picture]:
    """Draws slices with their boxes, sampled at random and spread over the patients."""
    images, annotations = ingested.images, ingested.annotations
    slices = images[["source_id", "patient_id", "slice"]].assign(has_box=_has_box(ingested))
    chosen = choose_slices(slices, GALLERY_IMAGES, GALLERY_SEED)
    places = {
        images["source_id"].iloc[place]: place for place in np.flatnonzero(images["source_id"].isin(chosen))
    }
    figure, axes = panels(len(chosen), GALLERY_COLUMNS, height=2.5)
    captions = []
    for axis, source_id in zip(axes, chosen, strict=True):
        image: Any = images.iloc[places[source_id]]
        path = ingested.dataset.image_folder / source_id
        thumbnail = read_thumbnail(path, "L" if image["grey"] else "RGB")
        draw_slice(axis, thumbnail, image["width"], image["height"])
        boxes = annotations[annotations["image"] == places[source_id]]
        lines = [slice_name(image), *_draw_boxes(axis, boxes, ingested.dataset.manifest.labels)]
        captions.append(Markup("<br>").join(lines))
    pictures = panel_pictures(figure, photographs=True)
    for picture, caption in zip(pictures, captions, strict=True):
        picture.caption = caption
    return pictures


def _draw_boxes(axis: Axes, boxes: pd.DataFrame, labels: list[str]) -> list[str]:
    """Draws a slice's boxes, and returns captions with their labels."""
    slots = {label: slot for slot, label in enumerate(labels)}
    captions: list[str] = []
    for box in boxes.to_dict("records"):
        slot = slots[box["label"]]
        draw_box(axis, np.array([box[name] for name in COORDINATES]), slot_color(COLORS, slot))
        hues = slot_color(TEXT_COLORS, slot), slot_color(COLORS, slot)
        captions.append(colored(shorten(box["label"], LONGEST_NAME), *hues))
    more = len(captions) - LISTED_CAPTIONS
    if more > 0:
        captions = [*captions[:LISTED_CAPTIONS], f"and {more} more"]
    return captions or ["no box"]


def draw_boxes_by_label(ingested: Ingested, labels: list[str]) -> tuple[Figure, Figure]:
    """Draws the positions and the sizes of these labels' boxes, one panel per label in each figure."""
    boxes, names = ingested.annotations, _figure_names(ingested.dataset.manifest.labels)
    sizes = ingested.images[["width", "height"]].to_numpy()[boxes["image"]]
    corners = boxes[list(COORDINATES)].to_numpy() / np.tile(sizes, 2)
    own = {label: corners[(boxes["label"] == label).to_numpy()] for label in labels}
    positions, axes = panels(len(labels), 3, height=3.2)
    for axis, label in zip(axes, labels, strict=True):
        _draw_positions(axis, own[label])
        count = len(own[label])
        axis.set(title=names[label], xlabel=f"{count:,} {'box' if count == 1 else 'boxes'}")
    extents, axes = panels(len(labels), 3, height=3.2)
    for axis, label in zip(axes, labels, strict=True):
        _draw_sizes(axis, own[label])
        axis.set(title=names[label])
    return positions, extents


def coverage(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Computes the share of boxes that cover each position.

    Args:
        boxes: `[xmin, ymin, xmax, ymax]`, normalized to 0..1, (n, 4).

    Returns:
        The share of the boxes that cover each cell of a grid, (GRID, GRID).
    """
    # Each box adds 1 at its first row and column and subtracts it after its last; cumulative sums fill it.
    edges = np.zeros((GRID + 1, GRID + 1))
    low = np.minimum((boxes[:, :2] * GRID).astype(int), GRID - 1)
    high = np.clip(np.ceil(boxes[:, 2:] * GRID).astype(int), low + 1, GRID)
    for y, x, sign in ((low, low, 1), (low, high, -1), (high, low, -1), (high, high, 1)):
        np.add.at(edges, (y[:, 1], x[:, 0]), sign)
    coverage: NDArray[np.float64] = edges.cumsum(axis=0).cumsum(axis=1)[:GRID, :GRID] / len(boxes)
    return coverage


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


def draw_image_measures(images: pd.DataFrame, histogram: NDArray[np.int64]) -> Figure:
    """Draws the images' sizes, the histogram of all pixels' grey levels, and the images' mean grey levels.

    Args:
        images: See `Ingested.images`.
        histogram: The number of pixels with each grey level, (256,).
    """
    figure, axes = panels(3, 3, height=3.2)
    _draw_image_sizes(axes[0], images)
    axis = axes[1]
    axis.stairs(histogram / histogram.sum(), np.arange(257), fill=True, color=GREY)
    axis.set(title="intensity of the pixels", xlabel="grey level", ylabel="share of all pixels")
    axis.set(yscale="log", xlim=(0, 256))

    axis = axes[2]
    bins = np.histogram_bin_edges(images["intensity"], 30).tolist()
    for split, color in SPLIT_COLORS.items():
        own = images["intensity"][images["split"] == split]
        if len(own):
            weights = np.full(len(own), 1 / len(own))
            axis.hist(own, bins, weights=weights, histtype="step", color=color, lw=1.8)
    axis.set(title="mean intensity of an image", xlabel="grey level", ylabel="share of the split's images")
    _add_split_legend(figure)
    return figure


def _draw_image_sizes(axis: Axes, images: pd.DataFrame) -> None:
    sizes = images.groupby(["width", "height"]).size()
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


def draw_patients(ingested: Ingested, slices: dict[Split, NDArray[np.int64]]) -> Figure:
    """Draws how many slices patients have, and the share of slices with a box by slice number.

    Args:
        ingested: The result of the ingest step.
        slices: The number of slices of each known patient, by split; at least one.
    """
    images = ingested.images
    known = images["slice"].notna().to_numpy()
    figure, axes = panels(2, 2, height=3.2, width=2 / 3 * WIDTH)
    axis = axes[0]
    together = np.concatenate(list(slices.values()))
    bins = _integer_bins(int(together.min()), int(together.max()))
    axis.hist(list(slices.values()), bins, stacked=True, color=[SPLIT_COLORS[split] for split in slices])
    axis.set(title="slices per patient", xlabel="slices", ylabel="patients")
    for direction in (axis.xaxis, axis.yaxis):
        direction.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    _draw_box_share(axes[1], images["slice"][known].to_numpy(np.int64), _has_box(ingested)[known])
    _add_split_legend(figure)
    return figure


def _draw_box_share(axis: Axes, number: NDArray[np.int64], has_box: NDArray[np.bool_]) -> None:
    """Draws the share of slices with a box, by slice number."""
    bins = _integer_bins(int(number.min()), int(number.max()))
    everything, _ = np.histogram(number, bins)
    with_box, _ = np.histogram(number[has_box], bins)
    share = np.divide(with_box, everything, out=np.zeros(len(everything)), where=everything > 0)
    axis.stairs(share, bins, fill=True, color=GREY)
    axis.set(title="share of slices with a box", xlabel="slice number", ylim=(0, 1))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axis.yaxis.set_major_formatter(PercentFormatter(1.0))


def _integer_bins(smallest: int, largest: int) -> list[float]:
    """Edges of at most 40 bins, each with the same number of integers."""
    width = -(-(largest - smallest + 1) // 40)
    count = -(-(largest - smallest + 1) // width)
    return [smallest - 0.5 + width * index for index in range(count + 1)]


def _figure_names(labels: list[str]) -> dict[str, str]:
    """The labels' names in figures: their number if the font lacks a letter."""
    return {label: figure_text(label, instead=f"label no. {slot}") for slot, label in enumerate(labels, 1)}


def _has_box(ingested: Ingested) -> NDArray[np.bool_]:
    """Which images have a box, (images,)."""
    has_box = np.zeros(len(ingested.images), bool)
    has_box[ingested.annotations["image"]] = True
    return has_box


def _add_split_legend(figure: Figure) -> None:
    handles = [Line2D([], [], color=color, linewidth=4) for color in SPLIT_COLORS.values()]
    figure.legend(handles, list(SPLIT_COLORS), loc="outside upper left", ncols=3, frameon=False)


def _add_color_bar(axis: Axes, image: Any, formatter: Any = None, label: str = "") -> None:
    figure = axis.get_figure()
    assert isinstance(figure, Figure)
    bar = figure.colorbar(image, ax=axis, format=formatter, shrink=0.8, label=label)
    bar.locator = MaxNLocator(4, integer=formatter is None, min_n_ticks=1)
    bar.update_ticks()
