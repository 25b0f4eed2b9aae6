"""The records artifact: sharded TFRecords and what training must know of them (the build_tfrecords step).

A record carries the TF Object Detection API's keys, so that its tools read it too, plus `image/patient_id`
and `image/slice`. As in that API, `image/object/class/label` counts from 1 (0 is the background): it is the
class slot + 1.
See https://github.com/tensorflow/models/blob/master/research/object_detection/g3doc/using_your_own_dataset.md
"""

import itertools
import json
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from operator import itemgetter
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pyarrow.parquet as pq
import tensorflow as tf
from numpy.typing import NDArray
from tqdm import tqdm

from brain_tumor.config import SPLITS, RecordsConfig, to_json
from brain_tumor.data.shards import COORDINATES, Shard, write_shard
from brain_tumor.errors import InputError
from brain_tumor.storage import publish, read_manifest, write_json

STATISTICS = "statistics.json"
UNKNOWN_SLICE = -1
# Fewer images are written sooner than other processes start.
IMAGES_WORTH_WORKERS = 5000
# Records that are parsed and compared together: more are hardly faster, and hold more JPEGs in memory.
READ_BATCH = 64
# Rows of the dataset's tables that are in memory at a time, beside those of the shards being written.
ROWS_AT_ONCE = 1024

IMAGE_COLUMNS = ["filename", "source_id", "width", "height", "patient_id", "slice", "sha256"]
BOX_COLUMNS = ["slot", "label", *COORDINATES]
IMAGE_KEYS = {
    "image/encoded": tf.string,
    "image/format": tf.string,
    "image/filename": tf.string,
    "image/source_id": tf.string,
    "image/key/sha256": tf.string,
    "image/height": tf.int64,
    "image/width": tf.int64,
    "image/patient_id": tf.string,
    "image/slice": tf.int64,
}
OBJECT_KEYS = {
    **{f"image/object/bbox/{name}": tf.float32 for name in COORDINATES},
    "image/object/class/label": tf.int64,
    "image/object/class/text": tf.string,
}


def build_tfrecords(
    config: RecordsConfig, dataset: str | Path, output: str | Path, workers: int | None = None
) -> dict[str, float]:
    """Writes a dataset artifact's images and boxes as TFRecords and publishes a records artifact.

    The artifact holds `<split>-00000-of-00002.tfrecord` files and `statistics.json` (see `read_statistics`).
    Its manifest has `source`, `notice`, `labels`, `config`, `channels` (1 if all images are grey, else 3) and
    `splits`, the counts `images`, `boxes`, `patients` and `shards` of each. The same dataset and config give
    the same bytes, whatever the number of workers.

    Args:
        config: The step's config.
        dataset: Folder of the dataset artifact.
        output: Folder of the records artifact.
        workers: As for `write_shards`.

    Returns:
        Counts by split, class weights, and what the splits share, by name.

    Raises:
        InputError: A split has no image left, or the dataset's images have changed
            since it was published.
        RuntimeError: A shard could not be written, or what was read back is not what should be in it.
    """
    dataset = Path(dataset)
    source = read_manifest(dataset, "dataset")
    for split in SPLITS:
        if not source["counts"][split]["images"]:
            raise InputError(
                f"{dataset} has no usable image in {split}; its findings.csv says what is wrong with them."
            )

    with publish(output, "records") as draft:
        write_shards(dataset, config.images_per_shard, draft.path, workers)
        counts = read_back(dataset, config.images_per_shard, draft.path)
        names = ("images", "boxes", "patients")
        expected = {split: {name: source["counts"][split][name] for name in names} for split in SPLITS}
        if counts != expected:
            raise RuntimeError(f"The records of {output} hold {counts}, but {dataset} counts {expected}.")
        statistics = _statistics(dataset, config.max_class_weight)
        write_json(draft.path / STATISTICS, statistics)
        draft.manifest = {
            "source": source["source"],
            "notice": source["notice"],
            "labels": source["labels"],
            "channels": 1 if source["grey"] else 3,
            "config": json.loads(to_json(config)),
            "splits": {
                split: {**own, "shards": _shard_count(own["images"], config.images_per_shard)}
                for split, own in counts.items()
            },
        }
    return _flatten(draft.manifest, statistics)


