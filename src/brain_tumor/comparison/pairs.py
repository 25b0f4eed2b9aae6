"""Compares two runs on the same test images: figures, paired differences with intervals, and verdicts."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from brain_tumor.artifacts.dataset import IMAGES_TABLE
from brain_tumor.artifacts.evaluation import ALL, Figures, Interval
from brain_tumor.artifacts.predictions import TRUE_BOX
from brain_tumor.comparison.runs import ComparedRun
from brain_tumor.config import EvaluateConfig
from brain_tumor.config.fields import DEFAULT_THRESHOLD, FINAL
from brain_tumor.evaluation.figures import label_figures, overall_figures
from brain_tumor.evaluation.intervals import FIGURES, Bootstrap
from brain_tumor.evaluation.thresholds import Thresholds, with_decisions

Verdict = Literal["better", "worse", "inconclusive", ""]

# The two models' names in the joined table.
FIRST, OTHER = "first", "other"
RESAMPLES = 1000
# Figures for which lower is better.
ERRORS = ("coordinate_mse", "coordinate_mae")
# The figures over all labels that are means of a label's figure, by the label's figure.
MEAN_OF = {name: f"macro_{name}" for name in ("precision", "recall", "f1", "roc_auc", "average_precision")}
# The columns that describe a row's image; the joined table has the first run's values.
IDENTITY = ["split", "source_id", "filename", "patient_id", "slice", "width", "height"]


@dataclass(frozen=True)
class Row:
    """A figure of two runs.

    Attributes:
        part: A label, or `ALL`.
        figure: Its name, see `overall_figures` and `label_figures` of `brain_tumor.evaluation.figures`.
        first: Its value in the first run.
        other: Its value in the other run.
        difference: The other run's value minus the first run's, with its interval.
        verdict: Whether the other run is better; empty if the difference is unknown.
    """

    part: str
    figure: str
    first: float | None
    other: float | None
    difference: Interval
    verdict: Verdict


@dataclass(frozen=True)
class Pair:
    """A run compared with the first one.

    Attributes:
        first: The first run.
        other: The run.
        about: A description of the images that both are compared on.
        rows: The figures that either run has and that can have an interval.
        table: The predictions for the common images, with `FIRST` or `OTHER` as `model`; None if there are
            none.
        labels: The labels that both have, in slot order.
    """

    first: ComparedRun
    other: ComparedRun
    about: str
    rows: list[Row]
    table: pd.DataFrame | None
    labels: list[str]


def compare_pair(first: ComparedRun, other: ComparedRun, only: tuple[str, ...] = ()) -> Pair:
    """Compares a run with the first one.

    Args:
        first: The run to compare with.
        other: The run.
        only: Figures over all labels to compare; by default all of them, and those of each label.
    """
    table, labels, about = join(first, other)
    if table is None:
        return Pair(first, other, about, _rows_of_figures(first, other, only), None, labels)
    # Each run's own thresholds are used: they are applied in the table's column `predicted`.
    config = EvaluateConfig(bootstrap_samples=RESAMPLES)
    parts = {ALL: table} if only else {ALL: table} | {name: table[table["label"] == name] for name in labels}
    by_label = {
        model: label_figures(table[table["model"] == model], labels, config.threshold)
        for model in (FIRST, OTHER)
    }
    rows = []
    for part, own in parts.items():
        figures = [
            overall_figures(table[table["model"] == model], by_label[model], config.threshold)
            if part == ALL
            else by_label[model][part]
            for model in (FIRST, OTHER)
        ]
        bootstrap = Bootstrap(own, config)
        names = only or [name for name in figures[0] if MEAN_OF.get(name, name) in FIGURES]
        rows += [_compare_figure(part, bootstrap, name, figures) for name in names]
    return Pair(first, other, about, rows, table, labels)


def _compare_figure(part: str, bootstrap: Bootstrap, name: str, figures: list[Figures]) -> Row:
    first, other = (own[name] for own in figures)
    metric = MEAN_OF.get(name, name)
    if first is None or other is None:
        difference = Interval(value=None, reason="one of the runs does not have it")
    else:
        difference = bootstrap.difference(OTHER, FIRST, metric)
    return Row(part, name, first, other, difference, verdict(name, difference))


def verdict(figure: str, difference: Interval) -> Verdict:
    """The verdict on a difference: `inconclusive` if it has no interval or its interval contains 0."""
    if difference.value is None:
        return ""
    if difference.low is None or difference.high is None or difference.low <= 0 <= difference.high:
        return "inconclusive"
    return "better" if (difference.low > 0) != (figure in ERRORS) else "worse"


def join(first: ComparedRun, other: ComparedRun) -> tuple[pd.DataFrame | None, list[str], str]:
    """Joins the predictions of two runs' final models for the images that both were evaluated on.

    Images are matched by the sha256 in the dataset or records artifacts, otherwise by file name. Images with
    different true boxes in the two runs are excluded.

    Returns:
        The rows, see `Pair.table`; the labels that both have; and a description, see `Pair.about`.
    """
    labels = _common_labels(first, other)
    missing = " and ".join(run.name for run in (first, other) if run.predictions is None)
    if missing:
        about = (
            f"The predictions of {missing} are not available, so figures are shown side by side without a "
            "verdict: whether both used the same images is unknown."
        )
        return None, labels, about
    sides = [_predictions(run) for run in (first, other)]
    sums = [_checksums(run) for run in (first, other)]
    by = "checksum" if sums[0] is not None and sums[1] is not None else "name"
    a, b = (
        _keyed(side, own if by == "checksum" else None, labels) for side, own in zip(sides, sums, strict=True)
    )
    counts = [side["source_id"].nunique() for side in (a, b)]
    both = a.merge(b, on=["key", "label"], suffixes=("", "_other"), validate="one_to_one")
    excluded = set(both.loc[_different_truth(both), "key"])
    both = both[~both["key"].isin(excluded)]
    common = both["source_id"].nunique()
    about = _about(first, other, counts, common, len(excluded), by)
    if not common:
        return None, labels, about
    names = [name for name in a if name not in ("key", "label", *IDENTITY)]
    first_rows = both[["label", *IDENTITY, *names]].assign(model=FIRST)
    other_values = both[[f"{name}_other" for name in names]].set_axis(names, axis="columns")
    other_rows = both[["label", *IDENTITY]].join(other_values).assign(model=OTHER)
    table = pd.concat([first_rows, other_rows], ignore_index=True)
    thresholds = {FIRST: _thresholds(first, labels), OTHER: _thresholds(other, labels)}
    return with_decisions(table, thresholds), labels, about


def _thresholds(run: ComparedRun, labels: list[str]) -> Thresholds:
    """The thresholds of the run's final model."""
    final = run.evaluation.models.get(FINAL) if run.evaluation else None
    return final.thresholds if final else dict.fromkeys(labels, DEFAULT_THRESHOLD)


