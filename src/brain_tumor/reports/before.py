"""The comparison with the previous run that is printed at the end of a run."""

from pathlib import Path

from brain_tumor.comparison.history import previous_record
from brain_tumor.runtime.errors import InputError


def print_before(runs: Path, evaluation: Path) -> None:
    """Prints how the main figures differ from the previous run's, if there is one.

    Args:
        runs: The folder of the runs.
        evaluation: This run's evaluation artifact.
    """
    try:
        records = previous_record(runs, evaluation)
        if records is None:
            return
        # Imported late: scikit-learn's import takes a second.
        from brain_tumor.comparison.pairs import compare_pair
        from brain_tumor.comparison.runs import open_recorded
        from brain_tumor.reports.comparison_tables import MAIN, before_line

        before, this = (open_recorded(runs, record) for record in records)
        print(before_line(compare_pair(before, this, MAIN)))
    except InputError as error:  # a damaged record of another run must not fail this one
        print(f"Before: not compared. {error}")
