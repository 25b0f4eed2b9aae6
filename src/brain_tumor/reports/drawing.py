"""Shared drawing code: panels, colors, names that the font can show, slices and boxes.

Figures use Matplotlib's objects instead of pyplot: no window system, no global state.
"""

import io
import math
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle
from matplotlib.typing import LineStyleType
from PIL import Image

from brain_tumor.artifacts.pixels import to_8_bits
from brain_tumor.boxes.measures import present
from brain_tumor.runtime.errors import InputError

WIDTH = 10.0  # of every figure, in inches: the same text size on all pages
GREY = "#777777"
# Bright enough for a grey slice, and distinguishable for color-blind readers.
COLORS = ["#ffd21f", "#38c6ff", "#ff5ca8", "#5fe07a", "#ff8a3c", "#b79bff"]
# The same hues, dark enough for text on white.
TEXT_COLORS = ["#8a6d00", "#006f9e", "#c0186b", "#1c7f36", "#b44f00", "#6a48c8"]
GALLERY_COLUMNS = 4
# Larger images are shrunk to fit a square of this side. Enlarged pixels stay square and compress well as PNG.
THUMBNAIL = 256


def panels(count: int, columns: int, height: float, width: float = WIDTH) -> tuple[Figure, list[Axes]]:
    """Makes a figure with `count` panels in rows of `columns`, each `height` inches high."""
    rows = math.ceil(count / columns)
    layout = ConstrainedLayoutEngine(h_pad=0.1, w_pad=0.06)  # inches around each panel
    figure = Figure(figsize=(width, rows * height), layout=layout)
    axes = [figure.add_subplot(rows, columns, index + 1) for index in range(count)]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def slot_color(colors: list[str], slot: int) -> str:
    """The color of a class slot."""
    return colors[slot % len(colors)]


def figure_text(text: str, longest: int = 28, instead: str = "?") -> str:
    """Makes a name from the data displayable in a figure.

    Args:
        text: Any text.
        longest: The maximum number of characters.
        instead: The text to use if the font lacks one of the letters.
    """
    if not {ord(letter) for letter in text} <= _known_letters():
        return instead
    # A dollar sign would start a formula, and legends skip names that start with an underscore.
    shown = shorten(text, longest).replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown


def shorten(text: str, longest: int) -> str:
    """Cuts out the middle of a text that is too long, since names differ at both ends."""
    half = (longest - 1) // 2
    return text if len(text) <= longest else f"{text[: longest - 1 - half]}\u2026{text[-half:]}"


@cache
def _known_letters() -> frozenset[int]:
    return frozenset(get_font(findfont(FontProperties())).get_charmap())


def read_thumbnail(
    path: Path | io.BytesIO, mode: Literal["L", "RGB"] = "L", side: int = THUMBNAIL
) -> Image.Image:
    """Reads an image and shrinks it to fit a square.

    Args:
        path: Its file, or its bytes.
        mode: Pillow's mode for grey or color.
        side: The square's side, in pixels.

    Raises:
        InputError: It is missing or cannot be decoded.
    """
    try:
        with Image.open(path) as image:
            converted = to_8_bits(image).convert(mode)
    except OSError as error:  # including truncated images
        raise InputError(
            f"{path} is missing or damaged; give the dataset that the predictions were made from."
        ) from error
    converted.thumbnail((side, side))
    return converted


def draw_slice(axis: Axes, image: Image.Image, width: int, height: int) -> None:
    """Draws a slice.

    Args:
        axis: The axis to draw on; its coordinates become pixels of the original image.
        image: The image, which may be shrunk.
        width: Width of the original image, in pixels.
        height: Height of the original image, in pixels.
    """
    # With this extent, coordinates refer to the edges of pixels, like those of boxes.
    extent = (0, width, height, 0)
    axis.imshow(np.asarray(image), cmap="gray", vmin=0, vmax=255, extent=extent, interpolation="nearest")
    axis.set(xticks=[], yticks=[], xlim=(0, width), ylim=(height, 0))
    axis.spines[:].set_visible(False)


def slice_name(row: Any) -> str:
    """A slice's patient and number, or its file name if these are unknown.

    Args:
        row: A row with filename, patient_id and slice.
    """
    if pd.isna(row["patient_id"]):
        return shorten(Path(row["filename"]).stem, 28)
    return f"patient {shorten(row['patient_id'], 14)}, slice {row['slice']}"


def batch_figure(images: np.ndarray, boxes: np.ndarray) -> Figure:
    """Draws a training batch: letterboxed images with the boxes of their labels.

    Args:
        images: uint8 (batch, size, size, 1 or 3).
        boxes: (batch, num_classes, 4), normalized to 0..1; the row of an absent class is zero.
    """
    figure, axes = panels(len(images), GALLERY_COLUMNS, height=2.5)
    size = images.shape[1]
    for axis, pixels, rows in zip(axes, images, boxes, strict=True):
        draw_slice(axis, Image.fromarray(pixels.squeeze()), size, size)
        for slot in np.flatnonzero(present(rows)):
            draw_box(axis, rows[slot] * size, slot_color(COLORS, int(slot)))
    return figure


def draw_box(axis: Axes, box: np.ndarray, color: str, linestyle: LineStyleType = "-") -> None:
    """Draws a box `[xmin, ymin, xmax, ymax]` in the axis' coordinates."""
    xmin, ymin, xmax, ymax = box
    style: dict[str, Any] = {"edgecolor": color, "linewidth": 1.6, "linestyle": linestyle}
    axis.add_patch(Rectangle((xmin, ymin), xmax - xmin, ymax - ymin, fill=False, **style))


def draw_captions(axis: Axes, captions: list[tuple[str, str]]) -> None:
    """Writes lines of colored text below an axis, each given as a color and a text."""
    below: dict[str, Any] = {
        "xy": (0.5, 0),
        "xycoords": "axes fraction",
        "textcoords": "offset points",
        "ha": "center",
        "va": "top",
    }
    for line, (color, text) in enumerate(captions):
        axis.annotate(text, xytext=(0, -4 - 13 * line), color=color, **below)