def _common_labels(first: ComparedRun, other: ComparedRun) -> list[str]:
    known = [run.predictions.manifest.labels for run in (first, other) if run.predictions]
    return [label for label in known[0] if all(label in each for each in known)] if known else []


def _predictions(run: ComparedRun) -> pd.DataFrame:
    """The final model's rows of the evaluated split."""
    assert run.predictions, "checked by the caller"
    table: pd.DataFrame = run.predictions.table
    split = run.predictions.manifest.config.get("split", EvaluateConfig().split)
    own: pd.DataFrame = table[(table["model"] == FINAL) & (table["split"] == split)]
    return own.drop(columns="model")


def _checksums(run: ComparedRun) -> pd.Series | None:
    """The sha256 of each image of the evaluated split, by source_id; None if any is unknown."""
    assert run.predictions, "checked by the caller"
    split = run.predictions.manifest.config.get("split", EvaluateConfig().split)
    if run.records:
        images = run.records.images(split)
    elif run.dataset and (run.dataset.path / IMAGES_TABLE).exists():
        images = run.dataset.images
    else:
        return None
    sums = images.set_index("source_id")["sha256"]
    return sums if _predictions(run)["source_id"].isin(sums.index).all() else None


def _keyed(predictions: pd.DataFrame, sums: pd.Series | None, labels: list[str]) -> pd.DataFrame:
    """Adds the key that identifies an image in both runs; of identical images only the first is kept."""
    key = predictions["filename"] if sums is None else predictions["source_id"].map(sums)
    rows = predictions.assign(key=key)[predictions["label"].isin(labels)]
    return rows.drop_duplicates(["key", "label"])


