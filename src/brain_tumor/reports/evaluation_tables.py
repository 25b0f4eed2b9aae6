"""An evaluation to read: as a table in the terminal, as Markdown, and in sentences."""

import os

from tabulate import tabulate

from brain_tumor.artifacts.evaluation import Evaluation, Interval
from brain_tumor.config.fields import FINAL
from brain_tumor.runtime import environment

DASH = "\u2013"  # stands for a figure that a model cannot have
SUMMARY_COLUMNS = {"macro-F1": "macro_f1", "mean IoU": "mean_iou", "recall@0.5": "recall_at_50"}
REPORT_COLUMNS = SUMMARY_COLUMNS | {"recall@0.75": "recall_at_75", "ROC AUC": "macro_roc_auc"}
LABEL_COLUMNS = {
    "precision": "precision",
    "recall": "recall",
    "F1": "f1",
    "ROC AUC": "roc_auc",
    "average precision": "average_precision",
}


def summary_rows(
    evaluation: Evaluation, columns: dict[str, str] = SUMMARY_COLUMNS, intervals: bool = False
) -> tuple[list[str], list[list[str]]]:
    """The header and the rows of a table with the models below each other.

    Args:
        evaluation: What was found of them.
        columns: The figure's name by column title.
        intervals: Whether a figure is followed by its interval, where it has one.
    """
    rows = []
    for model in evaluation.models.values():
        known = model.intervals if intervals else {}
        cells = [_number(model.figures[name]) + _brackets(known.get(name)) for name in columns.values()]
        rows.append([model.title, *cells])
    return ["model", *columns], rows


def summary_table(evaluation: Evaluation, notes: dict[str, dict[str, str]] | None = None) -> str:
    """The models' main figures as a plain-text table for the terminal.

    Args:
        evaluation: What was found of them.
        notes: Further columns: by title, a text for each model's name.
    """
    header, rows = summary_rows(evaluation)
    alignment = _alignment(header)
    for title, texts in (notes or {}).items():
        header.append(title)
        alignment.append("left")
        for row, model in zip(rows, evaluation.models, strict=True):
            row.append(texts[model])
    return tabulate(rows, header, tablefmt="simple", disable_numparse=True, colalign=alignment)


def evaluation_markdown(evaluation: Evaluation) -> str:
    """The whole evaluation as a Markdown page, which names the run that it is of, if that has a name."""
    run = os.environ.get(environment.RUN)
    counts = (
        f"Split {evaluation.split}: {_count(evaluation.patients, 'patient')}, "
        f"{_count(evaluation.images, 'image')}, {_count(evaluation.boxes, 'true box', 'true boxes')}. "
        f"A label counts as predicted from a probability of {evaluation.threshold:g}."
    )
    header, rows = summary_rows(evaluation, REPORT_COLUMNS, intervals=True)
    parts = ["# Evaluation", f"Run {run}" if run else ""]
    parts += [f"> {evaluation.notice}" if evaluation.notice else "", counts]
    parts += [_markdown_table(header, rows), _about_intervals(evaluation), describe_difference(evaluation)]
    if final := evaluation.models.get(FINAL):
        cells = [
            [label, *(_number(figures[name]) for name in LABEL_COLUMNS.values())]
            for label, figures in final.labels.items()
        ]
        parts += ["## Labels, final model", _markdown_table(["label", *LABEL_COLUMNS], cells)]
    return "\n\n".join(part for part in parts if part) + "\n"


def describe_difference(evaluation: Evaluation) -> str:
    """A sentence: the difference in mean IoU, final minus constant, and its interval or why there is none."""
    found = evaluation.differences["mean_iou"]
    if found.value is None:
        return f"No difference in mean IoU, final minus constant: {found.reason}."
    sentence = f"Difference in mean IoU, final minus constant: {found.value:+.3f}"
    if found.low is None:
        return f"{sentence} (no interval: {found.reason})."
    return (
        f"{sentence} (95 % interval {found.low:+.3f} to {found.high:+.3f}, paired bootstrap over "
        f"{_count(found.patients, 'patient')})."
    )


def _about_intervals(evaluation: Evaluation) -> str:
    known = [interval for model in evaluation.models.values() for interval in model.intervals.values()]
    sentences = []
    if any(interval.low is not None for interval in known):
        sentences.append("In brackets: 95 % intervals, bootstrap over patients.")
    # A figure that does not exist is a dash, which needs no reason.
    reasons = [interval.reason for interval in known if interval.value is not None and interval.reason]
    if reasons:
        sentences.append(f"No interval: {'; '.join(dict.fromkeys(reasons))}.")
    return " ".join(sentences)


def _markdown_table(header: list[str], rows: list[list[str]]) -> str:
    return tabulate(rows, header, tablefmt="pipe", disable_numparse=True, colalign=_alignment(header))


def _alignment(header: list[str]) -> list[str]:
    return ["left"] + ["right"] * (len(header) - 1)


def _number(value: float | None) -> str:
    return DASH if value is None else f"{value:.3f}"


def _brackets(found: Interval | None) -> str:
    return "" if found is None or found.low is None else f" [{found.low:.3f}, {found.high:.3f}]"


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"
