"""Reading the records with tf.data: parsed, decoded and letterboxed examples."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

from brain_tumor.artifacts.records import Records
from brain_tumor.artifacts.tables import COORDINATES
from brain_tumor.boxes.letterbox import box_to_letterbox, letterbox
from brain_tumor.config import Split
from brain_tumor.runtime.errors import DamagedError


def load_split(records: Records, split: Split, image_size: int) -> tf.data.Dataset:
    """Reads the examples of a split in order, decoded and letterboxed.

    Returns:
        Dicts: `image` uint8 (size, size, channels), `labels` float32 (num_classes,), `boxes` float32
        (num_classes, 4) normalized to 0..1 of the letterboxed image, zeros for absent classes; and
        `source_id`, `filename`, `patient_id`, `slice`, `height`, `width` of the original image. Channels: 1
        if all images are grey, otherwise 3.

    Raises:
        InputError: The records have no such split.
    """
    # Otherwise Keras would read a whole epoch to find its length.
    serialized = tf.data.TFRecordDataset(records.shard_paths(split)).apply(
        tf.data.experimental.assert_cardinality(records.manifest.splits[split].images)
    )
    num_classes, channels = len(records.labels), records.manifest.channels
    return serialized.map(
        lambda record: _letterbox_example(parse_example(record, num_classes), image_size, channels),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    ).with_options(without_autotuner())


@contextmanager
def reading_explained(records: Records) -> Iterator[None]:
    """Turns TensorFlow's errors about unreadable records into one sentence.

    Raises:
        DamagedError: A file is missing or damaged.
    """
    try:
        yield
    except (tf.errors.DataLossError, tf.errors.NotFoundError) as error:
        raise DamagedError(
            f"A TFRecord file in {records.path} is missing or damaged; run build_tfrecords again."
        ) from error


def without_autotuner() -> tf.data.Options:
    """Options that set each stage's number of threads to the number of processors.

    TensorFlow's autotuner sleeps for up to a minute between rounds, and the end of an iteration often waits
    until it wakes. Derived datasets inherit these options.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return options


def parse_example(serialized: tf.Tensor, num_classes: int) -> dict[str, tf.Tensor]:
    """Parses one record.

    Args:
        serialized: One record of a TFRecordDataset, a scalar string.
        num_classes: The number of labels of the records.

    Returns:
        `encoded` (the file's bytes), `source_id` (the image's id in the dataset), `filename` and `patient_id`
        (scalar strings, the latter empty if unknown), `slice` (-1 if unknown), `height` and `width` in pixels
        (scalar int32), `labels` (num_classes,) float32, 1 where the label is present, and `boxes`
        (num_classes, 4) float32 `[xmin, ymin, xmax, ymax]`, normalized to 0..1 of the original image, row k
        for label k, zeros where the label is absent.
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


def decode_image(encoded: tf.Tensor, channels: int) -> tf.Tensor:
    """The pixels of a JPEG or PNG, uint8 (height, width, channels)."""
    return tf.image.decode_jpeg(encoded, channels=channels)  # also decodes PNGs


def letterbox_image(
    encoded: tf.Tensor, sides: tf.Tensor, size: int, channels: int
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Decodes an image and letterboxes it.

    Args:
        encoded: The bytes of a JPEG or PNG, a scalar string.
        sides: Height and width in pixels, int32 (2,).
        size: Side of the letterboxed image, in pixels.
        channels: 1 for a grey image, else 3.

    Returns:
        The letterboxed image, uint8 (size, size, channels); the offset (top, left) and size (height, width)
        of the original in it, in pixels, int32 (2,) each.
    """
    # Computing y and x as one vector halves the number of operations, whose overhead dominates.
    start, _, new_sides, _ = letterbox(sides, sides[::-1], size)
    image = decode_image(encoded, channels)
    # Without antialiasing, downscaling 240 px to 64 would skip most pixels and small lesions. When upscaling,
    # it has no effect and takes five times as long.
    image = tf.cond(
        tf.reduce_max(sides) > size,
        lambda: tf.image.resize(image, new_sides, antialias=True),
        lambda: tf.image.resize(image, new_sides),
    )
    padding = tf.stack([start, size - new_sides - start], axis=1)
    image = tf.pad(tf.cast(image + 0.5, tf.uint8), tf.concat([padding, [[0, 0]]], axis=0))
    return tf.ensure_shape(image, (size, size, channels)), start, new_sides


def _letterbox_example(example: dict[str, Any], size: int, channels: int) -> dict[str, Any]:
    sides = tf.stack([example["height"], example["width"]])
    image, start, new_sides = letterbox_image(example.pop("encoded"), sides, size, channels)
    points = tf.reshape(example["boxes"], (-1, 2, 2))  # two corners per box, x before y
    start, new_sides = (tf.cast(values[::-1], tf.float32) for values in (start, new_sides))
    corners, *_ = box_to_letterbox([points] * 4, (start, start, new_sides, new_sides), size)
    # The offset was also added to the zeros of absent classes: reset them.
    boxes = tf.reshape(corners, example["boxes"].shape) * example["labels"][:, tf.newaxis]
    return {**example, "image": image, "boxes": boxes}
