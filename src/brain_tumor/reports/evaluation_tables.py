"""An evaluation as text: tables for the terminal and for pages, with explanations."""

from tabulate import tabulate

from brain_tumor.artifacts.evaluation import ALL, Evaluation, Figures, Interval
from brain_tumor.config.fields import DEFAULT_THRESHOLD, FINAL, TUNED

DASH = "\u2013"  # an undefined figure
# Figures have the names defined in `brain_tumor.artifacts.figures` everywhere.
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
    "mean_iou and recall_at_50 measure the boxes of labels that are present: they ignore the labels' "
    "probability and false boxes. box_ap50, box_ap and froc_score count false boxes."
)


def summary_rows(
    evaluation: Evaluation, columns: tuple[str, ...] = SUMMARY_COLUMNS, intervals: bool = False
) -> tuple[list[str], list[list[str]]]:
    """The header and the rows of a table with one row per model.

    Args:
        evaluation: The evaluation.
        columns: The figures' names.
        intervals: Whether to show intervals after the figures that have one.
    """
    rows = []
    for model in evaluation.models.values():
        known = model.intervals if intervals else {}
        rows.append([model.title, *_cells(model.figures, columns, known)])
    return ["model", *columns], rows


def summary_table(evaluation: Evaluation, notes: dict[str, dict[str, str]] | None = None) -> str:
    """The models' main figures as a plain-text table for the terminal.

    Args:
        evaluation: The evaluation.
        notes: Further columns: by title, a text by model name.
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
    """The header and the rows of a table with one row per label of the final model, if there is one.

    Args:
        evaluation: The evaluation.
        columns: The figures' names.
        intervals: Whether to show intervals after the figures that have one.
    """
    final = evaluation.models.get(FINAL)
    rows = []
    for label, figures in final.labels.items() if final else ():
        known = final.label_intervals.get(label, {}) if final and intervals else {}
        rows.append([label, *_cells(figures, columns, known)])
    return ["label, final model", *columns], rows


def label_table(evaluation: Evaluation) -> str:
    """The final model's figures per label as a plain-text table for the terminal, with explanations."""
    header, rows = label_rows(evaluation, TERMINAL_LABEL_COLUMNS)
    table = _table(header, rows, "simple")
    return "\n\n".join(part for part in (table, about_labels(evaluation)) if part)


def about_labels(evaluation: Evaluation) -> str:
    """A sentence that names the labels without figures; empty if all have figures."""
    absent = evaluation.absent_labels
    if not absent:
        return ""
    verb, has, them = ("is", "it has", "it") if len(absent) == 1 else ("are", "they have", "them")
    return (
        f"{', '.join(absent)} {verb} in no image of the split {evaluation.split}: {has} no figures, and "
        f"means over labels leave {them} out."
    )


def counts_sentence(evaluation: Evaluation) -> str:
    """The number of patients, images and boxes evaluated."""
    counts = [_count(evaluation.images, "image"), _count(evaluation.boxes, "true box", "true boxes")]
    if evaluation.patients is None:
        return f"Split {evaluation.split}: {', '.join(counts)}; patients are unknown."
    return f"Split {evaluation.split}: {', '.join([_count(evaluation.patients, 'patient'), *counts])}."


def threshold_sentence(evaluation: Evaluation) -> str:
    """The thresholds of the final model's labels."""
    if evaluation.threshold != TUNED:
        return f"A label counts as predicted from a probability of {evaluation.threshold:g} on."
    final = evaluation.models.get(FINAL)
    own = [f"{label} {value:.3f}" for label, value in (final.thresholds if final else {}).items()]
    return (
        "Each label's threshold is the probability with the highest F1 on valid, or "
        f"{DEFAULT_THRESHOLD} if that is not better for patients left out of the tuning"
        f"{' (final model: ' + ', '.join(own) + ')' if own else ''}."
    )


def difference_rows(evaluation: Evaluation, labels: list[str]) -> tuple[list[str], list[list[str]]]:
    """The header and the rows of a table of the final model's figures minus the others', with intervals.

    Args:
        evaluation: The evaluation.
        labels: The labels (or `ALL`) to show, one row per other model.
    """
    rows = []
    for name, by_label in evaluation.differences.items():
        for label in labels:
            found = [by_label[label][figure] for figure in SUMMARY_COLUMNS]
            title = evaluation.models[name].short_title
            rows.append([title, label, *(number(each.value, "+") + brackets(each, "+") for each in found)])
    return ["final, minus", "label", *SUMMARY_COLUMNS], rows


def difference_table(evaluation: Evaluation) -> str:
    """The differences over all labels as a plain-text table for the terminal, with explanations."""
    header, rows = difference_rows(evaluation, [ALL])
    return f"{_table(header, rows, 'simple')}\n\n{about_differences(evaluation)}"


def about_differences(evaluation: Evaluation) -> str:
    """Explains the differences' intervals in a sentence or two."""
    known = [found for by_label in evaluation.differences.values() for found in by_label[ALL].values()]
    sentences = []
    if any(found.low is not None for found in known):
        sentences.append(
            f"In brackets: 95 % intervals, paired bootstrap over {_units(evaluation)}. "
            "A difference whose interval contains 0 may be chance."
        )
    return " ".join(sentences + _reasons(known))


def about_intervals(evaluation: Evaluation) -> str:
    """Explains the intervals, or why there are none, in a sentence or two."""
    known = [interval for model in evaluation.models.values() for interval in model.intervals.values()]
    sentences = []
    if any(interval.low is not None for interval in known):
        sentences.append(f"In brackets: 95 % intervals, bootstrap over {_units(evaluation)}.")
    return " ".join(sentences + _reasons(known))


def _units(evaluation: Evaluation) -> str:
    return "images, since patients are unknown" if evaluation.patients is None else "patients"


def _reasons(known: list[Interval]) -> list[str]:
    """A sentence with the reasons for missing intervals; undefined figures need none."""
    reasons = [interval.reason for interval in known if interval.value is not None and interval.reason]
    return [f"No interval: {'; '.join(dict.fromkeys(reasons))}."] if reasons else []


def markdown_table(header: list[str], rows: list[list[str]]) -> str:
    """Formats a Markdown table; the first column is left-aligned, the others right-aligned."""
    rows = [[cell.replace("|", "\\|") for cell in row] for row in rows]  # a label's name may contain one
    return _table(header, rows, "pipe")


def _table(header: list[str], rows: list[list[str]], form: str, notes: int = 0) -> str:
    """Formats a table; the first column and the notes (the last ones) are left-aligned."""
    sides = ["left"] + ["right"] * (len(header) - 1 - notes) + ["left"] * notes
    return tabulate(rows, header, tablefmt=form, disable_numparse=True, colalign=sides)


def _cells(figures: Figures, columns: tuple[str, ...], known: dict[str, Interval]) -> list[str]:
    """A row's figures, each followed by its interval if there is one."""
    return [number(figures[name]) + brackets(known.get(name)) for name in columns]


def number(value: float | None, sign: str = "") -> str:
    """Formats a figure for a table."""
    return DASH if value is None else f"{value:{sign}.3f}"


def brackets(found: Interval | None, sign: str = "") -> str:
    """Formats an interval to follow its figure."""
    return "" if found is None or found.low is None else f" [{found.low:{sign}.3f}, {found.high:{sign}.3f}]"


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"
