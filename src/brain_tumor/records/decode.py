"""Checks that TensorFlow can decode the records' images.

Pillow, which ingest uses, reads some damaged JPEGs that TensorFlow rejects, and an error during training
would not name the image.
"""

import itertools
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import joblib
import tensorflow as tf

from brain_tumor.artifacts.dataset import Dataset
from brain_tumor.records.read import decode_image, parse_example
from brain_tumor.runtime.errors import InputError
from brain_tumor.runtime.progress import Progress
from brain_tumor.runtime.text import display_name

MAX_NAMED_IMAGES = 3
DECODE_BATCH = 256


def leave_out_undecodable(dataset: Dataset, files: list[Path]) -> Dataset:
    """Returns the dataset without the images that TensorFlow cannot decode; logs a warning for each.

    Args:
        dataset: The dataset artifact.
        files: Its TFRecord files.

    Raises:
        InputError: There are more of them than `dataset.max_bad_fraction` allows.
    """
    problems = _find_undecodable(dataset, files)
    if not problems:
        return dataset
    sentences = [f"TensorFlow cannot decode {display_name(name)} ({why})" for name, why in problems.items()]
    limit = dataset.manifest.config["max_bad_fraction"]
    share = len(problems) / dataset.image_count
    if share > limit:
        quoted = ", ".join(sentences[:MAX_NAMED_IMAGES])
        raise InputError(
            f"{len(problems)} of {dataset.image_count} images ({share:.1%}) of {dataset.path} cannot be "
            f"decoded, more than dataset.max_bad_fraction allows ({limit:.1%}): {quoted}; fix the export or "
            "raise the limit, then run ingest again."
        )
    for sentence in sentences:
        logging.warning("%s; the image is left out.", sentence)
    return dataset.without(list(problems))


def _find_undecodable(dataset: Dataset, files: list[Path]) -> dict[str, str]:
    """Maps the source_id of each image that cannot be decoded to the reason."""
    channels = 1 if dataset.manifest.grey else 3

    def decode(example: dict[str, Any]) -> str:
        try:
            shape = decode_image(example["encoded"], channels).shape
        except tf.errors.OpError as error:
            return str(error.message).rpartition("}} ")[2].split("[Op:")[0].strip(" .")
        return "" if shape[:2] == (example["height"], example["width"]) else "its size differs from Pillow's"

    problems: dict[str, str] = {}
    with (
        Progress("Decoding", dataset.image_count, "images") as progress,
        ThreadPoolExecutor(joblib.cpu_count()) as pool,
        tf.device("CPU"),
    ):
        examples = _read_examples(files, len(dataset.manifest.labels))
        while batch := list(itertools.islice(examples, DECODE_BATCH)):
            for example, problem in zip(batch, pool.map(decode, batch), strict=True):
                if problem:
                    problems[example["source_id"].decode()] = problem
            progress.update(len(batch))
    return problems


def _read_examples(files: list[Path], num_classes: int) -> Iterator[dict[str, Any]]:
    records = tf.data.TFRecordDataset([str(file) for file in files])
    examples: Iterator[dict[str, Any]] = records.map(
        lambda record: parse_example(record, num_classes), num_parallel_calls=tf.data.AUTOTUNE
    ).as_numpy_iterator()
    return examples
