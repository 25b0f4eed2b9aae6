"""Measures detection after minutes of training from scratch.

Run it with `python -m benchmarks.detection [--split test] [--seeds 1] [--epochs 15] [OVERRIDE ...]`.

Trains both heads in one training, with the recipe below, and prints the detector's figures and the constant
baseline's, over all labels and per label. Hydra overrides select the data, such as
`dataset=directory dataset.path=/data/export dataset.labels=auto`; the default is the synthetic patients. Make
choices on the split valid, which is the default; use `--split test` for the final result.

`--vary KEY=A,B` trains several variants, such as `--vary model.box_head=pooled,dense`, and prints each one's
mean IoU minus the first one's, with a 95 % interval from a paired bootstrap over patients if there are enough
of them.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import pandas as pd
from tabulate import tabulate

from brain_tumor.artifacts.evaluation import Interval
from brain_tumor.artifacts.model import open_model
from brain_tumor.config import Threshold
from brain_tumor.config.fields import CONSTANT
from brain_tumor.configure import configure
from brain_tumor.evaluation.figures import label_figures, overall_figures
from brain_tumor.evaluation.intervals import difference
from brain_tumor.ingest.ingest import ingest
from brain_tumor.runtime.step import import_tensorflow, step

PHASE = "joint"
RECIPE = {
    "phases": PHASE,
    "model.image_size": 96,
    f"phases.{PHASE}.learning_rate": 1e-3,
    f"phases.{PHASE}.schedule": "cosine",
    f"phases.{PHASE}.weight_decay": 0,
    "evaluate.threshold": 0.5,
}
COLUMNS = ("box_ap50", "box_ap", "mean_iou", "recall_at_50", "macro_roc_auc")


def measure(
    folder: Path, shared: list[str], variants: dict[str, list[str]], seeds: int, split: str
) -> tuple[pd.DataFrame, dict[str, list[float]], str]:
    """Trains every variant with every seed, and predicts.

    Args:
        folder: An empty folder.
        shared: The overrides of all trainings.
        variants: Each variant's own overrides, by its name.
        seeds: The number of seeds.
        split: The split to predict.

    Returns:
        The predictions table with a column `seed`, each variant's seconds by seed, and a line about the data.
    """
    import_tensorflow()
    from brain_tumor.evaluation.predict import predict
    from brain_tumor.records.build import build_tfrecords
    from brain_tumor.training.train import train

    configs = configure([*shared, f"evaluate.split={split}"])
    dataset = ingest(configs.dataset, folder / "dataset").dataset
    records = build_tfrecords(configs.records, dataset, folder / "records")
    tables = []
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for seed in range(seeds):
        for name, own in variants.items():
            config = configure([*shared, *own, f"training.seed={seed}"]).trainings[PHASE]
            started = time.perf_counter()
            train(config, records, folder / f"{name}-{seed}")
            seconds[name].append(time.perf_counter() - started)
        models = {name: open_model(folder / f"{name}-{seed}") for name in variants}
        table = predict(configs.evaluate, records, models, folder / f"predictions-{seed}").table
        tables.append(table[table["split"] == split].assign(seed=seed))
    data = ", ".join(
        f"{name} {'unknown' if split.patients is None else split.patients} patients, {split.images} images"
        for name, split in records.manifest.splits.items()
    )
    return pd.concat(tables, ignore_index=True), seconds, data


def figure_rows(table: pd.DataFrame, name: str, threshold: Threshold) -> list[list[object]]:
    """One row over all labels and one per label, for each seed of a variant."""
    rows: list[list[object]] = []
    for seed, part in table[table["model"] == name].groupby("seed"):
        labels = label_figures(part, list(part["label"].unique()), threshold)
        overall = overall_figures(part, labels, threshold)
        rows.append([name, seed, "all", *(overall[figure] for figure in COLUMNS)])
        if len(labels) > 1:
            for label, own in labels.items():
                named = [own[figure.removeprefix("macro_")] for figure in COLUMNS]
                rows.append([name, seed, label, *named])
    return rows


def with_spread(found: Interval) -> str:
    """Formats a difference with its interval, or the reason why there is none."""
    if found.low is None:
        return f"{found.value:+.3f}, inconclusive: {found.reason}"
    return f"{found.value:+.3f} ({found.low:+.3f} to {found.high:+.3f})"


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--split", default="valid", choices=("valid", "test"))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--vary", default=f"final={PHASE}", metavar="KEY=A,B")
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE")
    arguments = parser.parse_args()
    key, values = arguments.vary.split("=")
    variants = {value: [f"{key}={value}"] for value in values.split(",")}
    recipe = RECIPE | {
        f"phases.{PHASE}.{key}": arguments.epochs for key in ("epochs", "early_stopping_patience")
    }
    shared = [*(f"{key}={value}" for key, value in recipe.items()), *arguments.overrides]
    with step(), tempfile.TemporaryDirectory() as folder:
        table, seconds, data = measure(Path(folder), shared, variants, arguments.seeds, arguments.split)
        judge = configure(shared).evaluate
    print(f"{data}; split {arguments.split}; {os.cpu_count()} cores")
    print(" ".join(shared))
    rows = [row for name in (*variants, CONSTANT) for row in figure_rows(table, name, judge.threshold)]
    print(tabulate(rows, [key, "seed", "label", *COLUMNS], floatfmt=".3f", missingval="-"))
    first = next(iter(variants))
    for name in variants:
        print(f"{name}: {', '.join(f'{each:.0f}' for each in seconds[name])} s of training", end="")
        gain = difference(table, name, first, "mean_iou", judge)
        print("" if name == first else f"; mean IoU minus that of {first}: {with_spread(gain)}")


if __name__ == "__main__":
    main()
