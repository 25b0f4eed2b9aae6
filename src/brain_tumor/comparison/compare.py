"""The comparison of runs: differences of their inputs and of their results."""

from dataclasses import dataclass
from pathlib import Path

from brain_tumor.comparison.changes import (
    Change,
    artifact_changes,
    code_changes,
    data_changes,
    settings_changes,
)
from brain_tumor.comparison.pairs import Pair, compare_pair
from brain_tumor.comparison.runs import ComparedRun, open_runs


@dataclass(frozen=True)
class Comparison:
    """Runs side by side.

    Attributes:
        runs: The runs; the others are compared with the first.
        pairs: Each of the others compared with the first.
        settings: The settings that differ.
        data: The facts of the datasets that differ.
        code: The image tags and package versions that differ.
        artifacts: For each artifact, how each of the others' compares with the first run's.
    """

    runs: list[ComparedRun]
    pairs: list[Pair]
    settings: list[Change]
    data: list[Change]
    code: list[Change]
    artifacts: list[Change]


def compare(runs: Path, identifiers: list[str]) -> Comparison:
    """Compares runs.

    Args:
        runs: The folder of the runs.
        identifiers: See `open_runs`.

    Raises:
        InputError: See `open_runs`.
    """
    opened = open_runs(runs, identifiers)
    return Comparison(
        runs=opened,
        pairs=[compare_pair(opened[0], other) for other in opened[1:]],
        settings=settings_changes(opened),
        data=data_changes(opened),
        code=code_changes(opened),
        artifacts=artifact_changes(opened),
    )
