"""An evaluation to read: tables for the terminal and for pages, and sentences about them."""

from tabulate import tabulate

from brain_tumor.artifacts.evaluation import ALL, Evaluation, Figures, Interval
from brain_tumor.config.fields import DEFAULT_THRESHOLD, FINAL, TUNED

DASH = "\u2013"  # stands for a figure that a model cannot have
# Figures are called everywhere as they are in `brain_tumor.artifacts.figures`.
SUMMARY_COLUMNS = ("macro_f1", "mean_iou", "recall_at_50", "box_ap50")
REPORT_COLUMNS = (*SUMMARY_COLUMNS, "box_ap", "recall_at_75", "froc_score", "macro_roc_auc")
LABEL_COLUMNS = (
    *("precision", "recall", "f1", "roc_auc", "average_precision", "sens_at_90_spec", "calibration_error"),
    *("mean_iou", "recall_at_50", "box_ap50", "box_ap", "froc_score"),
)
TERMINAL_LABEL_COLUMNS = (
    *("precision", "recall", "f1", "roc_auc", "mean_iou", "recall_at_50", "box_ap50", "box_ap"),
)
ABOUT_BOXES = (
    "mean_iou and recall_at_50 say how well the boxes of labels lie that are known to be there: they ignore "
    "the labels' probability, and no false box costs them anything. box_ap50, box_ap and froc_score count "
    "false boxes."
)


def summary_rows(
    evaluation: Evaluation, columns: tuple[str, ...] = SUMMARY_COLUMNS, intervals: bool = False
) -> tuple[list[str], list[list[str]]]:
    """The header and the rows of a table with the models below each other.

    Args:
        evaluation: What was found of them.
        columns: The figures' names.
        intervals: Whether a figure is followed by its interval, where it has one.
    """
    rows = []
    for model in evaluation.models.values():
        known = model.intervals if intervals else {}
        rows.append([model.title, *_cells(model.figures, columns, known)])
    return ["model", *columns], rows


def summary_table(evaluation: Evaluation, notes: dict[str, dict[str, str]] | None = None) -> str:
    """The models' main figures as a plain-text table for the terminal.

    Args:
        evaluation: What was found of them.
        notes: Further columns: by title, a text for each model's name.
    """
    header, rows = summary_rows(evaluation)
    for title, texts in (notes or {}).items():
        header.append(title)
        for row, model in zip(rows, evaluation.models, strict=True):
            row.append(texts[model])
    return _table(header, rows, "simple", len(notes or {}))


def label_rows(
    evaluation: Evaluation, columns: tuple[str, ...] = LABEL_COLUMNS, intervals: bool = False
) -> tuple[list[str], list[list[str]]]:
    """The header and the rows of a table with the final model's labels below each other, if it is there.

    Args:
        evaluation: What was found of it.
        columns: The figures' names.
        intervals: Whether a figure is followed by its interval, where it has one.
    """
    final = evaluation.models.get(FINAL)
    rows = []
    for label, figures in final.labels.items() if final else ():
        known = final.label_intervals.get(label, {}) if final and intervals else {}
        rows.append([label, *_cells(figures, columns, known)])
    return ["label, final model", *columns], rows


def label_table(evaluation: Evaluation) -> str:
    """The final model's figures of each label as a plain-text table for the terminal, with what it means."""
    header, rows = label_rows(evaluation, TERMINAL_LABEL_COLUMNS)
    table = _table(header, rows, "simple")
    return "\n\n".join(part for part in (table, about_labels(evaluation)) if part)


def about_labels(evaluation: Evaluation) -> str:
    """Which labels have no figures, in a sentence; an empty text if all have."""
    absent = evaluation.absent_labels
    if not absent:
        return ""
    verb, pronoun = ("is", "it has") if len(absent) == 1 else ("are", "they have")
    return (
        f"{', '.join(absent)} {verb} in no image of the split {evaluation.split}: {pronoun} no figures, and "
        "the means over labels leave that out."
    )


def counts_sentence(evaluation: Evaluation) -> str:
    """What was judged."""
    counts = [_count(evaluation.images, "image"), _count(evaluation.boxes, "true box", "true boxes")]
    if evaluation.patients is None:
        return f"Split {evaluation.split}: {', '.join(counts)}; patients are unknown."
    return f"Split {evaluation.split}: {', '.join([_count(evaluation.patients, 'patient'), *counts])}."


