"""Decides from two models' predictions for the same images whether one becomes the champion."""

from dataclasses import dataclass, field

import pandas as pd

from brain_tumor.artifacts.evaluation import Interval
from brain_tumor.config import EvaluateConfig
from brain_tumor.config.fields import FINAL
from brain_tumor.evaluation.intervals import difference
from brain_tumor.evaluation.thresholds import find_thresholds, with_decisions
from brain_tumor.runtime.registry import CHALLENGER, CHAMPION

# The figures that decide: labels, box positions, and both including false alarms.
FIGURES = ("macro_f1", "mean_iou", "box_ap50")


@dataclass(frozen=True)
class Decision:
    """What the gate decided.

    Attributes:
        alias: `champion` or `challenger`.
        why: The reason, a sentence.
        opponent: What the model was compared with, or an empty string.
        margin: The largest decrease of a figure that still counts as not worse.
        differences: The model's figures minus the opponent's, on the same images.
    """

    alias: str
    why: str
    opponent: str = ""
    margin: float = 0.0
    differences: dict[str, Interval] = field(default_factory=dict)


def decide(table: pd.DataFrame, model: str, opponent: str, margin: float, config: EvaluateConfig) -> Decision:
    """Compares the final model with another on the same images, by a paired bootstrap.

    It becomes the champion if the 95 % interval of each figure's difference lies above minus the margin.

    Args:
        table: The predictions table with both models: the evaluated split, and valid for their thresholds.
        model: The other model's name in the table.
        opponent: The other model's name in reports.
        margin: See `Decision`.
        config: Split, threshold, number of resamples and their seed.
    """
    labels = list(table["label"].unique())
    thresholds = {str(name): find_thresholds(rows, labels, config) for name, rows in table.groupby("model")}
    judged = with_decisions(table[table["split"] == config.split], thresholds)
    found = {figure: difference(judged, FINAL, model, figure, config) for figure in FIGURES}
    unknown = {name: interval for name, interval in found.items() if interval.low is None}
    lost = [name for name, interval in found.items() if not _holds(interval, margin)]
    if unknown:
        reason = next(iter(unknown.values())).reason
        why = f"Whether it is as good as {opponent} is unknown ({reason})."
    elif lost:
        why = f"It may be worse than {opponent} in {', '.join(lost)}."
    elif margin:
        why = f"It is not worse than {opponent} by more than {margin:g} in any of {', '.join(found)}."
    else:
        why = f"It is better than {opponent} in all of {', '.join(found)}."
    return Decision(CHALLENGER if lost else CHAMPION, why, opponent, margin, found)


def _holds(interval: Interval, margin: float) -> bool:
    return interval.low is not None and interval.low > -margin
