"""Compares the input pipeline with bare tf.data loops: `python -m benchmarks.input_pipeline [IMAGES]`.

Grey JPEGs of 132x139 pixels become batches of 64 at 240 px: read, decoded, letterboxed and cached in the
first pass, then from the cache with the default augmentation. The bare loops do the same work in plain
tf.data, without the pipeline's generality. Both run alternately in one process, and the ratio is the median
over the rounds.
"""

import csv
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from brain_tumor.artifacts.records import Records
from brain_tumor.config import HEADS, AugmentationConfig
from brain_tumor.config.compose import compose
from brain_tumor.ingest.ingest import ingest
from brain_tumor.ingest.sources.synthetic import draw_slice, make_patient
from brain_tumor.records.build import build_tfrecords
from brain_tumor.records.read import load_split, parse_example
from brain_tumor.training.augmentation import augment
from brain_tumor.training.batches import training_batches

WIDTH, HEIGHT, SIZE, BATCH = 132, 139, 240, 64
TURNS = 7


def main() -> None:
    """Prints the table."""
    for name, figure in measure(int(sys.argv[1]) if len(sys.argv) > 1 else 4000):
        print(f"{name:58} {figure}")
    print(f"{'machine':58} {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")


def measure(images: int) -> list[tuple[str, str]]:
    """Measures the two passes; returns names and figures.

    Args:
        images: The number of training images to make.
    """
    with tempfile.TemporaryDirectory() as folder:
        records = make_records(Path(folder), images)
        augmentation = compose(["profile=full"]).training.augmentation
        examples = load_split(records, "train", SIZE)
        bare = bare_examples(records)
        steps = images // BATCH - 1
        rows = _compare(
            f"First pass, {WIDTH}x{HEIGHT} to {SIZE} px",
            # The first pass fills the cache, which must be new and empty.
            lambda: _rate(examples.cache().batch(BATCH), 1, steps),
            lambda: _rate(bare.cache().batch(BATCH), 1, steps),
        )
        # Each round starts a new stream, since an old one would keep filling its buffers while the other is
        # timed. The epoch that fills the cache does not count.
        epoch = images // BATCH
        return rows + _compare(
            "From the cache, augmented",
            lambda: _rate(training_batches(examples, BATCH, HEADS, augmentation, seed=0), epoch, 2 * epoch),
            lambda: _rate(bare_batches(bare, augmentation), epoch, 2 * epoch),
        )


def _compare(title: str, pipeline: Callable[[], float], bare: Callable[[], float]) -> list[tuple[str, str]]:
    """Rows with both rates (medians) and their ratio (median over the rounds)."""
    turns = [(pipeline(), bare()) for _ in range(TURNS)]
    own, other = (statistics.median(rates) for rates in zip(*turns, strict=True))
    return [
        (title, f"{own:,.0f} images/s"),
        (f"{title}, bare loop", f"{other:,.0f} images/s"),
        (f"{title}, pipeline / bare loop", f"{statistics.median(a / b for a, b in turns):.2f}"),
    ]


def _rate(batches: Iterable[Any], skipped: int, steps: int) -> float:
    """Images per second over some batches after the skipped ones, so that start-up is not included."""
    stream = iter(batches)
    for _ in range(skipped):
        next(stream)
    started = time.perf_counter()
    for _ in range(steps):
        next(stream)
    return steps * BATCH / (time.perf_counter() - started)


def bare_examples(records: Records) -> tf.data.Dataset:
    """A plain implementation with TensorFlow's own letterbox, for grey images of any size."""

    def load(text: Any) -> dict[str, Any]:
        example = parse_example(text, len(records.labels))
        image = tf.image.resize_with_pad(tf.image.decode_jpeg(example["encoded"], channels=1), SIZE, SIZE)
        sides = tf.cast(tf.stack([example["width"], example["height"]] * 2), tf.float32)
        sides /= tf.reduce_max(sides)
        boxes = (example["boxes"] * sides + (1 - sides) / 2) * example["labels"][:, tf.newaxis]
        return {"image": tf.cast(image + 0.5, tf.uint8), "labels": example["labels"], "boxes": boxes}

    return tf.data.TFRecordDataset(records.shard_paths("train")).map(
        load, num_parallel_calls=tf.data.AUTOTUNE
    )


def bare_batches(examples: tf.data.Dataset, augmentation: AugmentationConfig) -> tf.data.Dataset:
    """A plain implementation that cannot resume: one chain of stages and one stream of seeds."""

    def change(step: Any, batch: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        batch = augment(batch, augmentation, tf.stack([tf.zeros_like(step), step]))
        return batch["image"], {head: batch[head] for head in HEADS}

    return (
        examples.cache()
        .shuffle(100_000, seed=0)
        .batch(BATCH, drop_remainder=True)
        .repeat()
        .enumerate()
        .map(change, num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )


def make_records(folder: Path, images: int) -> Records:
    """Makes a records artifact with this number of different grey training images."""
    rng = np.random.default_rng(0)
    patient = make_patient(rng)
    slices = [
        np.asarray(Image.fromarray(draw_slice(patient, z, rng)[0]).resize((WIDTH, HEIGHT)), np.int16)
        for z in np.linspace(-0.6, 0.6, 64)
    ]
    for number, (split, count) in enumerate({"train": images, "valid": 1, "test": 1}.items()):
        (folder / "export" / split).mkdir(parents=True)
        with (folder / "export" / split / "_annotations.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax"])
            for index in range(count):
                name = f"volume_{number}_slice_{index}.jpg"
                pixels = slices[index % len(slices)] + rng.integers(-9, 10, (HEIGHT, WIDTH), np.int16)
                Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(
                    folder / "export" / split / name
                )
                rows.writerow([name, WIDTH, HEIGHT, f"label{index % 3}", 40, 50, 80, 95])
    configs = compose(["dataset=directory", f"dataset.path={folder / 'export'}"]).steps()
    dataset = ingest(configs.dataset, folder / "dataset").dataset
    return build_tfrecords(configs.records, dataset, folder / "records")


if __name__ == "__main__":
    main()
