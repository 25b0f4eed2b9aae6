"""Checks that TensorFlow can decode the records' images.

Pillow, which ingest uses, reads some damaged JPEGs that TensorFlow rejects, and an error during a training
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

QUOTED_IMAGES = 3
IMAGES_AT_ONCE = 256


def leave_out_undecodable(dataset: Dataset, files: list[Path]) -> Dataset:
    """Returns the dataset without the images that TensorFlow cannot decode; a warning names each.

    Args:
        dataset: The dataset.
        files: Its records.

    Raises:
        InputError: There are more of them than the `max_bad_fraction` of the dataset's config allows.
    """
    problems = _find_undecodable(dataset, files)
    if not problems:
        return dataset
    sentences = [f"{display_name(name)} cannot be decoded ({why})" for name, why in problems.items()]
    limit = dataset.manifest.config["max_bad_fraction"]
    share = len(problems) / dataset.image_count
    if share > limit:
        quoted = ", ".join(sentences[:QUOTED_IMAGES])
        raise InputError(
            f"{len(problems)} of {dataset.image_count} images ({share:.1%}) of {dataset.path} are lost, more "
            f"than dataset.max_bad_fraction allows ({limit:.1%}): {quoted}; fix the export or raise the "
            "limit, then run ingest again."
        )
    for sentence in sentences:
        logging.warning("%s by TensorFlow, and is left out.", sentence)
    return dataset.without(list(problems))


def _find_undecodable(dataset: Dataset, files: list[Path]) -> dict[str, str]:
    """The reasons of images that cannot be decoded, by source_id."""
    channels = 1 if dataset.manifest.grey else 3

    def decode(example: dict[str, Any]) -> str:
        try:
            shape = decode_image(example["encoded"], channels).shape
        except tf.errors.OpError as error:
            return str(error.message).rpartition("}} ")[2].split("[Op:")[0].strip(" .")
        return "" if shape[:2] == (example["height"], example["width"]) else "it has another size there"

    problems: dict[str, str] = {}
    with (
        Progress("Decoding", dataset.image_count, "images") as progress,
        ThreadPoolExecutor(joblib.cpu_count()) as pool,
        tf.device("CPU"),
    ):
        examples = _read_examples(files, len(dataset.manifest.labels))
        while some := list(itertools.islice(examples, IMAGES_AT_ONCE)):
            for example, problem in zip(some, pool.map(decode, some), strict=True):
                if problem:
                    problems[example["source_id"].decode()] = problem
            progress.update(len(some))
    return problems


def _read_examples(files: list[Path], num_classes: int) -> Iterator[dict[str, Any]]:
    records = tf.data.TFRecordDataset([str(file) for file in files])
    examples: Iterator[dict[str, Any]] = records.map(
        lambda record: parse_example(record, num_classes), num_parallel_calls=tf.data.AUTOTUNE
    ).as_numpy_iterator()
    return examples
