"""Decides from two models' predictions for the same images whether one becomes the champion.

It is a non-inferiority test by a paired bootstrap.
"""

from dataclasses import dataclass, field

import pandas as pd

from brain_tumor.artifacts.evaluation import Interval
from brain_tumor.config import EvaluateConfig
from brain_tumor.config.fields import FINAL
from brain_tumor.evaluation.intervals import difference
from brain_tumor.evaluation.thresholds import find_thresholds, with_decisions
from brain_tumor.runtime.registry import CHALLENGER, CHAMPION

# The tested figures: for labels, for box positions, and for both including false positives.
FIGURES = ("macro_f1", "mean_iou", "box_ap50")


@dataclass(frozen=True)
class Decision:
    """The gate's decision.

    Attributes:
        alias: `champion` or `challenger`.
        why: The reason, a sentence.
        opponent: What the model was compared with, or an empty string.
        margin: The non-inferiority margin: the largest acceptable decrease of a figure.
        differences: The model's figures minus the opponent's, on the same images.
    """

    alias: str
    why: str
    opponent: str = ""
    margin: float = 0.0
    differences: dict[str, Interval] = field(default_factory=dict)


def decide(table: pd.DataFrame, model: str, opponent: str, margin: float, config: EvaluateConfig) -> Decision:
    """Tests whether the final model is not inferior to another on the same images.

    It becomes the champion if the 95 % interval of each figure's difference lies above minus the margin.

    Args:
        table: The predictions table with both models: the evaluated split, and valid for their thresholds.
        model: The other model's name in the table.
        opponent: The other model's name in reports.
        margin: See `Decision`.
        config: Split, threshold, number of resamples and their seed.

    Raises:
        InputError: The two models were not evaluated on the same patients.
    """
    labels = list(table["label"].unique())
    thresholds = {str(name): find_thresholds(rows, labels, config) for name, rows in table.groupby("model")}
    rows = with_decisions(table[table["split"] == config.split], thresholds)
    differences = {figure: difference(rows, FINAL, model, figure, config) for figure in FIGURES}
    unknown = [interval for interval in differences.values() if interval.low is None]
    failed = [name for name, interval in differences.items() if not _above_margin(interval, margin)]
    if unknown:
        why = f"Whether it is as good as {opponent} is unknown ({unknown[0].reason})."
    elif failed:
        why = f"It may be worse than {opponent} in {', '.join(failed)}."
    elif margin:
        why = f"It is not worse than {opponent} by more than {margin:g} in any of {', '.join(differences)}."
    else:
        why = f"It is better than {opponent} in all of {', '.join(differences)}."
    return Decision(CHALLENGER if failed else CHAMPION, why, opponent, margin, differences)


def _above_margin(interval: Interval, margin: float) -> bool:
    return interval.low is not None and interval.low > -margin
