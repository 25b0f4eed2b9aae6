"""Draws the README's picture of a result: `python -m documentation.result RUN`, with a local run's name."""

import argparse
from pathlib import Path

from matplotlib.lines import Line2D

from brain_tumor.artifacts.dataset import open_dataset
from brain_tumor.artifacts.evaluation import read_evaluation
from brain_tumor.artifacts.predictions import open_predictions
from brain_tumor.comparison.history import RUNS, find_record
from brain_tumor.config.fields import FINAL
from brain_tumor.reports.drawing import COLORS, slot_color
from brain_tumor.reports.gallery import choose_cases, gallery_figure
from brain_tumor.runtime.errors import InputError
from brain_tumor.runtime.step import step

PICTURE = Path(__file__).resolve().parent.parent / "docs" / "images" / "result.png"
IMAGES, DPI = 8, 90


def draw_result(runs: Path, run: str, path: Path) -> None:
    """Draws slices of a run's gallery, with true boxes (solid) and predicted boxes (dashed).

    Args:
        runs: The folder of the runs.
        run: The run's name or id.
        path: The PNG to write.

    Raises:
        InputError: The run does not exist, or its artifacts are deleted.
    """
    record = find_record(runs, run)
    if record is None:
        raise InputError(f"There is no run {run} in {runs}; name another one.")
    artifacts = record.artifacts
    evaluation = read_evaluation(artifacts["evaluation"])
    table = open_predictions(artifacts["predictions"]).table
    rows = table[(table["model"] == FINAL) & (table["split"] == evaluation.split)]
    thresholds, labels = evaluation.models[FINAL].thresholds, evaluation.label_names
    cases = choose_cases(rows, thresholds, IMAGES, seed=0)
    chosen = [case.source_id for case in cases]
    figure = gallery_figure(rows, chosen, open_dataset(artifacts["dataset"]), labels, thresholds)
    for axis, case in zip(figure.axes, cases, strict=True):
        axis.set_title(case.kind)
    lines = [Line2D([], [], color=slot_color(COLORS, slot), label=name) for slot, name in enumerate(labels)]
    lines += [
        Line2D([], [], color="black", label="true"),
        Line2D([], [], color="black", ls="--", label="predicted"),
    ]
    figure.legend(handles=lines, loc="outside lower center", ncols=len(lines), frameon=False)
    figure.savefig(path, dpi=DPI)


def main() -> None:
    """The command line."""
    with step():
        parser = argparse.ArgumentParser(description="Draw the README's picture of a result.")
        parser.add_argument("run", help="the run's name or id")
        draw_result(RUNS, parser.parse_args().run, PICTURE)
        print(PICTURE)


if __name__ == "__main__":
    main()
