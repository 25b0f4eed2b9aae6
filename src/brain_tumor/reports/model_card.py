"""The model card: one Markdown page with the model's purpose, its figures, and its limits.

It uses only Markdown that Kubeflow's dashboard renders: headings, paragraphs, bold, lists, pipe tables, code.
"""

import json
import os
import textwrap

from brain_tumor.artifacts.evaluation import ALL, Evaluation
from brain_tumor.artifacts.figures import DASHBOARD, SIZE_FIGURES, SIZES, VERSUS, definition
from brain_tumor.artifacts.predictions import EvaluationData
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

# More labels would make the page longer than the dashboard shows.
LISTED_LABELS = 40
# Characters; two pages stand side by side.
CODE_WIDTH = 60
USE = (
    "For research on detecting tumors in MRI. It predicts for each slice which labels are present, and at "
    "most one box per label."
)
LIMITS = (
    "It is not a medical device, and must not be used for diagnosis.",
    "The figures apply to images like those of the evaluated split: the same source, scanners and export. "
    "Performance on other images is unknown.",
    "Two lesions of one label in a slice get one box.",
    "Leakage between splits (below) makes figures look better than they are for new patients.",
)


def model_card(evaluation: Evaluation) -> str:
    """The card as Markdown, with the run's name if it has one."""
    run = os.environ.get(environment.RUN)
    parts = ["# Model card", f"Run {run}" if run else ""]
    parts += [f"**{evaluation.notice}**" if evaluation.notice else "", _list(verdict(evaluation))]
    parts += [*_figures(evaluation), *_labels(evaluation), *_sizes(evaluation)]
    parts += ["## Use and limits", USE, _list(LIMITS)]
    parts += _data(evaluation.data) if evaluation.data else []
    parts += [*_trainings(evaluation), *_glossary(), *_versions()]
    # The dashboard takes two underscores in a line, as in mean_iou, macro_f1, for emphasis.
    parts = [part.replace("_", r"\_") for part in parts if part]
    return "\n\n".join([*parts, *_configuration(evaluation)]) + "\n"


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
    text = "Final model. Small: under 32 x 32 pixels of the original image; large: at least 96 x 96."
    return ["## Sizes of the boxes", text, markdown_table(["boxes", *SIZE_FIGURES], rows)]


def _data(data: EvaluationData) -> list[str]:
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
        "Leakage between splits:" if shared else "",
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


def _versions() -> list[str]:
    versions = ", ".join(f"{name} {value}" for name, value in installed_versions().items())
    return ["## Versions and configuration", versions]


def _configuration(evaluation: Evaluation) -> list[str]:
    # The dashboard gives the page the width of the longest line of code, and then breaks no paragraph.
    lines = [
        textwrap.fill(
            f"{name}: {json.dumps(config, sort_keys=True, allow_nan=False)}",
            CODE_WIDTH,
            subsequent_indent="  ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        for name, config in evaluation.configs.items()
    ]
    return ["\n".join(["```", *lines, "```"])] if lines else []


def _list(lines: list[str] | tuple[str, ...]) -> str:
    return "\n".join(f"- {line}" for line in lines)
