"""The gallery: true boxes beside predicted ones, on the slices themselves."""

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from brain_tumor.drawing import (
    COLORS,
    GALLERY_COLUMNS,
    TEXT_COLORS,
    choose_slices,
    draw_box,
    draw_captions,
    draw_slice,
    figure_text,
    of_slot,
    panels,
    read_thumbnail,
)
from brain_tumor.evaluation.table import PREDICTED_BOX, TRUE_BOX
from brain_tumor.geometry import box_iou


def choose_images(predictions: pd.DataFrame, count: int, seed: int) -> list[str]:
    """Draws images for the gallery, see `brain_tumor.drawing.choose_slices`.

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
    predictions: pd.DataFrame, source_ids: list[str], dataset: Path, labels: list[str], threshold: float
) -> Figure:
    """The slices with true boxes (solid) and predicted ones (dashed), in pixels of the original image.

    Args:
        predictions: The rows of one model, which has both heads, in the predictions table.
        source_ids: The images to show.
        dataset: The dataset artifact's folder, for the images.
        labels: The label names, in slot order.
        threshold: Probability from which a label counts as predicted; only then its box is drawn.

    Raises:
        InputError: An image is missing or unreadable.
    """
    figure, axes = panels(len(source_ids), GALLERY_COLUMNS, height=3.5)
    names = [figure_text(label, instead=f"label {slot + 1}") for slot, label in enumerate(labels)]
    for axis, source_id in zip(axes, source_ids, strict=True):
        rows = predictions[predictions["source_id"] == source_id].set_index("label").loc[labels]
        image = read_thumbnail(dataset / "images" / source_id)
        _draw_answers(axis, rows, image, names, threshold)
    handles = [Line2D([], [], color=of_slot(COLORS, slot), linewidth=4) for slot in range(len(labels))]
    handles += [Line2D([], [], color="#222222"), Line2D([], [], color="#222222", linestyle="--")]
    figure.legend(handles, [*names, "true", "predicted"], loc="outside upper left", ncols=5, frameon=False)
    return figure


def _draw_answers(
    axis: Axes, rows: pd.DataFrame, image: Image.Image, names: list[str], threshold: float
) -> None:
    """Draws a slice; `rows` are its rows of the predictions table, in the order of its labels `names`."""
    first = rows.iloc[0]
    draw_slice(axis, image, first["width"], first["height"], first["patient_id"], first["slice"])
    captions = []
    for slot, name in enumerate(names):
        color = of_slot(TEXT_COLORS, slot)
        row = rows.iloc[slot]
        true_box, predicted_box = row[TRUE_BOX].to_numpy(float), row[PREDICTED_BOX].to_numpy(float)
        shown = row["probability"] >= threshold
        if row["present"]:
            draw_box(axis, true_box, of_slot(COLORS, slot))
        if shown:
            draw_box(axis, predicted_box, of_slot(COLORS, slot), (0, (4, 2.5)))
        if row["present"] and shown:
            captions.append((color, f"{name}: IoU {box_iou(true_box[None], predicted_box[None])[0]:.2f}"))
        elif row["present"] or shown:
            captions.append((color, f"{name}: {'missed' if row['present'] else 'false alarm'}"))
    draw_captions(axis, captions or [("#222222", "no box, none predicted")])
