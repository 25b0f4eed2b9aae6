"""The report on predictions: one page with all plots and pictures."""

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from brain_tumor.artifacts.dataset import Dataset
from brain_tumor.artifacts.evaluation import Evaluation
from brain_tumor.artifacts.figures import DASHBOARD, SIZE_FIGURES, SIZES, VERSUS, definition
from brain_tumor.artifacts.predictions import Predictions
from brain_tumor.config import VisualizeConfig
from brain_tumor.config.dataset import AVERAGES
from brain_tumor.config.fields import FINAL
from brain_tumor.reports.evaluation_tables import (
    ABOUT_BOXES,
    DASH,
    LABEL_COLUMNS,
    REPORT_COLUMNS,
    about_intervals,
    about_labels,
    counts_sentence,
    label_rows,
    number,
    summary_rows,
    threshold_sentence,
)
from brain_tumor.reports.gallery import Case, choose_cases, choose_strip, legend, slice_pictures
from brain_tumor.reports.page import Section, page, shortened, with_interval
from brain_tumor.reports.panels import legend_keys, panel_pictures
from brain_tumor.reports.plots import (
    calibration_figure,
    drawn_labels,
    froc_figure,
    iou_figure,
    precision_recall_figure,
    roc_figure,
    training_figure,
)
from brain_tumor.reports.verdict import verdict
from brain_tumor.runtime.errors import InputError
from brain_tumor.stores.files import write_file

LARGEST_PAGE = 2_000_000  # bytes; the dashboard does not show larger pages


def write_prediction_report(
    path: str | Path,
    config: VisualizeConfig,
    predictions: Predictions,
    evaluation: Evaluation,
    dataset: Dataset,
) -> None:
    """Writes a self-contained HTML file: verdict, tables, slices, curves, histograms, training.

    Args:
        path: The file, written atomically.
        config: The size of the gallery and the seed of its choice.
        predictions: The models' predictions.
        evaluation: Their evaluation.
        dataset: The dataset with the images.

    Raises:
        InputError: An image is missing, or the page would be too large.
    """
    sections = prediction_sections(config, predictions, evaluation, dataset)
    content = page(f"Predictions on the {evaluation.split} split", sections, evaluation.notice)
    size = len(content.encode())
    if size > LARGEST_PAGE:
        raise InputError(
            f"The page {path} would have {size:,} bytes, more than a dashboard shows;"
            f" lower gallery_images, which is {config.gallery_images}."
        )
    write_file(path, content)


def prediction_sections(
    config: VisualizeConfig, predictions: Predictions, evaluation: Evaluation, dataset: Dataset
) -> list[Section]:
    """The report's sections. The final model has both heads.

    The arguments are those of `write_prediction_report`.

    Raises:
        InputError: An image is missing.
    """
    table = predictions.table[predictions.table["split"] == evaluation.split]
    sections = [
        Section("What the figures mean", items=verdict(evaluation)),
        _models_section(evaluation),
        _classification_section(evaluation),
        Section("Labels", about_labels(evaluation), *label_rows(evaluation, LABEL_COLUMNS[3:])),
        *_slices_sections(config, table, evaluation, dataset),
        *_plot_sections(table, evaluation),
        _sizes_section(evaluation),
    ]
    if evaluation.trainings:
        text = "Left: loss; right: figures of the validation split."
        sections.append(_drawn("Training", text, training_figure(evaluation.trainings), "pairs"))
    names = dict.fromkeys((*REPORT_COLUMNS, *LABEL_COLUMNS, *DASHBOARD, *VERSUS))
    meanings = [[name, definition(name)] for name in names]
    return [*sections, Section("Names of the figures", "", ["figure", "meaning"], meanings)]


def _models_section(evaluation: Evaluation) -> Section:
    text = f"{counts_sentence(evaluation)} {ABOUT_BOXES} {about_intervals(evaluation)}"
    header, rows = summary_rows(evaluation, REPORT_COLUMNS, intervals=True)
    return Section(
        "Models", text, header, [[shortened(title), *map(with_interval, cells)] for title, *cells in rows]
    )


