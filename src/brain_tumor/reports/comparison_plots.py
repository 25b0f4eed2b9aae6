"""Small plots of a comparison of runs: overlaid curves, and slices with the boxes of all runs."""

import io
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import precision_recall_curve, roc_curve

from brain_tumor.artifacts.model import Epoch
from brain_tumor.artifacts.predictions import PREDICTED_BOX, TRUE_BOX
from brain_tumor.reports.drawing import (
    COLORS,
    GREY,
    TEXT_COLORS,
    draw_box,
    draw_captions,
    draw_slice,
    figure_text,
    read_thumbnail,
    slice_name,
)

SIDE = 3.3  # inches: at 110 dpi two pictures fit a small window, and one a phone
SLOTS = (1, 4, 3, 2, 0, 5)  # the order of the palette's colors: the first two are blue and orange
STYLES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)), (0, (9, 2)), (0, (3, 3)))
CURVES = {
    "loss": "loss",
    "val_boxes_iou": "IoU on validation",
    "val_labels_auc": "AUC on validation",
}

Answers = dict[str, pd.DataFrame]
"""The rows of one label in the predictions tables, by the run's letter."""


def text_color(place: int) -> str:
    """The color of a run on white, by its index."""
    return TEXT_COLORS[SLOTS[place]]


def training_pictures(name: str, trainings: dict[str, list[Epoch]]) -> dict[str, Figure]:
    """Draws the curves of one training: loss, and each available validation figure.

    Args:
        name: The training's name.
        trainings: The epochs by the run's letter.

    Returns:
        The pictures by their descriptions.
    """
    tables = {letter: pd.DataFrame(epochs) for letter, epochs in trainings.items() if epochs}
    pictures = {}
    for key, words in CURVES.items():
        keys = (f"val_{key}", key) if key == "loss" else (key,)
        if not any(each in table for table in tables.values() for each in keys):
            continue
        figure, axis = _picture(f"{name.replace('_', ' ')}: {words}", "epoch", words)
        for letter, table in tables.items():
            place = ord(letter) - ord("A")
            for each in keys:
                if each in table:
                    main = each == keys[0]
                    axis.plot(
                        table["epoch"],
                        table[each],
                        color=text_color(place),
                        linestyle=STYLES[place],
                        linewidth=2 if main else 1,
                        alpha=1 if main else 0.6,
                        marker="o" if main else None,
                        markersize=3,
                        label=letter if main else f"{letter} training",
                    )
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
        if key != "loss":
            axis.set_ylim(0, 1.02)
        axis.legend(frameon=False, fontsize=9)
        pictures[f"{name}: {words}"] = figure
    return pictures


def roc_picture(label: str, answers: Answers) -> Figure | None:
    """Draws the ROC curves of one label with all their points; None if a run has no curve.

    Rows with equal probabilities give a diagonal segment, which matches the area's definition.
    """
    figure, axis = _picture(f"{figure_text(label)}: ROC", "false positive rate", "true positive rate")
    axis.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":")
    drawn = 0
    for letter, rows in answers.items():
        if (known := _known(rows)) is None:
            continue
        fpr, tpr, _ = roc_curve(*known, drop_intermediate=False)
        area = float(np.trapezoid(tpr, fpr))
        axis.plot(fpr, tpr, **_style(letter), label=f"{letter}: AUC {area:.3f}")
        drawn += 1
    return _finish_curves(figure, axis, "lower right") if drawn else None


def precision_recall_picture(label: str, answers: Answers) -> Figure | None:
    """Draws the precision-recall curves of one label as steps; the dotted line is the label's prevalence."""
    figure, axis = _picture(f"{figure_text(label)}: precision-recall", "recall", "precision")
    drawn = 0
    for letter, rows in answers.items():
        if (known := _known(rows)) is None:
            continue
        present, probability = known
        if not drawn:
            axis.axhline(present.mean(), color=GREY, linewidth=1, linestyle=":")
        precision, recall, _ = precision_recall_curve(present, probability)
        # Between two recalls the precision is that of the higher one, so the area is the average precision.
        area = float(-np.sum(np.diff(recall) * precision[:-1]))
        axis.step(recall, precision, where="post", **_style(letter), label=f"{letter}: AP {area:.3f}")
        drawn += 1
    return _finish_curves(figure, axis, "best") if drawn else None


def slice_picture(row: pd.Series, content: io.BytesIO, letters: list[str]) -> Figure:
    """Draws a slice with the true box of a label in white, and the predicted boxes of two runs.

    If the label is absent, a predicted box is drawn only where the label counts as predicted.

    Args:
        row: A row of `disagreements`.
        content: The image file's bytes.
        letters: The letters of the two runs.
    """
    figure = Figure(figsize=(SIDE, SIDE * 1.28), layout="constrained")
    axis = figure.add_subplot()
    draw_slice(axis, read_thumbnail(content), row["width"], row["height"])
    axis.set_title(figure_text(slice_name(row)), fontsize=10)
    label, present = figure_text(row["label"], 20), bool(row["present"])
    captions = [("#222222", f"{label}: {'present' if present else 'absent'}")]
    if present:
        _draw_outlined(axis, row[TRUE_BOX], "white", "-")
    for place, letter in enumerate(letters):
        end = "_other" if place else ""
        slot = ord(letter) - ord("A")
        probability = row[f"probability{end}"]
        predicted = not pd.isna(probability) and bool(row[f"predicted{end}"])
        box = row[[f"{name}{end}" for name in PREDICTED_BOX]]
        if (present or predicted) and not box.isna().any():
            _draw_outlined(axis, box, COLORS[SLOTS[slot]], STYLES[1] if slot == 0 else STYLES[2])
        words = [] if pd.isna(probability) else [f"{probability:.2f}, {'yes' if predicted else 'no'}"]
        words += [] if pd.isna(row[f"iou{end}"]) else [f"IoU {row[f'iou{end}']:.2f}"]
        captions.append((text_color(slot), f"{letter}: {'; '.join(words) or 'no prediction'}"))
    draw_captions(axis, captions)
    return figure


def _draw_outlined(axis: Axes, box: pd.Series, color: str, style: Any) -> None:
    """Draws a box with a dark outline, so that it is visible on bright areas."""
    draw_box(axis, box.to_numpy(float), color, style)
    axis.patches[-1].set_path_effects(
        [patheffects.Stroke(linewidth=3.2, foreground="#000000aa"), patheffects.Normal()]
    )


def _picture(heading: str, xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(SIDE, SIDE), layout="constrained")
    axis = figure.add_subplot()
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_title(heading, fontsize=10)
    axis.set(xlabel=xlabel, ylabel=ylabel)
    return figure, axis


def _style(letter: str) -> dict[str, Any]:
    place = ord(letter) - ord("A")
    return {"color": text_color(place), "linestyle": STYLES[place], "linewidth": 2}


def _finish_curves(figure: Figure, axis: Axes, place: Literal["lower right", "best"]) -> Figure:
    axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axis.legend(frameon=False, fontsize=9, loc=place)
    return figure


def _known(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray] | None:
    """Truth and probability; None if the label is in all slices or in none, or has no probabilities."""
    present, probability = rows["present"].to_numpy(bool), rows["probability"].to_numpy(float)
    if present.all() or not present.any() or np.isnan(probability).any():
        return None
    return present, probability
