"""Comparison of two runs on the same test images: each figure, its difference with an interval, a verdict."""

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

Verdict = Literal["better", "worse", "cannot tell", ""]

# The two models' names in the joined table.
FIRST, OTHER = "first", "other"
RESAMPLES = 1000
# Figures of which lower is better.
ERRORS = ("coordinate_mse", "coordinate_mae")
# The figure over all labels that is the mean of a label's figure.
MEAN_OF = {name: f"macro_{name}" for name in ("precision", "recall", "f1", "roc_auc", "average_precision")}
# The columns that identify a row's image; the joined table has the first run's values.
IDENTITY = ["split", "source_id", "filename", "patient_id", "slice", "width", "height"]


@dataclass(frozen=True)
class Row:
    """A figure of two runs.

    Attributes:
        part: A label, or `ALL`.
        figure: Its name, see `overall_figures` and `label_figures` of `brain_tumor.evaluation.figures`.
        first: Its value in the first run.
        other: Its value in the other run.
        difference: The other's minus the first's, with its interval.
        verdict: Whether the other run is better; empty if there is no difference.
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
        rows: Every figure that either run has and that can have an interval.
        table: The predictions for the images that both were evaluated on, `model` being `FIRST` or `OTHER`;
            None if there are none.
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
    # The table's column `predicted` applies each run's own thresholds.
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
        rows += [_judge(part, bootstrap, name, figures) for name in names]
    return Pair(first, other, about, rows, table, labels)


def _judge(part: str, bootstrap: Bootstrap, name: str, figures: list[Figures]) -> Row:
    first, other = (own[name] for own in figures)
    metric = MEAN_OF.get(name, name)
    if first is None or other is None:
        found = Interval(value=None, reason="one of the runs does not have it")
    else:
        found = bootstrap.difference(OTHER, FIRST, metric)
    return Row(part, name, first, other, found, verdict(name, found))


def verdict(figure: str, found: Interval) -> Verdict:
    """The verdict on a difference: `cannot tell` if its interval contains 0."""
    if found.value is None:
        return ""
    if found.low is None or found.high is None or found.low <= 0 <= found.high:
        return "cannot tell"
    return "better" if (found.low > 0) != (figure in ERRORS) else "worse"


def join(first: ComparedRun, other: ComparedRun) -> tuple[pd.DataFrame | None, list[str], str]:
    """Joins the predictions of two runs' final models for the images that both were evaluated on.

    Images are matched by the sha256 in the dataset or records artifacts, otherwise by file name. Images whose
    ground truth differs between the runs are left out.

    Returns:
        The rows, see `Pair.table`; the labels that both have; and a description, see `Pair.about`.
    """
    labels = _common_labels(first, other)
    gone = [run.name for run in (first, other) if run.predictions is None]
    if gone:
        of = " and ".join(gone)
        return (
            None,
            labels,
            (
                f"The predictions of {of} are not available, so figures are shown side by side without a "
                "verdict: whether both used the same images is unknown."
            ),
        )
    sides = [_answers(run) for run in (first, other)]
    sums = [_checksums(run) for run in (first, other)]
    by = "checksum" if sums[0] is not None and sums[1] is not None else "name"
    a, b = (
        _keyed(side, own if by == "checksum" else None, labels) for side, own in zip(sides, sums, strict=True)
    )
    counts = [side["source_id"].nunique() for side in (a, b)]
    both = a.merge(b, on=["key", "label"], suffixes=("", "_other"), validate="one_to_one")
    other_truth = _other_truth(both)
    left_out = set(both.loc[other_truth, "key"])
    both = both[~both["key"].isin(left_out)]
    common = both["source_id"].nunique()
    about = _about(first, other, counts, common, len(left_out), by)
    if not common:
        return None, labels, about
    names = [name for name in a if name not in ("key", "label", *IDENTITY)]
    own = both[["label", *IDENTITY, *names]].assign(model=FIRST)
    answers = both[[f"{name}_other" for name in names]].set_axis(names, axis="columns")
    others = both[["label", *IDENTITY]].join(answers).assign(model=OTHER)
    table = pd.concat([own, others], ignore_index=True)
    thresholds = {FIRST: _thresholds(first, labels), OTHER: _thresholds(other, labels)}
    return with_decisions(table, thresholds), labels, about


def _thresholds(run: ComparedRun, labels: list[str]) -> Thresholds:
    """The thresholds of the run's final model."""
    final = run.evaluation.models.get(FINAL) if run.evaluation else None
    return final.thresholds if final else dict.fromkeys(labels, DEFAULT_THRESHOLD)