def write_shards(dataset: Path, images_per_shard: int, folder: Path, workers: int | None = None) -> None:
    """Writes the TFRecord files of all splits, several at a time.

    Args:
        dataset: Folder of the dataset artifact.
        images_per_shard: How many images a file holds at most.
        folder: Where to write the files.
        workers: How many processes write. None stands for as many as there are processors for this process,
            and for this process alone where there are too few images for others to pay.

    Raises:
        InputError: An image has changed since the dataset was published, or is gone.
        RuntimeError: A shard could not be written; the error names it.
    """
    if workers is None:
        workers = joblib.cpu_count() if _image_count(dataset) >= IMAGES_WORTH_WORKERS else 1
    unfinished = set()

    def tasks() -> Iterator[Any]:
        # joblib takes a few tasks ahead of the workers, so that only a few shards are in memory.
        for split in SPLITS:
            for shard in _shards(dataset, split, images_per_shard):
                unfinished.add(shard.name)
                yield joblib.delayed(write_shard)(shard, dataset, folder)

    with tqdm(total=_image_count(dataset), desc="Writing records", unit=" images", mininterval=1) as progress:
        try:
            # Closed at once, whatever happens: no process must write to a folder that is being removed.
            with closing(joblib.Parallel(workers, return_as="generator_unordered")(tasks())) as written:
                for name, images in written:
                    unfinished.remove(name)
                    progress.update(images)
        except BrokenProcessPool as error:
            names = ", ".join(sorted(unfinished))
            raise RuntimeError(f"A process died (out of memory?) while it wrote one of {names}.") from error


def read_back(dataset: Path, images_per_shard: int, folder: Path) -> dict[str, dict[str, int]]:
    """Parses every record of every shard and compares it with the dataset's tables.

    The JPEGs are not compared again: `write_shard` checked their digests, and TensorFlow checks each record's
    checksum.

    Args:
        dataset: Folder of the dataset artifact.
        images_per_shard: How many images a file holds at most.
        folder: Where the files are.

    Returns:
        The counts `images`, `boxes` and `patients` by split.

    Raises:
        RuntimeError: A shard cannot be read, or holds something else; the error names it.
    """
    counts = {}
    with tqdm(total=_image_count(dataset), desc="Reading back", unit=" images", mininterval=1) as progress:
        for split in SPLITS:
            images, boxes, patients = 0, 0, set()
            images_of_split = read_manifest(dataset, "dataset")["counts"][split]["images"]
            names = _shard_names(split, _shard_count(images_of_split, images_per_shard))
            batches = _read_batches([str(folder / name) for name in names])
            for shard in _shards(dataset, split, images_per_shard):
                patients |= set(shard.images["patient_id"])
                boxes += len(shard.boxes["slot"])
                for start in range(0, len(shard), READ_BATCH):
                    compared = _compare(shard, start, batches)
                    images += compared
                    progress.update(compared)
            if next(batches, None) is not None:
                raise RuntimeError(f"{names[-1]} holds more records than the dataset has images for it.")
            counts[split] = {"images": images, "boxes": boxes, "patients": len(patients)}
    return counts


def shard_paths(records: str | Path, split: str) -> list[str]:
    """The TFRecord files of a split, in order.

    Raises:
        InputError: There is no records artifact, or no such split in it.
    """
    shards = read_manifest(records, "records")["splits"].get(split, {}).get("shards")
    if not shards:
        raise InputError(f"{records} has no split {split!r}; it has {', '.join(SPLITS)}.")
    return [str(Path(records) / name) for name in _shard_names(split, shards)]


def read_statistics(records: str | Path) -> dict[str, Any]:
    """What training needs to know about the records.

    Returns:
        `class_counts`: images that show a label, by split and label.
        `class_weights`: by label, its negatives / its positives in train, between 1 / max_class_weight and
        max_class_weight; that limit for a label that train does not show.
        `mean_boxes`: by label, the mean of train's boxes, normalised to the original image; None if train has
        none.
        `leakage`: of the splits `used` and of those `provided`, what `measure_leakage` found (see
        `brain_tumor.data.splits`).

    Raises:
        InputError: There is no records artifact.
    """
    read_manifest(records, "records")
    statistics: dict[str, Any] = json.loads((Path(records) / STATISTICS).read_text())
    return statistics


