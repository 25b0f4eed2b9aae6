"""The report about predictions: one page with all pictures."""

from pathlib import Path

import pandas as pd

from brain_tumor.artifacts.dataset import Dataset
from brain_tumor.artifacts.evaluation import Evaluation
from brain_tumor.artifacts.predictions import Predictions
from brain_tumor.config import VisualizeConfig
from brain_tumor.config.fields import FINAL
from brain_tumor.reports.evaluation_tables import (
    ABOUT_BOXES,
    REPORT_COLUMNS,
    about_labels,
    counts_sentence,
    label_rows,
    summary_rows,
    threshold_sentence,
)
from brain_tumor.reports.gallery import choose_images, gallery_figure
from brain_tumor.reports.page import Section, figure_uri, page
from brain_tumor.reports.plots import iou_figure, roc_figure, training_figure
from brain_tumor.runtime.errors import InputError
from brain_tumor.stores.files import write_file

LARGEST_PAGE = 2_000_000  # bytes; the dashboard shows no larger one
DPI = 110  # a figure's 10 inches then fill the page's width


def write_prediction_report(
    path: str | Path,
    config: VisualizeConfig,
    predictions: Predictions,
    evaluation: Evaluation,
    dataset: Dataset,
) -> None:
    """Writes one HTML file that needs no other: table, gallery, ROC curves, IoU histograms, training.

    Args:
        path: The file to write. It appears whole or not at all.
        config: Size of the gallery and the seed of its choice.
        predictions: The models' answers.
        evaluation: What was found of them.
        dataset: The images.

    Raises:
        InputError: An image is missing, or the page would be too large.
    """
    table = predictions.table[predictions.table["split"] == evaluation.split]
    sections = [
        _models_section(evaluation),
        Section("Labels", about_labels(evaluation), *label_rows(evaluation)),
        *_gallery_sections(config, table, evaluation, dataset),
        Section(
            "ROC curves",
            "A label's presence, told by its probability. "
            f"The dots are at the threshold. {threshold_sentence(evaluation)}",
            image=figure_uri(roc_figure(evaluation), DPI),
        ),
        Section(
            "IoU of the boxes",
            "Over the true boxes, whatever the label's probability.",
            image=figure_uri(iou_figure(table, evaluation), DPI),
        ),
    ]
    if evaluation.trainings:
        sections.append(Section("Training", image=figure_uri(training_figure(evaluation.trainings), DPI)))

    content = page(f"Predictions on the {evaluation.split} split", sections, evaluation.notice)
    size = len(content.encode())
    if size > LARGEST_PAGE:
        raise InputError(
            f"The page {path} would have {size:,} bytes, more than a dashboard shows;"
            f" lower gallery_images, which is {config.gallery_images}."
        )
    write_file(path, content)


def _models_section(evaluation: Evaluation) -> Section:
    text = f"{counts_sentence(evaluation)} {ABOUT_BOXES}"
    return Section("Models", text, *summary_rows(evaluation, REPORT_COLUMNS))


def _gallery_sections(
    config: VisualizeConfig, table: pd.DataFrame, evaluation: Evaluation, dataset: Dataset
) -> list[Section]:
    """The final model's gallery; none if no image is wanted."""
    final = table[table["model"] == FINAL]
    images = choose_images(final, config.gallery_images, config.seed)
    if not images:
        return []
    figure = gallery_figure(
        final, images, dataset, evaluation.label_names, evaluation.models[FINAL].thresholds
    )
    text = f"Final model. {threshold_sentence(evaluation)} Only then its box is drawn."
    return [Section("True and predicted boxes", text, image=figure_uri(figure, DPI))]
