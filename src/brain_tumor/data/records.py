"""The records artifact: sharded TFRecords and what training must know of them (the build_tfrecords step).

A record carries the TF Object Detection API's keys, so that its tools read it too, plus `image/patient_id`
and `image/slice`. As in that API, `image/object/class/label` counts from 1 (0 is the background): it is the
class slot + 1.
See https://github.com/tensorflow/models/blob/master/research/object_detection/g3doc/using_your_own_dataset.md
"""

import hashlib
import itertools
import json
from pathlib import Path
from typing import Any

import pandas as pd
import tensorflow as tf
from tqdm import tqdm

from brain_tumor.config import SPLITS, RecordsConfig, to_json
from brain_tumor.data.dataset import Dataset, open_dataset
from brain_tumor.errors import InputError
from brain_tumor.storage import publish, read_manifest, write_json

STATISTICS = "statistics.json"
COORDINATES = ("xmin", "ymin", "xmax", "ymax")
LISTED_PATIENTS = 20
UNKNOWN_SLICE = -1


def build_tfrecords(config: RecordsConfig, dataset: str | Path, output: str | Path) -> dict[str, float]:
    """Writes a dataset artifact's images and boxes as TFRecords and publishes a records artifact.

    The artifact holds `<split>-00000-of-00002.tfrecord` files and `statistics.json` (see `read_statistics`).
    Its manifest has `source`, `notice`, `labels`, `config` and `splits`, the counts `images`, `boxes`,
    `patients` and `shards` of each.

    Args:
        config: The step's config.
        dataset: Folder of the dataset artifact.
        output: Folder of the records artifact.

    Returns:
        Counts by split, class weights, and what the splits share, by name.

    Raises:
        InputError: The config is not usable, a split has no image left, or the dataset's files have changed
            since it was published.
        RuntimeError: What was read back is not what was written.
    """
    if config.images_per_shard < 1:
        raise InputError(f"records.images_per_shard is {config.images_per_shard}; give at least 1.")
    if not 1 <= config.max_class_weight < float("inf"):
        raise InputError(f"records.max_class_weight is {config.max_class_weight}; give at least 1.")
    source = open_dataset(dataset)
    for split in SPLITS:
        if not (source.images["split"] == split).any():
            raise InputError(
                f"{dataset} has no usable image in {split}; its findings.csv says what is wrong with them."
            )

    with publish(output, "records") as draft:
        shards = _write_shards(source, config.images_per_shard, draft.path)
        counts = _read_back(draft.path, len(source.manifest["labels"]))
        expected = _expected_counts(source)
        if counts != expected:
            raise RuntimeError(f"The records of {output} hold {counts}, but {expected} was written.")
        statistics = _statistics(source, config.max_class_weight)
        write_json(draft.path / STATISTICS, statistics)
        draft.manifest = {
            "source": source.manifest["source"],
            "notice": source.manifest["notice"],
            "labels": source.manifest["labels"],
            "config": json.loads(to_json(config)),
            "splits": {split: {**counts[split], "shards": shards[split]} for split in SPLITS},
        }
    return _flatten(draft.manifest, statistics)


def shard_paths(records: str | Path, split: str) -> list[str]:
    """The TFRecord files of a split, in order.

    Raises:
        InputError: There is no records artifact, or no such split in it.
    """
    shards = read_manifest(records, "records")["splits"].get(split, {}).get("shards")
    if not shards:
        raise InputError(f"{records} has no split {split!r}; it has {', '.join(SPLITS)}.")
    return [str(Path(records) / _shard_name(split, index, shards)) for index in range(shards)]


