"""The visualize step: one page with all pictures."""

from pathlib import Path
from typing import Any

from brain_tumor.config import VisualizeConfig
from brain_tumor.errors import InputError
from brain_tumor.evaluation.report import REPORT_COLUMNS, compute_metrics, summary_rows
from brain_tumor.evaluation.table import read_predictions
from brain_tumor.html import Section, figure_uri, page
from brain_tumor.storage import write_file
from brain_tumor.visualization.gallery import choose_images, gallery_figure
from brain_tumor.visualization.plots import iou_figure, roc_figure, training_figure

LARGEST_PAGE = 2_000_000  # bytes; the dashboard shows no larger one
DPI = 110  # a figure's 10 inches then fill the page's width


def visualize(
    config: VisualizeConfig,
    predictions: str | Path,
    dataset: str | Path,
    histories: dict[str, list[dict[str, Any]]],
    output: str | Path,
) -> None:
    """Writes one HTML file that needs no other: table, gallery, ROC curves, IoU histograms, training.

    Args:
        config: Size of the gallery and the seed of its choice.
        predictions: The predictions artifact's folder.
        dataset: The dataset artifact's folder, for the images.
        histories: By the training's name, one dict an epoch: `epoch`, `loss`, `val_loss` and others.
        output: The file to write. It appears whole or not at all.

    Raises:
        InputError: An artifact is missing or not whole, an image is missing, or the page would be too large.
    """
    table, manifest = read_predictions(predictions)
    labels, threshold = manifest["labels"], manifest["threshold"]
    metrics = compute_metrics(table, manifest, threshold)
    header, rows = summary_rows(metrics, REPORT_COLUMNS)
    final = table[table["model"] == "final"]
    images = choose_images(final, config.gallery_images, config.seed)
    counts = (
        f"Images: {metrics['images']:,}, patients: {metrics['patients']:,}, true boxes: {metrics['boxes']:,}."
    )
    sections = [
        Section("Models", counts, header, rows),
        Section(
            "ROC curves",
            f"A label's presence, told by its probability. The dots are at the threshold {threshold:g}.",
            image=figure_uri(roc_figure(table, labels, metrics), DPI),
        ),
        Section(
            "IoU of the boxes",
            "Over the true boxes, whatever the label's probability.",
            image=figure_uri(iou_figure(table, labels, metrics), DPI),
        ),
    ]
    if images:
        gallery = gallery_figure(final, images, Path(dataset), labels, threshold)
        text = f"Final model. A box is shown as predicted from a probability of {threshold:g}."
        sections.insert(1, Section("True and predicted boxes", text, image=figure_uri(gallery, DPI)))
    if histories:
        sections.append(Section("Training", image=figure_uri(training_figure(histories), DPI)))

    content = page(f"Predictions on the {metrics['split']} split", sections, manifest["notice"])
    size = len(content.encode())
    if size > LARGEST_PAGE:
        raise InputError(
            f"The page {output} would have {size:,} bytes, more than a dashboard shows;"
            f" lower gallery_images, which is {config.gallery_images}."
        )
    write_file(output, content)
