"""The gallery: slices with true and predicted boxes."""

import math
from typing import Any, NamedTuple

import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from brain_tumor.artifacts.dataset import Dataset
from brain_tumor.artifacts.predictions import PREDICTED_BOX, TRUE_BOX
from brain_tumor.evaluation.thresholds import Thresholds, with_decisions
from brain_tumor.reports.drawing import (
    COLORS,
    GALLERY_COLUMNS,
    TEXT_COLORS,
    draw_box,
    draw_slice,
    panels,
    read_thumbnail,
    shorten,
    slice_name,
    slot_color,
)
from brain_tumor.reports.page import Key, Picture, colored
from brain_tumor.reports.panels import panel_pictures

KINDS = ("best", "median", "worst", "missed", "false alarm")
STRIP_SLICES = 8
LONGEST_NAME = 28
DASHED = (0, (4, 2.5))


class Case(NamedTuple):
    """An image of the gallery, and the one of `KINDS` that it is an example of."""

    kind: str
    source_id: str


def choose_cases(predictions: pd.DataFrame, thresholds: Thresholds, count: int, seed: int) -> list[Case]:
    """Chooses images: found boxes with the best, the median and the worst IoU, missed labels, false alarms.

    Args:
        predictions: The rows of one model, which has both heads.
        thresholds: The probability from which a label counts as predicted, by label.
        count: The maximum number of images, shared evenly between the kinds; no image is chosen twice.
        seed: Seed of the random choice of missed labels and false alarms.

    Returns:
        The images, ordered by kind.
    """
    rows = with_decisions(predictions, dict.fromkeys(predictions["model"].unique(), thresholds))
    rows = rows.sample(frac=1, random_state=seed)
    found = rows[rows["present"] & rows["predicted"]].sort_values("iou", ascending=False, kind="stable")
    images = found["source_id"].tolist()
    middle = len(images) // 2
    offers = {
        "best": images,
        "worst": images[::-1],
        "median": [images[place] for place in sorted(range(len(images)), key=lambda n: abs(n - middle))],
        "missed": rows.loc[rows["present"] & ~rows["predicted"], "source_id"].tolist(),
        "false alarm": rows.loc[~rows["present"] & rows["predicted"], "source_id"].tolist(),
    }
    taken: dict[str, str] = {}
    # Round-robin, so that all kinds are included before one gets more.
    turns = {kind: iter(images) for kind, images in offers.items()}
    while turns and len(taken) < count:
        for kind, rest in list(turns.items()):
            image = next((each for each in rest if each not in taken), None)
            if image is None:
                del turns[kind]
            elif len(taken) < count:
                taken[image] = kind
    return sorted((Case(kind, image) for image, kind in taken.items()), key=lambda c: KINDS.index(c.kind))


def choose_strip(predictions: pd.DataFrame) -> list[str]:
    """Chooses evenly spaced slices of the patient with the most true boxes, in order.

    Args:
        predictions: The rows of one model.

    Returns:
        At most `STRIP_SLICES` images; none if patients or slices are unknown, or if each patient has only
        one slice.
    """
    known = predictions.dropna(subset=["patient_id", "slice"])
    if known.empty:
        return []
    patient = known.groupby("patient_id")["present"].sum().idxmax()
    slices = known[known["patient_id"] == patient].drop_duplicates("source_id").sort_values("slice")
    step = max(1, math.ceil(len(slices) / STRIP_SLICES))
    images = slices["source_id"].tolist()[::step]
    return images if len(images) > 1 else []


def slice_pictures(
    predictions: pd.DataFrame, cases: list[Case], dataset: Dataset, labels: list[str], thresholds: Thresholds
) -> list[Picture]:
    """Draws the slices with their boxes, and captions that say what is right and wrong.

    The arguments are those of `gallery_figure`; a caption starts with the case's kind.
    """
    source_ids = [case.source_id for case in cases]
    drawn = panel_pictures(
        gallery_figure(predictions, source_ids, dataset, labels, thresholds), photographs=True
    )
    for picture, case in zip(drawn, cases, strict=True):
        rows = _rows_of(predictions, case.source_id, labels)
        first: Any = rows.iloc[0]
        where = slice_name(first)
        picture.about = f"{case.kind}: {where}" if case.kind else where
        parts = [Markup("<b>{}</b>").format(case.kind)] if case.kind else []
        parts += [Markup.escape(where), *_captions(rows, labels, thresholds)]
        picture.caption = Markup("<br>").join(parts)
    return drawn


def legend(labels: list[str]) -> list[Key]:
    """The legend of the boxes' colors and line styles."""
    keys = [Key(slot_color(COLORS, slot), "solid", label) for slot, label in enumerate(labels)]
    return [*keys, Key("currentColor", "solid", "true"), Key("currentColor", "dashed", "predicted")]


def gallery_figure(
    predictions: pd.DataFrame,
    source_ids: list[str],
    dataset: Dataset,
    labels: list[str],
    thresholds: Thresholds,
) -> Figure:
    """Draws slices with true boxes (solid) and predicted ones (dashed), in pixels of the original image.

    Args:
        predictions: The rows of one model, which has both heads.
        source_ids: The images to draw.
        dataset: The dataset with the images.
        labels: The label names, in slot order.
        thresholds: The probability from which a label counts as predicted and its box is drawn, by label.

    Raises:
        InputError: An image is missing or unreadable.
    """
    figure, axes = panels(len(source_ids), GALLERY_COLUMNS, height=2.5)
    for axis, source_id in zip(axes, source_ids, strict=True):
        rows = _rows_of(predictions, source_id, labels)
        _draw_answers(axis, rows, read_thumbnail(dataset.image_folder / source_id), labels, thresholds)
    return figure


def _rows_of(predictions: pd.DataFrame, source_id: str, labels: list[str]) -> pd.DataFrame:
    return predictions[predictions["source_id"] == source_id].set_index("label").loc[labels]


def _draw_answers(
    axis: Axes, rows: pd.DataFrame, image: Image.Image, labels: list[str], thresholds: Thresholds
) -> None:
    """Draws a slice; `rows` are its rows of the predictions table, in the order of its labels."""
    draw_slice(axis, image, rows["width"].iloc[0], rows["height"].iloc[0])
    for slot, label in enumerate(labels):
        color, row = slot_color(COLORS, slot), rows.iloc[slot]
        if row["present"]:
            draw_box(axis, row[TRUE_BOX].to_numpy(float), color)
        if row["probability"] >= thresholds[label]:
            draw_box(axis, row[PREDICTED_BOX].to_numpy(float), color, DASHED)


def _captions(rows: pd.DataFrame, labels: list[str], thresholds: Thresholds) -> list[Markup]:
    lines = []
    for slot, label in enumerate(labels):
        row = rows.iloc[slot]
        present, predicted = row["present"], row["probability"] >= thresholds[label]
        if present or predicted:
            verdict = (
                f"IoU {row['iou']:.2f}" if present and predicted else "missed" if present else "false alarm"
            )
            hues = slot_color(TEXT_COLORS, slot), slot_color(COLORS, slot)
            lines.append(colored(f"{shorten(label, LONGEST_NAME)}: {verdict}", *hues))
    return lines or [Markup("no box, none predicted")]
