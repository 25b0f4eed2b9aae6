"""The report of an evaluation: as JSON, as flat metrics, as a table in the terminal and as Markdown."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from tabulate import tabulate

from brain_tumor.config import EvaluateConfig
from brain_tumor.errors import InputError
from brain_tumor.evaluation.figures import figures
from brain_tumor.evaluation.intervals import METRICS, difference, interval
from brain_tumor.evaluation.table import read_predictions

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


@dataclass(frozen=True)
class Report:
    """What an evaluation says.

    Attributes:
        metrics: Plain JSON: `split`, `threshold`, `patients`, `images`, `boxes` (counts), `models` (a list of
            name and title, in the order of the table), `figures` ({model: {figure: value or null}}),
            `intervals` ({model: {metric: interval}}) and `difference` ({metric: interval}; final minus
            constant).
        markdown: The same to read.
    """

    metrics: dict[str, Any]
    markdown: str


def evaluate_predictions(config: EvaluateConfig, predictions: str | Path) -> Report:
    """Judges the models of a predictions artifact.

    Args:
        config: Split, threshold, number of resamples and their seed.
        predictions: The predictions artifact's folder.

    Raises:
        InputError: There is no whole predictions artifact, or it has no row of the split.
    """
    table, manifest = read_predictions(predictions)
    table = table[table["split"] == config.split]
    if table.empty:
        raise InputError(
            f"{predictions} has no predictions of the split {config.split}; make them with that split."
        )
    metrics = compute_metrics(table, manifest, config.threshold)
    metrics["intervals"] = {
        model: {metric: asdict(interval(table, model, metric, config)) for metric in METRICS}
        for model in metrics["figures"]
    }
    metrics["difference"] = {
        metric: asdict(difference(table, "final", "constant", metric, config)) for metric in METRICS
    }
    return Report(metrics, _markdown(metrics, manifest))


def compute_metrics(table: pd.DataFrame, manifest: dict[str, Any], threshold: float) -> dict[str, Any]:
    """The figures of all models, and what they are about: `Report.metrics` without intervals.

    Args:
        table: The predictions table, of one split.
        manifest: The manifest beside it: `labels` and the models' titles.
        threshold: Probability from which a label counts as predicted.
    """
    models = table["model"].unique().tolist()
    # Every model has a row for each image and label: one model's rows count them all.
    rows = table[table["model"] == models[0]]
    return {
        "split": str(rows["split"].iloc[0]),
        "threshold": threshold,
        "patients": int(rows["patient_id"].nunique()),
        "images": int(rows["source_id"].nunique()),
        "boxes": int(rows["present"].sum()),
        "models": [{"name": model, "title": manifest["models"][model]["title"]} for model in models],
        "figures": {
            model: figures(table[table["model"] == model], manifest["labels"], threshold) for model in models
        },
    }


def scalar_metrics(metrics: dict[str, Any]) -> dict[str, float]:
    """The figures as flat names, `<model>_<figure>`, sorted; those that a model cannot have are left out."""
    flat = {
        f"{model}_{figure}": value
        for model, values in metrics["figures"].items()
        for figure, value in values.items()
        if value is not None and math.isfinite(value)
    }
    return dict(sorted(flat.items()))


def summary_rows(
    metrics: dict[str, Any], columns: dict[str, str] = SUMMARY_COLUMNS, intervals: bool = False
) -> tuple[list[str], list[list[str]]]:
    """The header and the rows of a table with the models below each other.

    Args:
        metrics: From `compute_metrics` or `Report.metrics`.
        columns: The figure's key by column title.
        intervals: Whether a figure is followed by its interval, where it has one.
    """
    rows = []
    for model in metrics["models"]:
        values = metrics["figures"][model["name"]]
        known = metrics["intervals"][model["name"]] if intervals else {}
        cells = [_number(values[figure]) + _brackets(known.get(figure)) for figure in columns.values()]
        rows.append([model["title"], *cells])
    return ["model", *columns], rows


def summary_table(metrics: dict[str, Any], notes: dict[str, dict[str, str]] | None = None) -> str:
    """The models' main figures as a plain-text table for the terminal.

    Args:
        metrics: `Report.metrics`.
        notes: Further columns: by title, a text for each model's name.
    """
    header, rows = summary_rows(metrics)
    alignment = _alignment(header)
    for title, texts in (notes or {}).items():
        header.append(title)
        alignment.append("left")
        for row, model in zip(rows, metrics["models"], strict=True):
            row.append(texts[model["name"]])
    return tabulate(rows, header, tablefmt="simple", disable_numparse=True, colalign=alignment)


def _markdown(metrics: dict[str, Any], manifest: dict[str, Any]) -> str:
    counts = (
        f"Split {metrics['split']}: {_count(metrics['patients'], 'patient')}, "
        f"{_count(metrics['images'], 'image')}, {_count(metrics['boxes'], 'true box', 'true boxes')}. "
        f"A label counts as predicted from a probability of {metrics['threshold']:g}."
    )
    header, rows = summary_rows(metrics, REPORT_COLUMNS, intervals=True)
    parts = ["# Evaluation", f"> {manifest['notice']}" if manifest["notice"] else "", counts]
    parts += [_markdown_table(header, rows), _about_intervals(metrics), describe_difference(metrics)]
    if final := metrics["figures"].get("final"):
        cells = [
            [label, *(_number(final[f"{label}_{figure}"]) for figure in LABEL_COLUMNS.values())]
            for label in manifest["labels"]
        ]
        parts += ["## Labels, final model", _markdown_table(["label", *LABEL_COLUMNS], cells)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _about_intervals(metrics: dict[str, Any]) -> str:
    known = [value for values in metrics["intervals"].values() for value in values.values()]
    sentences = []
    if any(value["low"] is not None for value in known):
        sentences.append("In brackets: 95 % intervals, bootstrap over patients.")
    # A figure that does not exist is a dash, which needs no reason.
    reasons = [value["reason"] for value in known if value["value"] is not None and value["reason"]]
    if reasons:
        sentences.append(f"No interval: {'; '.join(dict.fromkeys(reasons))}.")
    return " ".join(sentences)


def describe_difference(metrics: dict[str, Any]) -> str:
    """A sentence: the difference in mean IoU, final minus constant, with its interval or why there is none.

    Args:
        metrics: `Report.metrics`.
    """
    found = metrics["difference"]["mean_iou"]
    if found["value"] is None:
        return f"No difference in mean IoU, final minus constant: {found['reason']}."
    sentence = f"Difference in mean IoU, final minus constant: {found['value']:+.3f}"
    if found["low"] is None:
        return f"{sentence} (no interval: {found['reason']})."
    return (
        f"{sentence} (95 % interval {found['low']:+.3f} to {found['high']:+.3f}, paired bootstrap over "
        f"{_count(found['patients'], 'patient')})."
    )


def _markdown_table(header: list[str], rows: list[list[str]]) -> str:
    return tabulate(rows, header, tablefmt="pipe", disable_numparse=True, colalign=_alignment(header))


def _alignment(header: list[str]) -> list[str]:
    return ["left"] + ["right"] * (len(header) - 1)


def _number(value: float | None) -> str:
    return DASH if value is None else f"{value:.3f}"


def _brackets(found: dict[str, Any] | None) -> str:
    return "" if found is None or found["low"] is None else f" [{found['low']:.3f}, {found['high']:.3f}]"


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"
