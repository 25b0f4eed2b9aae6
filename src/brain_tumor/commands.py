"""The commands that are no step of the pipeline: they look at what it made."""

import argparse
from pathlib import Path

from brain_tumor.comparison.history import RUNS


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds each command's parser; its function is the default of the argument `run`."""
    about = "Compares runs: what differed, every figure with a verdict, curves, and slices."
    compare_parser = commands.add_parser("compare", help=about, description=about)
    compare_parser.add_argument(
        "run_names", nargs="+", metavar="RUN", help="a run's name or id, two or more; or `last 2`"
    )
    compare_parser.add_argument(
        "--runs", type=Path, default=RUNS, metavar="PATH", help="the folder of the runs (runs)"
    )
    compare_parser.set_defaults(run=compare_runs)


def compare_runs(run_names: list[str], runs: Path) -> None:
    """Compares runs: prints what differed, and writes a page and a Markdown file to `runs/reports/`.

    Args:
        run_names: Names or ids of two runs or more, or `last` and how many.
        runs: The folder of the runs.

    Raises:
        InputError: There are too few, one is unknown, or its record is damaged.
    """
    from brain_tumor.comparison.compare import compare
    from brain_tumor.reports.comparison_tables import terminal_text

    comparison = compare(runs, run_names)
    # It imports Matplotlib, which a refusal need not wait for.
    from brain_tumor.reports.comparison_report import write_comparison

    page, markdown = write_comparison(runs / "reports", comparison)
    print(f"{terminal_text(comparison)}\n\nPage: {page}\nText: {markdown}")