def _different_truth(both: pd.DataFrame) -> pd.Series:
    """Which rows have different true boxes in the two runs, or a true box in only one of them."""
    boxes, others = (both[[f"{name}{end}" for name in TRUE_BOX]].to_numpy(float) for end in ("", "_other"))
    same = np.isclose(boxes, others, atol=1e-3, equal_nan=True).all(axis=1)
    return ~pd.Series(same, both.index) | (both["present"] != both["present_other"])


def _about(
    first: ComparedRun, other: ComparedRun, counts: list[int], common: int, excluded: int, by: str
) -> str:
    sentences = []
    if not common:
        sentences.append(
            f"{first.name} ({counts[0]:,}) and {other.name} ({counts[1]:,}) have no test image in common (by "
            f"{by}{' and true boxes' if excluded else ''}), so figures are shown side by side without a "
            "verdict."
        )
    elif counts == [common, common]:
        sentences.append(f"Both runs were evaluated on the same {common:,} images (by {by}).")
    else:
        sentences.append(
            f"{first.name} was evaluated on {counts[0]:,} images and {other.name} on {counts[1]:,}; figures "
            f"are computed on the {common:,} common ones (by {by})."
        )
    if excluded:
        images = "image was" if excluded == 1 else "images were"
        sentences.append(f"{excluded:,} {images} excluded: the true boxes differ between the two runs.")
    thresholds = [run.evaluation.threshold for run in (first, other) if run.evaluation]
    if len(set(thresholds)) > 1:
        sentences.append(f"Each run's own thresholds are used: {thresholds[0]} and {thresholds[1]}.")
    labels = [run.predictions.manifest.labels for run in (first, other) if run.predictions]
    if len({tuple(sorted(each)) for each in labels}) > 1:
        sentences.append("Only labels that both have are compared.")
    return " ".join(sentences)


def _rows_of_figures(first: ComparedRun, other: ComparedRun, only: tuple[str, ...]) -> list[Row]:
    """The final models' figures from each run's own evaluation."""
    rows = []
    for name in dict.fromkeys((*first.figures, *other.figures)):
        # The final model's figures have no prefix, or the prefix `final/LABEL/`, see `Evaluation.metrics`.
        *above, figure = name.split("/")
        if above and (len(above) == 1 or above[0] != FINAL):
            continue
        part = above[1] if above else ALL
        if MEAN_OF.get(figure, figure) not in FIGURES:
            continue
        if not only or (part == ALL and figure in only):
            values = first.figures.get(name), other.figures.get(name)
            unknown = Interval(value=None, reason="not known to be on the same images")
            rows.append(Row(part, figure, *values, unknown, ""))
    return rows


def disagreements(pair: Pair, count: int) -> pd.DataFrame:
    """Finds the images on which the predictions of two runs differ most, each with the label that differs.

    The difference is the larger of the differences of the probability and, if the label is present, of the
    IoU.

    Args:
        pair: The runs; they must have common images.
        count: The largest number of images.

    Returns:
        The `FIRST` rows of these images, largest difference first, with a column `difference`, and the
        columns of the `OTHER` rows with the suffix `_other`.
    """
    assert pair.table is not None, "there are common images"
    rows = pair.table[pair.table["model"] == FIRST].reset_index(drop=True)
    others = pair.table[pair.table["model"] == OTHER].reset_index(drop=True)
    both = rows.join(others.add_suffix("_other"))
    probability = (both["probability"] - both["probability_other"]).abs()
    iou = (both["iou"] - both["iou_other"]).abs()
    both["difference"] = np.fmax(probability.fillna(0), iou.fillna(0))
    ranked = both.sort_values(["difference", "source_id", "label"], ascending=[False, True, True])
    return ranked.drop_duplicates("source_id").head(count).reset_index(drop=True)