def _common_labels(first: ComparedRun, other: ComparedRun) -> list[str]:
    known = [run.predictions.manifest.labels for run in (first, other) if run.predictions]
    return [label for label in known[0] if all(label in each for each in known)] if known else []


def _answers(run: ComparedRun) -> pd.DataFrame:
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
    return sums if _answers(run)["source_id"].isin(sums.index).all() else None


def _keyed(answers: pd.DataFrame, sums: pd.Series | None, labels: list[str]) -> pd.DataFrame:
    """Adds the key that identifies the image in both runs; of identical images the first is kept."""
    key = answers["filename"] if sums is None else answers["source_id"].map(sums)
    rows = answers.assign(key=key)[answers["label"].isin(labels)]
    return rows.drop_duplicates(["key", "label"])


def _other_truth(both: pd.DataFrame) -> pd.Series:
    """Which rows have different true boxes in the two runs, or a true box in only one of them."""
    boxes, others = (both[[f"{name}{end}" for name in TRUE_BOX]].to_numpy(float) for end in ("", "_other"))
    same = np.isclose(boxes, others, atol=1e-3, equal_nan=True).all(axis=1)
    return ~pd.Series(same, both.index) | (both["present"] != both["present_other"])


def _about(
    first: ComparedRun, other: ComparedRun, counts: list[int], common: int, left_out: int, by: str
) -> str:
    sentences = []
    if not common:
        sentences.append(
            f"{first.name} ({counts[0]:,}) and {other.name} ({counts[1]:,}) have no test image in common, by "
            f"{by}{' and truth' if left_out else ''}: figures are shown side by side without a verdict."
        )
    elif counts == [common, common]:
        sentences.append(f"Both runs were evaluated on the same {common:,} images (by {by}).")
    else:
        sentences.append(
            f"{common:,} images (by {by}) are in both the {counts[0]:,} that {first.name} was evaluated on "
            f"and the {counts[1]:,} of {other.name}; all figures here are over these only."
        )
    if left_out:
        images = "common image has" if left_out == 1 else "common images have"
        sentences.append(f"{left_out:,} {images} different true boxes in the two runs: left out.")
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
        # The final model's figures: no prefix, or `final/LABEL/`, see `Evaluation.metrics`.
        *above, figure = name.split("/")
        if above and (len(above) == 1 or above[0] != FINAL):
            continue
        part = above[1] if above else ALL
        if MEAN_OF.get(figure, figure) not in FIGURES:
            continue
        if not only or (part == ALL and figure in only):
            values = first.figures.get(name), other.figures.get(name)
            nothing = Interval(value=None, reason="not known to be on the same images")
            rows.append(Row(part, figure, *values, nothing, ""))
    return rows


def disagreements(pair: Pair, count: int) -> pd.DataFrame:
    """Finds the images on which two runs differ most, each with the label on which they differ.

    The difference on a label is that of its probability or, if the label is present, that of its box's IoU,
    whichever is larger.

    Returns:
        The `FIRST` rows of these images, largest difference first, with a column `difference`, and the
        columns of the `OTHER` rows with the suffix `_other`.
    """
    assert pair.table is not None, "there are common images"
    rows = pair.table[pair.table["model"] == FIRST].reset_index(drop=True)
    others = pair.table[pair.table["model"] == OTHER].reset_index(drop=True)
    both = rows.join(others.add_suffix("_other"))
    probability = (both["probability"] - both["probability_other"]).abs()
    overlap = (both["iou"] - both["iou_other"]).abs()
    both["difference"] = np.fmax(probability.fillna(0), overlap.fillna(0))
    ranked = both.sort_values(["difference", "source_id", "label"], ascending=[False, True, True])
    return ranked.drop_duplicates("source_id").head(count).reset_index(drop=True)
