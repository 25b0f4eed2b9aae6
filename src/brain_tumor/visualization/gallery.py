"""The gallery: true boxes beside predicted ones, on the slices themselves."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.typing import LineStyleType
from PIL import Image

from brain_tumor.errors import InputError
from brain_tumor.evaluation.table import PREDICTED_BOX, TRUE_BOX
from brain_tumor.geometry import box_iou
from brain_tumor.visualization.plots import panels

# Bright enough for a grey slice, and told apart by the color-blind too.
COLORS = ["#ffd21f", "#38c6ff", "#ff5ca8", "#5fe07a", "#ff8a3c", "#b79bff"]
# The same hues, dark enough for letters on white paper.
TEXT_COLORS = ["#8a6d00", "#006f9e", "#c0186b", "#1c7f36", "#b44f00", "#6a48c8"]
COLUMNS = 4
SHARE_WITHOUT_BOX = 0.2
# Side of the square that larger images are shrunk to fit. Enlarged pixels stay squares, which PNG packs well.
THUMBNAIL = 256


def choose_slices(predictions: pd.DataFrame, count: int, seed: int) -> list[str]:
    """Draws slices for the gallery, spread over the patients, about a fifth of them without a box.

    Args:
        predictions: The rows of one model in the predictions table.
        count: How many slices; fewer are drawn if there are not as many.
        seed: Seed of the draw.

    Returns:
        Names of image files, by patient and slice.
    """
    slices = predictions.groupby("filename", as_index=False).agg(
        patient_id=("patient_id", "first"), slice=("slice", "first"), has_box=("present", "any")
    )
    drawn = slices.sample(frac=1, random_state=seed)
    # Whose turn it is: first each patient's first slice, then each patient's second one, and so on.
    drawn["turn"] = drawn.groupby(["has_box", "patient_id"]).cumcount()
    drawn = drawn.sort_values("turn", kind="stable")
    with_box, without_box = drawn[drawn["has_box"]], drawn[~drawn["has_box"]]
    wanted = max(round(count * SHARE_WITHOUT_BOX), count - len(with_box))
    without_box = without_box.head(wanted)
    chosen = pd.concat([with_box.head(count - len(without_box)), without_box])
    chosen["digits"] = chosen["patient_id"].str.len()  # patient 2 before patient 10
    return chosen.sort_values(["digits", "patient_id", "slice", "filename"])["filename"].tolist()


def gallery_figure(
    predictions: pd.DataFrame, filenames: list[str], dataset: Path, labels: list[str], threshold: float
) -> Figure:
    """The slices with true boxes (solid) and predicted ones (dashed), in pixels of the original image.

    Args:
        predictions: The rows of one model, which has both heads, in the predictions table.
        filenames: The slices to show.
        dataset: The dataset artifact's folder, for the images.
        labels: The label names, in slot order.
        threshold: Probability from which a label counts as predicted; only then its box is drawn.

    Raises:
        InputError: An image is missing or unreadable.
    """
    figure, axes = panels(len(filenames), COLUMNS, height=3.5)
    for axis, filename in zip(axes, filenames, strict=True):
        rows = predictions[predictions["filename"] == filename].set_index("label")
        image = _read_image(dataset / "images" / rows["split"].iloc[0] / filename)
        _draw_slice(axis, rows, image, labels, threshold)
    handles = [Line2D([], [], color=_of_slot(COLORS, slot), linewidth=4) for slot in range(len(labels))]
    handles += [Line2D([], [], color="#222222"), Line2D([], [], color="#222222", linestyle="--")]
    figure.legend(handles, [*labels, "true", "predicted"], loc="outside upper left", ncols=5, frameon=False)
    return figure


def _read_image(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            grey = image.convert("L")
    except OSError as error:  # of a truncated image too
        raise InputError(
            f"{path} is missing or no whole image; give the dataset that the predictions were made from."
        ) from error
    grey.thumbnail((THUMBNAIL, THUMBNAIL))
    return grey


def _of_slot(colors: list[str], slot: int) -> str:
    return colors[slot % len(colors)]


def _draw_slice(
    axis: Axes, rows: pd.DataFrame, image: Image.Image, labels: list[str], threshold: float
) -> None:
    """Draws one slice.

    `rows` are the slice's rows of the predictions table, indexed by label; `image` may be shrunk.
    """
    first = rows.iloc[0]
    width, height = first["width"], first["height"]
    # With this extent, a pixel's coordinates are its edges, as they are a box's.
    extent = (0, width, height, 0)
    axis.imshow(np.asarray(image), cmap="gray", vmin=0, vmax=255, extent=extent, interpolation="nearest")
    axis.set(xticks=[], yticks=[], xlim=(0, width), ylim=(height, 0))
    axis.spines[:].set_visible(False)
    number = "" if pd.isna(first["slice"]) else f", slice {first['slice']}"
    axis.set_title(f"patient {first['patient_id']}{number}", fontsize=10)

    captions = []
    for slot, label in enumerate(labels):
        color = _of_slot(TEXT_COLORS, slot)
        row = rows.loc[label]
        true_box, predicted_box = row[TRUE_BOX].to_numpy(float), row[PREDICTED_BOX].to_numpy(float)
        shown = row["probability"] >= threshold
        if row["present"]:
            _draw_box(axis, true_box, _of_slot(COLORS, slot), "-")
        if shown:
            _draw_box(axis, predicted_box, _of_slot(COLORS, slot), (0, (4, 2.5)))
        if row["present"] and shown:
            captions.append((color, f"{label}: IoU {box_iou(true_box[None], predicted_box[None])[0]:.2f}"))
        elif row["present"] or shown:
            captions.append((color, f"{label}: {'missed' if row['present'] else 'false alarm'}"))
    below: dict[str, Any] = {
        "xy": (0.5, 0),
        "xycoords": "axes fraction",
        "textcoords": "offset points",
        "ha": "center",
        "va": "top",
    }
    for line, (color, text) in enumerate(captions or [("#222222", "no box, none predicted")]):
        axis.annotate(text, xytext=(0, -4 - 13 * line), color=color, **below)


def _draw_box(axis: Axes, box: np.ndarray, color: str, linestyle: LineStyleType) -> None:
    xmin, ymin, xmax, ymax = box
    style: dict[str, Any] = {"edgecolor": color, "linewidth": 1.6, "linestyle": linestyle}
    axis.add_patch(Rectangle((xmin, ymin), xmax - xmin, ymax - ymin, fill=False, **style))
