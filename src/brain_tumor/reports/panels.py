"""A figure's panels as separate pictures, so that a page can arrange them to fit its width."""

import base64
import io
import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from PIL import Image

from brain_tumor.reports.page import Key, Picture, shortened

DPI = 110  # a panel of a third of a figure is then about 360 pixels wide
MARGIN = 6  # pixels around a panel
STYLES = {"-": "solid", "--": "dashed", ":": "dotted", "-.": "dashed"}


def panel_pictures(figure: Figure, photographs: bool = False) -> list[Picture]:
    """Makes one picture per panel, with its color bar if it has one.

    Args:
        figure: The figure, rendered as a whole; content outside its panels is left out.
        photographs: Whether the panels are slices: these get no margin and lossy compression.
    """
    figure.set_dpi(DPI)
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3]
    bars = {id(bar): axis for axis in figure.axes for bar in _color_bars(axis)}
    found = []
    for axis in figure.axes:
        if id(axis) in bars:
            continue
        boxes = [own.get_tightbbox(canvas.get_renderer()) for own in (axis, *_color_bars(axis))]
        box = Bbox.union([each for each in boxes if each is not None]).padded(0 if photographs else MARGIN)
        height, width = pixels.shape[:2]
        # Only whole pixels inside the panel: fractional ones would show the background around it.
        left, top = max(math.ceil(box.x0), 0), max(math.ceil(height - box.y1), 0)
        right, bottom = min(math.floor(box.x1), width), min(math.floor(height - box.y0), height)
        found.append(Picture(axis.get_title() or "slice", _uri(pixels[top:bottom, left:right], photographs)))
    return found


def legend_keys(figure: Figure) -> list[Key]:
    """The entries of a figure's legend, which is outside all panels."""
    return [
        Key(
            to_hex(line.get_color()),
            STYLES[str(line.get_linestyle())],
            shortened(text.get_text().replace(r"\$", "$")),
        )
        for legend in figure.legends
        for line, text in zip(legend.get_lines(), legend.get_texts(), strict=True)
    ]


def _color_bars(axis: Axes) -> list[Axes]:
    drawn: list[Any] = [*axis.images, *axis.collections]
    return [each.colorbar.ax for each in drawn if getattr(each, "colorbar", None) is not None]


def _uri(pixels: Any, photograph: bool) -> str:
    """Pixels (height, width, 3), bytes, as a data URI."""
    image, buffer = Image.fromarray(pixels), io.BytesIO()
    if photograph:
        image.save(buffer, format="webp", quality=80)
    else:
        # A plot has few colors.
        image.quantize(128, method=Image.Quantize.FASTOCTREE).save(buffer, format="png", optimize=True)
    kind = "webp" if photograph else "png"
    return f"data:image/{kind};base64," + base64.b64encode(buffer.getvalue()).decode()