def read_statistics(records: str | Path) -> dict[str, Any]:
    """What training needs to know about the records.

    Returns:
        `class_counts`: images that show a label, by split and label.
        `class_weights`: by label, its negatives / its positives in train, between 1 / max_class_weight and
        max_class_weight; that limit for a label that train does not show.
        `mean_boxes`: by label, the mean of train's boxes, normalised to the original image; None if train has
        none.
        `leakage`: by pair of splits (`train/valid`, ...), how many patients (`shared_patients`, the first of
        them in `patients`) and images of the same bytes (`identical_images`) both have.

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
        `encoded` (the JPEG's bytes), `filename` and `patient_id` (scalar strings), `slice` (-1 if unknown),
        `height` and `width` in pixels (scalar int32), `labels` (num_classes,) float32, 1 where the label is
        present, and `boxes` (num_classes, 4) float32 `[xmin, ymin, xmax, ymax]`, normalised to 0..1 of the
        original image, row k for label k, zero where it is absent.
    """
    numbers = tf.io.FixedLenSequenceFeature([], tf.float32, allow_missing=True)
    parsed = tf.io.parse_single_example(
        serialized,
        {
            "image/encoded": tf.io.FixedLenFeature([], tf.string),
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
        "filename": parsed["image/filename"],
        "patient_id": parsed["image/patient_id"],
        "slice": tf.cast(parsed["image/slice"], tf.int32),
        "height": tf.cast(parsed["image/height"], tf.int32),
        "width": tf.cast(parsed["image/width"], tf.int32),
        "labels": tf.scatter_nd(slots, present, tf.constant([num_classes], tf.int64)),
        "boxes": tf.scatter_nd(slots, boxes, tf.constant([num_classes, 4], tf.int64)),
    }


def _shard_name(split: str, index: int, shards: int) -> str:
    return f"{split}-{index:05d}-of-{shards:05d}.tfrecord"


def _write_shards(source: Dataset, images_per_shard: int, folder: Path) -> dict[str, int]:
    """Writes all splits; gives the number of shards of each."""
    slots = {label: slot for slot, label in enumerate(source.manifest["labels"])}
    objects: dict[tuple[Any, Any], list[Any]] = {}
    for annotation in source.annotations.itertuples():
        objects.setdefault((annotation.split, annotation.filename), []).append(annotation)
    shards = {}
    with tqdm(total=len(source.images), desc="Writing records", unit=" images", mininterval=1) as progress:
        for split in SPLITS:
            images = list(source.images[source.images["split"] == split].itertuples())
            shards[split] = -(-len(images) // images_per_shard)
            for index in range(shards[split]):
                with tf.io.TFRecordWriter(str(folder / _shard_name(split, index, shards[split]))) as writer:
                    for image in images[index * images_per_shard : (index + 1) * images_per_shard]:
                        boxes = objects.get((split, image.filename), [])
                        example = _example(
                            source, image, sorted(boxes, key=lambda box: slots[box.label]), slots
                        )
                        writer.write(example.SerializeToString(deterministic=True))
                        progress.update()
    return shards


def _example(source: Dataset, image: Any, boxes: list[Any], slots: dict[str, int]) -> tf.train.Example:
    name = f"images/{image.split}/{image.filename}"
    encoded = (source.path / name).read_bytes()
    digest = hashlib.sha256(encoded).hexdigest()
    if digest != source.manifest["files"][name]:
        raise InputError(
            f"{source.path / name} has changed since the dataset was published; run ingest again."
        )
    filename = image.filename.encode()
    features = {
        "image/encoded": _bytes([encoded]),
        "image/format": _bytes([b"jpeg"]),
        "image/filename": _bytes([filename]),
        "image/source_id": _bytes([filename]),
        "image/key/sha256": _bytes([digest.encode()]),
        "image/height": _integers([image.height]),
        "image/width": _integers([image.width]),
        "image/patient_id": _bytes([image.patient_id.encode()]),
        "image/slice": _integers([UNKNOWN_SLICE if pd.isna(image.slice) else image.slice]),
        "image/object/bbox/xmin": _floats([box.xmin / image.width for box in boxes]),
        "image/object/bbox/ymin": _floats([box.ymin / image.height for box in boxes]),
        "image/object/bbox/xmax": _floats([box.xmax / image.width for box in boxes]),
        "image/object/bbox/ymax": _floats([box.ymax / image.height for box in boxes]),
        "image/object/class/label": _integers([slots[box.label] + 1 for box in boxes]),
        "image/object/class/text": _bytes([box.label.encode() for box in boxes]),
    }
    return tf.train.Example(features=tf.train.Features(feature=features))


def _bytes(values: list[bytes]) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))


