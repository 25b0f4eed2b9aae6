"""Compares box heads at equal budget: `python -m benchmarks.heads [--seeds 3] [--epochs 8] [OVERRIDE ...]`.

Trains the box baseline with each head and each seed on the same records, everything trainable and augmented,
each for all of its epochs. Prints the mean IoU on the test split, whose patients no training saw, and how far
it is from the first head's: over all seeds, with a 95 % interval from a paired bootstrap over patients,
where there are enough of them.

The overrides are Hydra's, such as `dataset=directory dataset.path=/data/export`. `--vary` compares something
else than heads, such as `--vary phases.baseline_box.box_loss=diou,iou,giou,ciou`.
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
from brain_tumor.config.compose import compose
from brain_tumor.evaluation.intervals import difference, interval
from brain_tumor.ingest.ingest import ingest
from brain_tumor.runtime.step import step

METRIC = "mean_iou"


def budget(epochs: int) -> list[str]:
    """What all trainings share: the quick profile's images, and a ResNet50, which halves the time."""
    phase = {
        "trainable_fraction": 1.0,
        "augment": "true",
        "epochs": epochs,
        "early_stopping_patience": epochs,
        "reduce_rate_patience": epochs,
    }
    return ["model=resnet50", *(f"phases.baseline_box.{key}={value}" for key, value in phase.items())]


def measure(
    folder: Path, shared: list[str], variants: dict[str, list[str]], seeds: int
) -> tuple[pd.DataFrame, dict[str, float], str]:
    """Trains every variant with every seed and lets it answer.

    Args:
        folder: An empty folder.
        shared: The overrides of all trainings.
        variants: Each variant's own ones, by its name.
        seeds: How many seeds.

    Returns:
        The predictions table with the column `seed`, a variant's seconds a training, and the data's line.
    """
    # Behind step(), which sets TensorFlow up.
    from brain_tumor.evaluation.predict import predict
    from brain_tumor.records.build import build_tfrecords
    from brain_tumor.training.train import train

    configs = compose(shared).steps()
    dataset = ingest(configs.dataset, folder / "dataset").dataset
    records = build_tfrecords(configs.records, dataset, folder / "records")
    tables, seconds = [], dict.fromkeys(variants, 0.0)
    for seed in range(seeds):
        for name, own in variants.items():
            config = compose([*shared, *own, f"training.seed={seed}"]).steps().trainings["baseline_box"]
            started = time.perf_counter()
            train(config, records, folder / f"{name}-{seed}")
            seconds[name] += (time.perf_counter() - started) / seeds
        models = {name: open_model(folder / f"{name}-{seed}") for name in variants}
        table = predict(configs.evaluate, records, models, folder / f"predictions-{seed}").table
        tables.append(table[table["split"] == configs.evaluate.split].assign(seed=seed))
    data = ", ".join(
        f"{name} {split.patients} patients, {split.images} images"
        for name, split in records.manifest.splits.items()
    )
    return pd.concat(tables, ignore_index=True), seconds, data


def with_spread(found: Interval, sign: str = "") -> str:
    """A figure with its interval, or with the reason why there is none."""
    if found.low is None:
        return f"{found.value:{sign}.3f}, cannot tell: {found.reason}"
    return f"{found.value:{sign}.3f} ({found.low:{sign}.3f} to {found.high:{sign}.3f})"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--vary", default="model.box_head=pooled,spatial", metavar="KEY=A,B")
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE")
    arguments = parser.parse_args()
    key, values = arguments.vary.split("=")
    variants = {value: [f"{key}={value}"] for value in values.split(",")}
    shared = [*budget(arguments.epochs), *arguments.overrides]
    with step(), tempfile.TemporaryDirectory() as folder:
        table, seconds, data = measure(Path(folder), shared, variants, arguments.seeds)
        judge = compose(shared).steps().evaluate
    first = next(iter(variants))
    rows = []
    for name in [*variants, "constant"]:
        each = [interval(part, name, METRIC, judge).value for _, part in table.groupby("seed")]
        gain = "" if name == first else with_spread(difference(table, name, first, METRIC, judge), "+")
        shown = f"{seconds[name]:.0f} s" if name in seconds else ""
        rows.append([name, *each, with_spread(interval(table, name, METRIC, judge)), gain, shown])
    seed_names = [f"seed {seed}" for seed in range(arguments.seeds)]
    print(data)
    print(f"{arguments.epochs} epochs each; {' '.join(shared)}; {os.cpu_count()} cores")
    print(tabulate(rows, [key, *seed_names, "mean IoU", f"minus {first}", "a training"], floatfmt=".3f"))


if __name__ == "__main__":
    main()