def threshold_sentence(evaluation: Evaluation) -> str:
    """From which probability the final model's labels count as predicted."""
    if evaluation.threshold != TUNED:
        return f"A label counts as predicted from a probability of {evaluation.threshold:g}."
    final = evaluation.models.get(FINAL)
    own = [f"{label} {value:.3f}" for label, value in (final.thresholds if final else {}).items()]
    return (
        "A label counts as predicted from the probability at which its F1 on valid is highest, or from "
        f"{DEFAULT_THRESHOLD} where that is no better for patients it was not tuned on"
        f"{' (final model: ' + ', '.join(own) + ')' if own else ''}."
    )


def difference_rows(evaluation: Evaluation, labels: list[str]) -> tuple[list[str], list[list[str]]]:
    """The header and the rows of a table of the final model's figures minus the others', with intervals.

    Args:
        evaluation: What was found of them.
        labels: The labels that get a row for each other model; `ALL` is one.
    """
    rows = []
    for name, by_label in evaluation.differences.items():
        for label in labels:
            found = [by_label[label][figure] for figure in SUMMARY_COLUMNS]
            title = evaluation.models[name].short_title
            rows.append([title, label, *(number(each.value, "+") + brackets(each, "+") for each in found)])
    return ["final, minus", "label", *SUMMARY_COLUMNS], rows


def difference_table(evaluation: Evaluation) -> str:
    """The differences over all labels as a plain-text table for the terminal, with what it means."""
    header, rows = difference_rows(evaluation, [ALL])
    return f"{_table(header, rows, 'simple')}\n\n{about_differences(evaluation)}"


def about_differences(evaluation: Evaluation) -> str:
    """How sure the differences are, in a sentence or two."""
    known = [found for by_label in evaluation.differences.values() for found in by_label[ALL].values()]
    sentences = []
    if any(found.low is not None for found in known):
        sentences.append(
            f"In brackets: 95 % intervals, paired bootstrap over {_units(evaluation)}. "
            "A difference whose interval holds 0 may be chance."
        )
    return " ".join(sentences + _reasons(known))


def about_intervals(evaluation: Evaluation) -> str:
    """What the intervals are, or why there are none, in a sentence or two."""
    known = [interval for model in evaluation.models.values() for interval in model.intervals.values()]
    sentences = []
    if any(interval.low is not None for interval in known):
        sentences.append(f"In brackets: 95 % intervals, bootstrap over {_units(evaluation)}.")
    return " ".join(sentences + _reasons(known))


def _units(evaluation: Evaluation) -> str:
    return "images, since patients are unknown" if evaluation.patients is None else "patients"


def _reasons(known: list[Interval]) -> list[str]:
    """A sentence that says why there are no intervals, if some lack; a dash needs no reason."""
    reasons = [interval.reason for interval in known if interval.value is not None and interval.reason]
    return [f"No interval: {'; '.join(dict.fromkeys(reasons))}."] if reasons else []


def markdown_table(header: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown, its first column to the left, the others to the right."""
    rows = [[cell.replace("|", "\\|") for cell in row] for row in rows]  # a label may have one in its name
    return _table(header, rows, "pipe")


def _table(header: list[str], rows: list[list[str]], form: str, notes: int = 0) -> str:
    """A table whose first column and last ones, its notes, are to the left, the others to the right."""
    sides = ["left"] + ["right"] * (len(header) - 1 - notes) + ["left"] * notes
    return tabulate(rows, header, tablefmt=form, disable_numparse=True, colalign=sides)


def _cells(figures: Figures, columns: tuple[str, ...], known: dict[str, Interval]) -> list[str]:
    """A row's figures, each followed by its interval if that is known."""
    return [number(figures[name]) + brackets(known.get(name)) for name in columns]


def number(value: float | None, sign: str = "") -> str:
    """A figure as tables show it."""
    return DASH if value is None else f"{value:{sign}.3f}"


def brackets(found: Interval | None, sign: str = "") -> str:
    """An interval as it follows its figure."""
    return "" if found is None or found.low is None else f" [{found.low:{sign}.3f}, {found.high:{sign}.3f}]"


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"