def _integers(values: list[int]) -> tf.train.Feature:
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def _floats(values: list[float]) -> tf.train.Feature:
    return tf.train.Feature(float_list=tf.train.FloatList(value=values))


def _read_back(folder: Path, num_classes: int) -> dict[str, dict[str, int]]:
    """Parses every record of every shard, and counts."""
    counts = {}
    for split in SPLITS:
        files = sorted(str(path) for path in folder.glob(f"{split}-*.tfrecord"))
        images = boxes = 0
        patients = set()
        for example in tf.data.TFRecordDataset(files).map(lambda record: parse_example(record, num_classes)):
            images += 1
            boxes += int(example["labels"].numpy().sum())
            patients.add(example["patient_id"].numpy())
        counts[split] = {"images": images, "boxes": boxes, "patients": len(patients)}
    return counts


def _expected_counts(source: Dataset) -> dict[str, dict[str, int]]:
    names = ("images", "boxes", "patients")
    return {split: {name: source.manifest["counts"][split][name] for name in names} for split in SPLITS}


def _statistics(source: Dataset, max_class_weight: float) -> dict[str, Any]:
    labels = source.manifest["labels"]
    counts = source.manifest["counts"]
    class_counts = {split: counts[split]["boxes_by_label"] for split in SPLITS}
    weights = {}
    for label, positives in class_counts["train"].items():
        ratio = (counts["train"]["images"] - positives) / positives if positives else max_class_weight
        weights[label] = min(max(ratio, 1 / max_class_weight), max_class_weight)
    return {
        "class_counts": class_counts,
        "class_weights": weights,
        "mean_boxes": _mean_boxes(source, labels),
        "leakage": {f"{a}/{b}": _leakage(source, a, b) for a, b in itertools.combinations(SPLITS, 2)},
    }


def _mean_boxes(source: Dataset, labels: list[str]) -> dict[str, list[float] | None]:
    boxes = source.annotations[source.annotations["split"] == "train"]
    boxes = boxes.merge(source.images, on=["split", "filename"], validate="many_to_one")
    for name in COORDINATES:
        boxes[name] /= boxes["width" if name[0] == "x" else "height"]
    means = boxes.groupby("label")[list(COORDINATES)].mean().to_dict("index")
    return {
        label: [means[label][name] for name in COORDINATES] if label in means else None for label in labels
    }


def _leakage(source: Dataset, first: str, second: str) -> dict[str, Any]:
    patients, digests = [], []
    for split in (first, second):
        patients.append(set(source.images.loc[source.images["split"] == split, "patient_id"]))
        folder = f"images/{split}/"
        digests.append(
            {digest for name, digest in source.manifest["files"].items() if name.startswith(folder)}
        )
    shared = sorted(patients[0] & patients[1])
    return {
        "shared_patients": len(shared),
        "patients": shared[:LISTED_PATIENTS],
        "identical_images": len(digests[0] & digests[1]),
    }


def _flatten(manifest: dict[str, Any], statistics: dict[str, Any]) -> dict[str, float]:
    flat: dict[str, float] = {}
    for split, counts in manifest["splits"].items():
        flat |= {f"{split}_{name}": count for name, count in counts.items()}
    flat |= {f"class_weight_{label}": weight for label, weight in statistics["class_weights"].items()}
    for pair, leakage in statistics["leakage"].items():
        name = pair.replace("/", "_")
        flat[f"{name}_shared_patients"] = leakage["shared_patients"]
        flat[f"{name}_identical_images"] = leakage["identical_images"]
    return flat