def _classification_section(evaluation: Evaluation) -> Section:
    """The final model's classification report and confusion matrix of each label."""
    final = evaluation.models[FINAL]
    rows: list[list[Any]] = []
    for label, figures in final.labels.items():
        (right, alarms), (missed, found) = final.curves[label].confusion_matrix
        own = [number(figures[name]) for name in ("precision", "recall", "f1")]
        rows.append(
            [label, number(final.thresholds[label]), *own, found + missed, found, missed, alarms, right]
        )
    for average in AVERAGES:
        own = [number(final.figures[f"{average}_{name}"]) for name in ("precision", "recall", "f1")]
        rows.append([f"{average} average", DASH, *own, *[DASH] * 5])
    header = ["final model", "threshold", "precision", "recall", "f1"]
    header += ["images with it", "found", "missed", "false alarms", "true negatives"]
    return Section("Classification and confusion", threshold_sentence(evaluation), header, rows)


def _slices_sections(
    config: VisualizeConfig, table: pd.DataFrame, evaluation: Evaluation, dataset: Dataset
) -> list[Section]:
    """The final model's gallery and a patient's slices; empty if the configuration asks for no images."""
    final, thresholds = table[table["model"] == FINAL], evaluation.models[FINAL].thresholds
    cases = choose_cases(final, thresholds, config.gallery_images, config.seed)
    if not cases:
        return []
    labels = evaluation.label_names
    drawn = [
        (
            "True and predicted boxes",
            "Final model: found boxes with the best, the median and the worst IoU, missed labels, false "
            "alarms. A predicted box is drawn where its label counts as predicted.",
            cases,
        )
    ]
    if strip := choose_strip(final):
        text = "The patient with the most true boxes, in slice order."
        drawn.append(("Slices of one patient", text, [Case("", image) for image in strip]))
    return [
        Section(
            heading,
            text,
            legend=legend(labels),
            pictures=slice_pictures(final, chosen, dataset, labels, thresholds),
            grid="slices",
        )
        for heading, text, chosen in drawn
    ]


def _plot_sections(table: pd.DataFrame, evaluation: Evaluation) -> list[Section]:
    shown, all_labels = drawn_labels(evaluation), evaluation.label_names
    fewer = f" The first {len(shown)} of {len(all_labels)} labels." if len(shown) < len(all_labels) else ""
    return [
        _drawn(
            "ROC curves",
            f"Classification of a label's presence by its probability. Dots: the threshold.{fewer}",
            roc_figure(evaluation),
        ),
        _drawn(
            "Precision and recall",
            f"Dotted: the precision of always predicting the label.{fewer}",
            precision_recall_figure(table, evaluation),
        ),
        _drawn(
            "Calibration",
            f"Dotted: perfect calibration. Larger dots stand for more slices.{fewer}",
            calibration_figure(table, evaluation),
        ),
        _drawn(
            "IoU of the boxes",
            f"Over the true boxes, whatever the label's probability.{fewer}",
            iou_figure(table, evaluation),
        ),
        _drawn(
            "FROC",
            f"The share of true boxes found (IoU at least 0.5) by false boxes per image.{fewer}",
            froc_figure(table, evaluation),
        ),
    ]


def _sizes_section(evaluation: Evaluation) -> Section:
    """The final model's boxes by size, over all labels and for each."""
    final = evaluation.models[FINAL]
    rows = []
    for label, figures in {"all labels": final.figures, **final.labels}.items():
        for size in SIZES:
            count, *own = (figures[f"{name}_{size}"] for name in SIZE_FIGURES)
            if count:
                rows.append([label, size, f"{count:,.0f}", *map(number, own)])
    text = "Final model. Small: under 32 x 32 pixels of the original image; large: at least 96 x 96."
    return Section("Boxes by size", text, ["label", "size", *SIZE_FIGURES], rows)


def _drawn(heading: str, text: str, figure: Figure, grid: str = "plots") -> Section:
    return Section(heading, text, legend=legend_keys(figure), pictures=panel_pictures(figure), grid=grid)
