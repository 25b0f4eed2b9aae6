"""Pictures of predictions: each image with the boxes of its predicted labels."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from brain_tumor.inference.predict import LabelPrediction, Prediction
from brain_tumor.reports.drawing import (
    COLORS,
    TEXT_COLORS,
    draw_box,
    draw_captions,
    figure_text,
    read_thumbnail,
    slot_color,
)
from brain_tumor.runtime.progress import Progress

INCHES, DPI = 5.0, 120
LARGEST = 1024  # longest side in pixels; larger images are shrunk


def draw_predictions(predictions: Iterable[Prediction], count: int, folder: Path) -> None:
    """Writes one PNG per image, named after the image file; a second one of the same name is `NAME-2.png`.

    Args:
        predictions: The predictions.
        count: The number of predictions.
        folder: The folder to write to; created if needed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names: dict[str, int] = {}
    with Progress("Drawing", count, "images") as progress:
        for prediction in predictions:
            stem = prediction.path.stem
            names[stem] = names.get(stem, 0) + 1
            name = stem if names[stem] == 1 else f"{stem}-{names[stem]}"
            prediction_figure(prediction).savefig(folder / f"{name}.png", dpi=DPI, bbox_inches="tight")
            progress.update()


def prediction_figure(prediction: Prediction) -> Figure:
    """Draws an image with the boxes of the labels that count as present, and the predictions below it.

    For a model without a class head the boxes of all labels are drawn.
    """
    figure = Figure(figsize=(INCHES, INCHES))
    axis = figure.add_axes((0, 0, 1, 1))
    image = read_thumbnail(prediction.path, "RGB", LARGEST)
    # With this extent, coordinates refer to the edges of pixels, like those of boxes.
    axis.imshow(
        np.asarray(image), extent=(0, prediction.width, prediction.height, 0), interpolation="nearest"
    )
    axis.set(xticks=[], yticks=[], xlim=(0, prediction.width), ylim=(prediction.height, 0))
    axis.spines[:].set_visible(False)
    axis.set_title(figure_text(prediction.path.name, 48), fontsize=10)
    captions = []
    for slot, label in enumerate(prediction.labels):
        name = figure_text(label.label, instead=f"label {slot + 1}")
        shown = label.present is not False
        if shown and label.box is not None:
            draw_box(axis, np.array(label.box), slot_color(COLORS, slot))
            axis.annotate(
                name,
                (label.box[0], label.box[1]),
                xytext=(1, 1),
                textcoords="offset points",
                va="bottom",
                fontsize=9,
                color="black",
                bbox={"facecolor": slot_color(COLORS, slot), "edgecolor": "none", "pad": 1},
            )
        color = slot_color(TEXT_COLORS, slot) if shown else "#666666"
        captions.append((color, f"{name}: {_words(label)}"))
    draw_captions(axis, captions)
    return figure


def _words(label: LabelPrediction) -> str:
    words = [] if label.present is None else ["present" if label.present else "not present"]
    words += [] if label.probability is None else [f"probability {label.probability:.2f}"]
    words += [] if label.score is None else [f"box score {label.score:.2f}"]
    return ", ".join(words)
