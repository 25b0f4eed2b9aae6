"""The gallery: true boxes beside predicted ones, on the slices themselves."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from brain_tumor.artifacts.dataset import Dataset
from brain_tumor.artifacts.predictions import PREDICTED_BOX, TRUE_BOX
from brain_tumor.reports.drawing import (
    COLORS,
    GALLERY_COLUMNS,
    TEXT_COLORS,
    draw_box,
    draw_captions,
    draw_slice,
    figure_text,
    panels,
    read_thumbnail,
    slot_color,
)
from brain_tumor.reports.slices import choose_slices


def choose_images(predictions: pd.DataFrame, count: int, seed: int) -> list[str]:
    """Draws images for the gallery, see `choose_slices`.

    Args:
        predictions: The rows of one model in the predictions table.
        count: How many images at most.
        seed: Seed of the draw.

    Returns:
        The source_id of each, by patient and slice.
    """
    slices = predictions.groupby("source_id", as_index=False).agg(
        patient_id=("patient_id", "first"), slice=("slice", "first"), has_box=("present", "any")
    )
    return choose_slices(slices, count, seed)


def gallery_figure(
    predictions: pd.DataFrame,
    source_ids: list[str],
    dataset: Dataset,
    labels: list[str],
    thresholds: dict[str, float],
) -> Figure:
    """The slices with true boxes (solid) and predicted ones (dashed), in pixels of the original image.

    Args:
        predictions: The rows of one model, which has both heads.
        source_ids: The images to draw.
        dataset: Where they are.
        labels: The label names, in slot order.
        thresholds: By label the probability from which it counts as predicted; only then its box is drawn.

    Raises:
        InputError: An image is missing or unreadable.
    """
    figure, axes = panels(len(source_ids), GALLERY_COLUMNS, height=3.5)
    names = [figure_text(label, instead=f"label {slot + 1}") for slot, label in enumerate(labels)]
    for axis, source_id in zip(axes, source_ids, strict=True):
        rows = predictions[predictions["source_id"] == source_id].set_index("label").loc[labels]
        image = read_thumbnail(dataset.image_folder / source_id)
        _draw_answers(axis, rows, image, names, thresholds)
    handles = [Line2D([], [], color=slot_color(COLORS, slot), linewidth=4) for slot in range(len(labels))]
    handles += [Line2D([], [], color="#222222"), Line2D([], [], color="#222222", linestyle="--")]
    figure.legend(handles, [*names, "true", "predicted"], loc="outside upper left", ncols=5, frameon=False)
    return figure


def _draw_answers(
    axis: Axes, rows: pd.DataFrame, image: Image.Image, names: list[str], thresholds: dict[str, float]
) -> None:
    """Draws a slice; `rows` are its rows of the predictions table, in the order of its labels `names`."""
    first = rows.iloc[0]
    draw_slice(axis, image, first)
    captions = []
    for slot, name in enumerate(names):
        color, text_color = slot_color(COLORS, slot), slot_color(TEXT_COLORS, slot)
        row = rows.iloc[slot]
        present, predicted = row["present"], row["probability"] >= thresholds[str(row.name)]
        if present:
            draw_box(axis, row[TRUE_BOX].to_numpy(float), color)
        if predicted:
            draw_box(axis, row[PREDICTED_BOX].to_numpy(float), color, (0, (4, 2.5)))
        if present and predicted:
            captions.append((text_color, f"{name}: IoU {row['iou']:.2f}"))
        elif present or predicted:
            captions.append((text_color, f"{name}: {'missed' if present else 'false alarm'}"))
    draw_captions(axis, captions or [("#222222", "no box, none predicted")])
