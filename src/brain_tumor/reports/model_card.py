"""The model card: one Markdown page that says what the model is, how good it is, and what it is not for.

It keeps to what Kubeflow's dashboard shows of Markdown: headings, paragraphs, bold, lists, pipe tables, code.
"""

import json
import os

from brain_tumor.artifacts.evaluation import ALL, Evaluation
from brain_tumor.artifacts.figures import DASHBOARD, SIZE_FIGURES, SIZES, VERSUS, definition
from brain_tumor.artifacts.predictions import JudgedData
from brain_tumor.config.fields import FINAL
from brain_tumor.reports.evaluation_tables import (
    ABOUT_BOXES,
    LABEL_COLUMNS,
    REPORT_COLUMNS,
    about_differences,
    about_intervals,
    about_labels,
    counts_sentence,
    difference_rows,
    label_rows,
    markdown_table,
    number,
    summary_rows,
    threshold_sentence,
)
from brain_tumor.reports.verdict import verdict
from brain_tumor.runtime import environment
from brain_tumor.runtime.versions import installed_versions

# More labels than these make the page longer than a dashboard shows.
LISTED_LABELS = 40
USE = (
    "For research on detecting tumors in MRI. It answers for one slice at a time: which labels "
    "it shows, and at most one box for each."
)
LIMITS = (
    "It is no medical device, and nothing here supports a diagnosis.",
    "The figures hold for images like those of the split that they are from: the same source, scanners and "
    "way of export. Nothing is known of others.",
    "Two lesions of one label in a slice get one box.",
    "What splits share (below) makes figures look better than they are for new patients.",
)


def model_card(evaluation: Evaluation) -> str:
    """The card as Markdown, which names the run that it is of, if that has a name."""
    run = os.environ.get(environment.RUN)
    parts = ["# Model card", f"Run {run}" if run else ""]
    parts += [f"**{evaluation.notice}**" if evaluation.notice else "", _list(verdict(evaluation))]
    parts += [*_figures(evaluation), *_labels(evaluation), *_sizes(evaluation)]
    parts += ["## Use and limits", USE, _list(LIMITS)]
    parts += _data(evaluation.data) if evaluation.data else []
    parts += [*_trainings(evaluation), *_glossary(), *_made_with(evaluation)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _figures(evaluation: Evaluation) -> list[str]:
    header, rows = summary_rows(evaluation, REPORT_COLUMNS, intervals=True)
    parts = [
        "## Figures",
        f"{counts_sentence(evaluation)} {threshold_sentence(evaluation)}",
        markdown_table(header, rows),
        ABOUT_BOXES,
        about_intervals(evaluation),
    ]
    if evaluation.differences:
        header, rows = difference_rows(evaluation, [ALL, *evaluation.label_names[:LISTED_LABELS]])
        parts += [
            "## Final model minus the others",
            markdown_table(header, rows),
            about_differences(evaluation),
        ]
    return parts


def _labels(evaluation: Evaluation) -> list[str]:
    header, rows = label_rows(evaluation, intervals=True)
    parts = ["## Labels", markdown_table(header, rows[:LISTED_LABELS])] if rows else []
    if len(rows) > LISTED_LABELS:
        parts.append(f"These are the first {LISTED_LABELS} of {len(rows)} labels.")
    return [*parts, about_labels(evaluation)]


def _sizes(evaluation: Evaluation) -> list[str]:
    final = evaluation.models.get(FINAL)
    if final is None:
        return []
    rows = [[size, *(number(final.figures[f"{name}_{size}"]) for name in SIZE_FIGURES)] for size in SIZES]
    for row, size in zip(rows, SIZES, strict=True):
        row[1] = f"{final.figures[f'true_boxes_{size}'] or 0:.0f}"
    text = (
        "Final model. Small boxes are under 32 x 32 pixels of the original image, large ones from 96 x 96 on."
    )
    return ["## Sizes of the boxes", text, markdown_table(["boxes", *SIZE_FIGURES], rows)]


def _data(data: JudgedData) -> list[str]:
    counts = [
        [
            split,
            f"{own.images:,}",
            f"{own.boxes:,}",
            "unknown" if own.patients is None else f"{own.patients:,}",
            ", ".join(f"{label} {count:,}" for label, count in _first(data.class_counts.get(split, {}))),
        ]
        for split, own in data.splits.items()
    ]
    shared = [
        [
            pair.replace("/", " and "),
            "unknown" if own.shared_patients is None else f"{own.shared_patients:,}",
            f"{own.identical_images:,}",
            f"{own.near_duplicates:,}",
        ]
        for pair, own in data.leakage.used.items()
    ]
    return [
        "## Data",
        f"Source: {data.source}.",
        markdown_table(["split", "images", "boxes", "patients", "images by label"], counts),
        "What splits share:" if shared else "",
        markdown_table(["splits", "patients", "identical images", "near-duplicates"], shared)
        if shared
        else "",
    ]


def _first(counts: dict[str, int]) -> list[tuple[str, int]]:
    return list(counts.items())[:LISTED_LABELS]


def _trainings(evaluation: Evaluation) -> list[str]:
    header = ["training", "epochs", "last loss", "last val_loss"]
    rows = [
        [name, str(len(epochs)), number(epochs[-1].get("loss")), number(epochs[-1].get("val_loss"))]
        for name, epochs in evaluation.trainings.items()
        if epochs
    ]
    return ["## Trainings", markdown_table(header, rows)] if rows else []


def _glossary() -> list[str]:
    names = dict.fromkeys((*REPORT_COLUMNS, *LABEL_COLUMNS, *DASHBOARD, *VERSUS))
    return [
        "## What the figures mean",
        markdown_table(["figure", "meaning"], [[name, definition(name)] for name in names]),
    ]


def _made_with(evaluation: Evaluation) -> list[str]:
    lines = [
        f"{name}: {json.dumps(config, sort_keys=True, allow_nan=False)}"
        for name, config in evaluation.configs.items()
    ]
    return [
        "## Versions and configuration",
        ", ".join(f"{name} {value}" for name, value in installed_versions().items()),
        "\n".join(["```", *lines, "```"]) if lines else "",
    ]


def _list(lines: list[str] | tuple[str, ...]) -> str:
    return "\n".join(f"- {line}" for line in lines)
