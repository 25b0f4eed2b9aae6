"""The comparison of runs: differences of their inputs and results."""

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
    """A comparison of runs.

    Attributes:
        runs: The runs. All others are compared with the first.
        pairs: The comparison of each other run with the first.
        settings: The settings that differ.
        data: The properties of the datasets that differ.
        code: The image tags and package versions that differ.
        artifacts: For each artifact, whether that of each other run is the same as the first run's.
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