def parse_example(serialized: tf.Tensor, num_classes: int) -> dict[str, tf.Tensor]:
    """Parses one record.

    Args:
        serialized: A scalar string, as TFRecordDataset gives it.
        num_classes: How many labels the records have.

    Returns:
        `encoded` (the JPEG's bytes), `source_id` (which image of the dataset it is), `filename` and
        `patient_id` (scalar strings), `slice` (-1 if unknown), `height` and `width` in pixels (scalar int32),
        `labels` (num_classes,) float32, 1 where the label is present, and `boxes` (num_classes, 4) float32
        `[xmin, ymin, xmax, ymax]`, normalised to 0..1 of the original image, row k for label k, zero where it
        is absent.
    """
    numbers = tf.io.FixedLenSequenceFeature([], tf.float32, allow_missing=True)
    parsed = tf.io.parse_single_example(
        serialized,
        {
            "image/encoded": tf.io.FixedLenFeature([], tf.string),
            "image/source_id": tf.io.FixedLenFeature([], tf.string),
            "image/filename": tf.io.FixedLenFeature([], tf.string),
            "image/patient_id": tf.io.FixedLenFeature([], tf.string),
            "image/slice": tf.io.FixedLenFeature([], tf.int64),
            "image/height": tf.io.FixedLenFeature([], tf.int64),
            "image/width": tf.io.FixedLenFeature([], tf.int64),
            "image/object/class/label": tf.io.FixedLenSequenceFeature([], tf.int64, allow_missing=True),
            **{f"image/object/bbox/{name}": numbers for name in COORDINATES},
        },
    )
    slots = parsed["image/object/class/label"][:, None] - 1
    boxes = tf.stack([parsed[f"image/object/bbox/{name}"] for name in COORDINATES], axis=1)
    present = tf.ones_like(boxes[:, 0])
    return {
        "encoded": parsed["image/encoded"],
        "source_id": parsed["image/source_id"],
        "filename": parsed["image/filename"],
        "patient_id": parsed["image/patient_id"],
        "slice": tf.cast(parsed["image/slice"], tf.int32),
        "height": tf.cast(parsed["image/height"], tf.int32),
        "width": tf.cast(parsed["image/width"], tf.int32),
        "labels": tf.scatter_nd(slots, present, tf.constant([num_classes], tf.int64)),
        "boxes": tf.scatter_nd(slots, boxes, tf.constant([num_classes, 4], tf.int64)),
    }


def _shard_names(split: str, shards: int) -> list[str]:
    return [f"{split}-{index:05d}-of-{shards:05d}.tfrecord" for index in range(shards)]


def _shard_count(images: int, images_per_shard: int) -> int:
    return -(-images // images_per_shard)


def _image_count(dataset: Path) -> int:
    return sum(counts["images"] for counts in read_manifest(dataset, "dataset")["counts"].values())


def _shards(dataset: Path, split: str, images_per_shard: int) -> Iterator[Shard]:
    """Cuts a split's tables into shards. They are sorted alike, so that they need not be in memory whole."""
    manifest = read_manifest(dataset, "dataset")
    slots = {label: slot for slot, label in enumerate(manifest["labels"])}
    names = _shard_names(split, _shard_count(manifest["counts"][split]["images"], images_per_shard))
    images = _read_rows(dataset / "images.parquet", split, IMAGE_COLUMNS)
    boxes = _read_rows(dataset / "annotations.parquet", split, ["source_id", "label", *COORDINATES])
    boxes_of_images = itertools.groupby(boxes, itemgetter("source_id"))
    source_id, own_boxes = next(boxes_of_images, (None, iter(())))
    for name in names:
        shard = Shard(name, {key: [] for key in IMAGE_COLUMNS}, {key: [] for key in BOX_COLUMNS}, [])
        for image in itertools.islice(images, images_per_shard):
            for key in IMAGE_COLUMNS:
                shard.images[key].append(UNKNOWN_SLICE if image[key] is None else image[key])
            if image["source_id"] == source_id:
                sides = itertools.cycle((image["width"], image["height"]))
                for box in own_boxes:
                    shard.boxes["slot"].append(slots[box["label"]])
                    shard.boxes["label"].append(box["label"])
                    for key, side in zip(COORDINATES, sides, strict=False):
                        shard.boxes[key].append(box[key] / side)
                source_id, own_boxes = next(boxes_of_images, (None, iter(())))
            shard.box_ends.append(len(shard.boxes["slot"]))
        yield shard
    if source_id is not None:
        raise RuntimeError(f"{dataset} is not sorted: it has a box of {source_id} before that image.")


def _read_rows(path: Path, split: str, columns: list[str]) -> Iterator[dict[str, Any]]:
    with pq.ParquetFile(path) as table:
        for batch in table.iter_batches(ROWS_AT_ONCE, columns=["split", *columns]):
            yield from (row for row in batch.to_pylist() if row["split"] == split)


def _read_batches(paths: list[str]) -> Iterator[dict[str, NDArray[Any]]]:
    """The records of these files, parsed, in order. No batch spans two files."""
    batches: Iterator[dict[str, NDArray[Any]]] = (
        tf.data.Dataset.from_tensor_slices(paths)
        .flat_map(lambda path: tf.data.TFRecordDataset(path).batch(READ_BATCH))
        .map(_parse_batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .as_numpy_iterator()
    )
    return batches


def _parse_batch(records: tf.Tensor) -> dict[str, tf.Tensor]:
    """By key one value an image; of an object's keys the values of all images, and how many each has."""
    parsed: dict[str, Any] = tf.io.parse_example(
        records,
        {key: tf.io.FixedLenFeature([], dtype) for key, dtype in IMAGE_KEYS.items()}
        | {key: tf.io.RaggedFeature(dtype) for key, dtype in OBJECT_KEYS.items()},
    )
    del parsed["image/encoded"]  # it must be there; a copy of it is of no use
    for key in OBJECT_KEYS:
        parsed[f"{key} counts"] = parsed[key].row_lengths()
        parsed[key] = parsed[key].values
    return parsed


def _compare(shard: Shard, start: int, batches: Iterator[dict[str, NDArray[Any]]]) -> int:
    """Compares the next batch with a shard's rows from `start` on; counts its images."""
    try:
        batch = next(batches, None)
    except tf.errors.OpError as error:
        raise RuntimeError(f"{shard.name} cannot be read back: {error.message}") from error
    for key, values in _expected_batch(shard, start).items():
        if batch is None or not np.array_equal(batch[key], values):
            raise RuntimeError(
                f"{shard.name} was read back and differs from the dataset in {key} of one of the "
                f"{READ_BATCH} images from {shard.images['source_id'][start]} on."
            )
    assert batch is not None
    return len(batch["image/source_id"])


def _expected_batch(shard: Shard, start: int) -> dict[str, Any]:
    """What `_parse_batch` should have made of a shard's rows from `start` on."""
    images = {name: values[start : start + READ_BATCH] for name, values in shard.images.items()}
    ends = shard.box_ends[start : start + READ_BATCH]
    first = shard.box_ends[start - 1] if start else 0
    boxes = {name: values[first : ends[-1]] for name, values in shard.boxes.items()}
    objects = {
        **{f"image/object/bbox/{name}": np.array(boxes[name], np.float32) for name in COORDINATES},
        "image/object/class/label": np.array(boxes["slot"]) + 1,
        "image/object/class/text": _encoded(boxes["label"]),
    }
    counts = np.diff(ends, prepend=first)
    return {
        "image/format": [b"jpeg"] * len(ends),
        "image/filename": _encoded(images["filename"]),
        "image/source_id": _encoded(images["source_id"]),
        "image/key/sha256": _encoded(images["sha256"]),
        "image/height": images["height"],
        "image/width": images["width"],
        "image/patient_id": _encoded(images["patient_id"]),
        "image/slice": images["slice"],
        **objects,
        **{f"{key} counts": counts for key in objects},
    }


def _encoded(texts: list[str]) -> list[bytes]:
    return [text.encode() for text in texts]


def _statistics(dataset: Path, max_class_weight: float) -> dict[str, Any]:
    manifest = read_manifest(dataset, "dataset")
    counts = manifest["counts"]
    class_counts = {split: counts[split]["boxes_by_label"] for split in SPLITS}
    weights = {}
    for label, positives in class_counts["train"].items():
        ratio = (counts["train"]["images"] - positives) / positives if positives else max_class_weight
        weights[label] = min(max(ratio, 1 / max_class_weight), max_class_weight)
    return {
        "class_counts": class_counts,
        "class_weights": weights,
        "mean_boxes": _mean_boxes(dataset, manifest["labels"]),
        "leakage": manifest["leakage"],
    }


def _mean_boxes(dataset: Path, labels: list[str]) -> dict[str, list[float] | None]:
    sums, counts = np.zeros((len(labels), len(COORDINATES))), np.zeros(len(labels), int)
    for shard in _shards(dataset, "train", ROWS_AT_ONCE):
        slots = np.array(shard.boxes["slot"], int)
        np.add.at(sums, slots, np.stack([shard.boxes[name] for name in COORDINATES], axis=1))
        np.add.at(counts, slots, 1)
    return {
        label: (total / count).tolist() if count else None
        for label, total, count in zip(labels, sums, counts, strict=True)
    }


def _flatten(manifest: dict[str, Any], statistics: dict[str, Any]) -> dict[str, float]:
    flat: dict[str, float] = {}
    for split, counts in manifest["splits"].items():
        flat |= {f"{split}_{name}": count for name, count in counts.items()}
    flat |= {f"class_weight_{label}": weight for label, weight in statistics["class_weights"].items()}
    for pair, leakage in statistics["leakage"]["used"].items():
        for name in ("shared_patients", "identical_images", "near_duplicates"):
            flat[f"{pair.replace('/', '_')}_{name}"] = leakage[name]
    return flat
