import dataclasses
import itertools
import logging
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from exports import directory_config, write_export
from PIL import Image

from brain_tumor.config import AugmentationConfig, RecordsConfig
from brain_tumor.data.dataset import ingest, open_dataset
from brain_tumor.data.records import build_tfrecords
from brain_tumor.errors import InputError
from brain_tumor.geometry import box_to_letterbox, letterbox
from brain_tumor.storage import MANIFEST
from brain_tumor.training.input_pipeline import (
    augment,
    evaluation_batches,
    load_split,
    steps_per_epoch,
    to_model_input,
    training_batches,
    with_features,
)

LABELS = ["label0", "label1", "label2"]
HEADS = ["labels", "boxes"]
SIZE = 32
STEPS = 4  # batches of 8 in the 32 training images of `tiny_records`
UNCHANGED = AugmentationConfig(
    flip=False, shift=0.0, scale=0.0, brightness=0.0, contrast=0.0, noise=0.0, saturation=0.0, hue=0.0
)
CHANGED = AugmentationConfig(
    flip=True, shift=0.05, scale=0.1, brightness=0.2, contrast=0.2, noise=0.02, saturation=0.0, hue=0.0
)
IN_A_FILE = 0.0  # GB of memory for a cache


def only(**changes: Any) -> AugmentationConfig:
    """An augmentation with these changes alone."""
    return dataclasses.replace(UNCHANGED, **changes)


def take(batches: tf.data.Dataset, count: int = STEPS, skip: int = 0) -> list[list[np.ndarray]]:
    """Some batches, each as its images and its targets in the order of the heads' names."""
    return [
        [images, *(targets[head] for head in sorted(targets))]
        for images, targets in itertools.islice(batches.as_numpy_iterator(), skip, skip + count)
    ]


def order(batches: Iterable[list[np.ndarray]]) -> list[bytes]:
    """Each image by its pixels."""
    return [image.tobytes() for images, *_ in batches for image in images]


def assert_same(batches: list[list[np.ndarray]], others: list[list[np.ndarray]]) -> None:
    for batch, other in zip(batches, others, strict=True):
        for array, same in zip(batch, other, strict=True):
            np.testing.assert_array_equal(array, same)


def in_colour(examples: tf.data.Dataset) -> tf.data.Dataset:
    return examples.map(lambda example: {**example, "image": tf.repeat(example["image"], 3, axis=-1)})


def build_records(folder: Path, export: Path) -> Path:
    ingest(directory_config(export), folder / "dataset", folder / "report.html")
    build_tfrecords(RecordsConfig(100, 10.0), folder / "dataset", folder / "records")
    return folder / "records"


def test_boxes_move_with_their_image(tmp_path: Path) -> None:
    export = write_export(
        tmp_path / "export", train=["volume_1_slice_1.jpg,128,64,label1,32,16,96,48"], valid=[], test=[]
    )
    pixels = np.zeros((64, 128), np.uint8)
    pixels[16:48, 32:96] = 255
    Image.fromarray(pixels).save(export / "train" / "volume_1_slice_1.jpg", quality=95)

    example = next(
        example
        for example in load_split(build_records(tmp_path, export), "train", 3, 64).as_numpy_iterator()
        if example["filename"] == b"volume_1_slice_1.jpg"
    )

    image = example["image"]
    assert image.shape == (64, 64, 1) and image.dtype == np.uint8
    assert not image[:16].any() and not image[48:].any(), "the padding is black"
    assert (image[25:39, 17:47] > 230).all(), "the rectangle is where its box says"
    assert (image[16:23] < 25).all() and (image[41:48] < 25).all() and (image[:, :15] < 25).all()
    np.testing.assert_array_equal(example["labels"], [0, 1, 0])
    # The half size, 16 pixels of padding above: (16, 24, 48, 40) of 64. Absent classes stay rows of zeros.
    np.testing.assert_allclose(example["boxes"], [[0.0] * 4, [0.25, 0.375, 0.75, 0.625], [0.0] * 4])


def test_letterboxed_boxes_are_those_of_the_geometry(tiny_dataset: Path, tiny_records: Path) -> None:
    dataset = open_dataset(tiny_dataset)
    present = 0
    for split in ("train", "valid", "test"):
        truth = dataset.annotations[dataset.annotations["split"] == split].set_index(["filename", "label"])
        for example in load_split(tiny_records, split, 3, SIZE).as_numpy_iterator():
            height, width = int(example["height"]), int(example["width"])
            for slot, label in enumerate(LABELS):
                key = (example["filename"].decode(), label)
                assert example["labels"][slot] == (key in truth.index)
                expected: Any = [0.0] * 4
                if key in truth.index:
                    present += 1
                    box = truth.loc[key, ["xmin", "ymin", "xmax", "ymax"]].to_numpy(float)
                    box = box / [width, height, width, height]
                    expected = box_to_letterbox(box, letterbox(height, width, SIZE), SIZE)
                np.testing.assert_allclose(example["boxes"][slot], expected, rtol=0, atol=1e-6)
    assert present == len(dataset.annotations) > 20


def test_colour_images_keep_their_channels(tmp_path: Path) -> None:
    export = write_export(tmp_path / "export")
    colour = np.zeros((30, 40, 3), np.uint8) + np.array([200, 100, 30], np.uint8)
    Image.fromarray(colour).save(export / "train" / "volume_1_slice_1.jpg", quality=95)

    examples = load_split(build_records(tmp_path, export), "train", 3, 40)

    assert examples.element_spec["image"].shape == (40, 40, 3)
    image = next(e["image"] for e in examples.as_numpy_iterator() if e["filename"] == b"volume_1_slice_1.jpg")
    np.testing.assert_allclose(image[5:35], colour, atol=3)


def test_records_of_an_older_version_are_refused(tiny_records: Path, tmp_path: Path) -> None:
    records = Path(shutil.copytree(tiny_records, tmp_path / "records"))
    manifest = (records / MANIFEST).read_text().replace('"channels"', '"other"')
    (records / MANIFEST).write_text(manifest)
    with pytest.raises(InputError, match=r"records does not say how many channels .* build the records"):
        load_split(records, "train", 3, SIZE)


@pytest.fixture
def examples(tiny_records: Path) -> tf.data.Dataset:
    return load_split(tiny_records, "train", 3, SIZE)


@pytest.fixture
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where caches that do not fit into memory are written."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_each_epoch_has_another_order_and_the_seed_fixes_them(examples: tf.data.Dataset) -> None:
    batches = training_batches(examples, 8, HEADS, None, seed=1)
    first, second = order(take(batches)), order(take(batches, skip=STEPS))
    assert first != second
    assert sorted(first) == sorted(second)
    assert len(set(first)) == 32

    again = training_batches(examples, 8, HEADS, None, seed=1)
    assert order(take(again, 2 * STEPS)) == first + second
    assert order(take(training_batches(examples, 8, HEADS, None, seed=2))) != first


def test_the_same_seed_gives_the_same_changes(examples: tf.data.Dataset) -> None:
    batches, again, other = (training_batches(examples, 8, HEADS, CHANGED, seed) for seed in (1, 1, 2))
    assert_same(take(batches, 2 * STEPS), take(again, 2 * STEPS))
    assert not np.array_equal(take(batches, 1)[0][0], take(other, 1)[0][0])


@pytest.mark.parametrize("memory_cache_gb", [1.0, IN_A_FILE])
def test_a_stream_that_begins_at_an_epoch_goes_on_like_the_whole_one(
    examples: tf.data.Dataset, cache_folder: Path, memory_cache_gb: float
) -> None:
    options = {"seed": 1, "memory_cache_gb": memory_cache_gb}
    whole = take(training_batches(examples, 8, HEADS, CHANGED, **options), 4 * STEPS)
    for epoch in (1, 2):
        resumed = training_batches(examples, 8, HEADS, CHANGED, **options, first_epoch=epoch)
        assert_same(take(resumed, 2 * STEPS), whole[epoch * STEPS : (epoch + 2) * STEPS])


def test_the_batches_do_not_depend_on_tensorflows_own_seed(examples: tf.data.Dataset) -> None:
    streams = []
    for number in (0, 7):
        tf.random.set_seed(number)
        streams.append(take(training_batches(examples, 8, HEADS, CHANGED, seed=1), 2 * STEPS))
    assert_same(*streams)


def test_the_batches_do_not_depend_on_threads(examples: tf.data.Dataset) -> None:
    options = tf.data.Options()
    options.threading.private_threadpool_size = 1
    options.threading.max_intra_op_parallelism = 1
    batches = training_batches(examples, 8, HEADS, CHANGED, seed=1)
    assert_same(take(batches.with_options(options), 2 * STEPS), take(batches, 2 * STEPS))


def test_no_epoch_sees_the_same_picture_twice(examples: tf.data.Dataset) -> None:
    images = order(take(training_batches(examples, 8, HEADS, CHANGED, seed=1), 3 * STEPS))
    assert len(set(images)) == 3 * 32


def test_targets_are_those_of_their_image(examples: tf.data.Dataset) -> None:
    truth = {
        np.repeat(example["image"], 3, axis=-1).astype(np.float32).tobytes(): example
        for example in examples.as_numpy_iterator()
    }
    for images, boxes, labels in take(training_batches(examples, 8, HEADS, None, seed=1)):
        assert images.dtype == np.float32
        for index, image in enumerate(images):
            np.testing.assert_array_equal(labels[index], truth[image.tobytes()]["labels"])
            np.testing.assert_array_equal(boxes[index], truth[image.tobytes()]["boxes"])


@pytest.mark.parametrize("heads", [["labels"], ["boxes"], HEADS])
def test_a_batch_has_the_targets_of_its_heads(examples: tf.data.Dataset, heads: list[str]) -> None:
    for batches in (
        training_batches(examples, 8, heads, CHANGED, seed=1),
        evaluation_batches(examples, 8, heads),
    ):
        assert set(batches.element_spec[1]) == set(heads)


@pytest.mark.parametrize(("batch_size", "size", "steps"), [(8, 8, 4), (10, 10, 3), (32, 32, 1), (64, 32, 1)])
def test_a_last_smaller_batch_is_left_out_unless_it_is_the_only_one(
    examples: tf.data.Dataset, batch_size: int, size: int, steps: int
) -> None:
    assert steps_per_epoch(examples, batch_size) == steps
    batches = take(training_batches(examples, batch_size, HEADS, CHANGED, seed=1), 2 * steps)
    assert {len(images) for images, *_ in batches} == {size}
    for epoch in (batches[:steps], batches[steps:]):
        assert len(set(order(epoch))) == size * steps, "the next batch begins another epoch"


def test_the_stream_has_no_end(examples: tf.data.Dataset) -> None:
    batches = training_batches(examples, 8, HEADS, CHANGED, seed=1)
    assert int(batches.cardinality()) == tf.data.INFINITE_CARDINALITY


@pytest.mark.parametrize("memory_cache_gb", [1.0, IN_A_FILE])
def test_images_are_decoded_once(
    examples: tf.data.Dataset, cache_folder: Path, memory_cache_gb: float
) -> None:
    decoded = []

    def count(image: np.ndarray) -> np.ndarray:
        decoded.append(1)
        return image

    def counted(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        image = tf.numpy_function(count, [example["image"]], tf.uint8)
        return {**example, "image": tf.ensure_shape(image, example["image"].shape)}

    batches = training_batches(
        examples.map(counted), 8, HEADS, CHANGED, seed=1, memory_cache_gb=memory_cache_gb
    )
    take(batches, 3 * STEPS)
    assert len(decoded) == 32

    decoded.clear()
    batches = evaluation_batches(examples.map(counted), 8, HEADS, memory_cache_gb)
    assert order(take(batches, 99)) == order(take(batches, 99))
    assert len(decoded) == 32


def test_a_cache_is_a_file_where_memory_is_too_small(examples: tf.data.Dataset, cache_folder: Path) -> None:
    size = 32 * (SIZE * SIZE + 4 * (3 + 12))
    kept = training_batches(examples, 8, HEADS, CHANGED, 1, memory_cache_gb=size / 1e9)
    in_memory = take(kept, 2 * STEPS)
    assert not list(cache_folder.iterdir())

    written = training_batches(examples, 8, HEADS, CHANGED, 1, memory_cache_gb=(size - 1) / 1e9)
    # The window that is shuffled has at least 16 batches, here the whole split.
    assert_same(take(written, 2 * STEPS), in_memory)
    files = list(cache_folder.rglob("*.data*"))
    assert sum(file.stat().st_size for file in files) == pytest.approx(size, rel=0.05), "it holds bytes"


def test_a_window_of_a_large_split_still_gives_each_image_once(cache_folder: Path) -> None:
    count = 100
    numbers = np.arange(count, dtype=np.uint8)
    examples = tf.data.Dataset.from_tensor_slices(
        {
            "image": np.tile(numbers[:, None, None, None], (1, 4, 4, 1)),
            "labels": np.zeros((count, 3), np.float32),
            "boxes": np.zeros((count, 3, 4), np.float32),
        }
    )
    batches = take(training_batches(examples, 2, HEADS, None, 1, memory_cache_gb=IN_A_FILE), count)
    seen = np.concatenate([images[:, 0, 0, 0] for images, *_ in batches]).reshape(2, count)
    for epoch in seen:
        np.testing.assert_array_equal(np.sort(epoch), numbers)
        assert epoch[0] < 32 and (epoch[:-1] > epoch[1:]).sum() > 25, "32 images are shuffled at a time"
    assert not np.array_equal(*seen)


def test_a_cache_file_goes_with_its_process(tmp_path: Path) -> None:
    program = """
import pathlib, sys, tempfile
import numpy as np, tensorflow as tf
from brain_tumor.training.input_pipeline import evaluation_batches
tempfile.tempdir = sys.argv[1]
examples = tf.data.Dataset.from_tensor_slices({"image": np.zeros((3, 4, 4, 1), np.uint8)})
for _ in evaluation_batches(examples, 2, [], 0.0):
    pass
print(*pathlib.Path(tempfile.tempdir).glob("brain-tumor-cache-*/*"))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], check=True, text=True, stdout=subprocess.PIPE
    )
    assert "examples" in done.stdout, "it was there"
    assert not list(tmp_path.glob("brain-tumor-cache-*"))


def test_a_disk_that_is_too_small_is_said(
    examples: tf.data.Dataset, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    with pytest.raises(InputError, match=r"32 images take .* free in .*temporary; raise memory_cache_gb"):
        evaluation_batches(examples, 8, HEADS, IN_A_FILE)


@pytest.mark.parametrize("memory_cache_gb", [1.0, IN_A_FILE])
def test_features_are_computed_once_and_keep_their_targets(
    examples: tf.data.Dataset, cache_folder: Path, memory_cache_gb: float
) -> None:
    calls = []

    def features(images: np.ndarray) -> list[np.ndarray]:
        calls.append(images.shape)
        return [images.mean(axis=(1, 2)), images[:, ::8, ::8]]

    def extractor(images: tf.Tensor) -> list[tf.Tensor]:
        pooled, small = tf.numpy_function(features, [images], [tf.float32, tf.float32])
        return [tf.ensure_shape(pooled, (None, 3)), tf.ensure_shape(small, (None, 4, 4, 3))]

    batches = training_batches(
        with_features(examples, extractor, 12), 8, HEADS, None, seed=1, memory_cache_gb=memory_cache_gb
    )
    seen = [
        (*feature, boxes[index])
        for inputs, boxes, _ in take(batches, 2 * STEPS)
        for index, feature in enumerate(zip(*inputs, strict=True))
    ]

    assert calls == [(count, SIZE, SIZE, 3) for count in (12, 12, 8)]
    truth = {
        np.repeat(example["image"][::8, ::8], 3, axis=-1).astype(np.float32).tobytes(): example
        for example in examples.as_numpy_iterator()
    }
    for epoch in (seen[:32], seen[32:]):
        assert {small.tobytes() for _, small, _ in epoch} == set(truth)
        for pooled, small, boxes in epoch:
            example = truth[small.tobytes()]
            np.testing.assert_allclose(pooled, [example["image"].mean()] * 3, rtol=1e-5)
            np.testing.assert_array_equal(boxes, example["boxes"])
    assert [small.tobytes() for _, small, _ in seen[:32]] != [small.tobytes() for _, small, _ in seen[32:]]


def test_one_feature_map_is_as_good_as_many(examples: tf.data.Dataset) -> None:
    features = with_features(examples, lambda images: images[:, ::8, ::8], 12)
    assert int(features.cardinality()) == 32
    for batches in (
        training_batches(features, 8, ["labels"], None, seed=1),
        evaluation_batches(features, 8, ["labels"]),
    ):
        for inputs, _ in take(batches):
            assert [feature.shape for feature in inputs] == [(8, 4, 4, 3)]


def test_evaluation_has_each_image_once_in_order(tiny_records: Path) -> None:
    examples = load_split(tiny_records, "valid", 3, SIZE)
    expected = list(examples.as_numpy_iterator())
    batches = evaluation_batches(examples, 6, HEADS)

    first, second = take(batches, 99), take(batches, 99)
    assert [images.shape for images, *_ in first] == [(count, SIZE, SIZE, 3) for count in (6, 6, 4)]
    assert_same(first, second)
    images, boxes, labels = (np.concatenate(arrays) for arrays in zip(*first, strict=True))
    for channel in range(3):
        np.testing.assert_array_equal(images[..., [channel]], [example["image"] for example in expected])
    np.testing.assert_array_equal(boxes, [example["boxes"] for example in expected])
    np.testing.assert_array_equal(labels, [example["labels"] for example in expected])


def test_one_channel_gives_what_three_equal_ones_give(examples: tf.data.Dataset) -> None:
    config = dataclasses.replace(CHANGED, saturation=0.5, hue=0.1)
    grey = take(training_batches(examples, 8, HEADS, config, seed=1))
    colour = take(training_batches(in_colour(examples), 8, HEADS, config, seed=1))
    for (images, *targets), (others, *same) in zip(grey, colour, strict=True):
        np.testing.assert_allclose(images, others, atol=1e-2)
        assert_same([targets], [same])


def seed(number: int) -> tf.Tensor:
    return tf.constant([number, 0], tf.int64)


def make_batch(images: np.ndarray, boxes: np.ndarray | None = None) -> dict[str, tf.Tensor]:
    """A batch of these images (batch, size, size, channels) and, in class slot 1, boxes (batch, 4)."""
    slots = np.zeros((len(images), 3, 4), np.float32)
    if boxes is not None:
        slots[:, 1] = boxes
    return {
        "image": tf.constant(images, tf.uint8),
        "labels": tf.constant(slots.any(axis=-1), tf.float32),
        "boxes": tf.constant(slots),
    }


def batch_of_rectangles(count: int, size: int = 96) -> dict[str, tf.Tensor]:
    """Bright rectangles on black, each elsewhere, with their boxes in slot 1; the other slots are absent."""
    rng = np.random.default_rng(0)
    images, boxes = np.zeros((count, size, size, 1), np.uint8), np.zeros((count, 4), np.float32)
    for image, box in zip(images, boxes, strict=True):
        left, top = rng.integers(0, size - 12, 2)
        width, height = rng.integers(12, [size - left + 1, size - top + 1])
        image[top : top + height, left : left + width] = 200
        box[:] = np.array([left, top, left + width, top + height]) / size
    return make_batch(images, boxes)


def find_rectangle(image: np.ndarray) -> np.ndarray:
    """The box of what is brighter than half of a rectangle's grey."""
    bright = image[..., 0] > 100
    rows, columns = np.flatnonzero(bright.any(axis=1)), np.flatnonzero(bright.any(axis=0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) / len(image)


@pytest.mark.parametrize(
    "config",
    [only(flip=True), only(shift=0.1), only(scale=0.2), only(flip=True, shift=0.1, scale=0.2)],
    ids=["flip", "shift", "scale", "all"],
)
def test_boxes_move_exactly_with_the_pixels(config: AugmentationConfig) -> None:
    batch = batch_of_rectangles(64)
    result = augment(batch, config, seed(0))
    for image, boxes in zip(result["image"].numpy(), result["boxes"].numpy(), strict=True):
        np.testing.assert_allclose(boxes[1], find_rectangle(image), atol=0.51 / len(image))
        assert not boxes[[0, 2]].any(), "an absent class's row stays zero"
    np.testing.assert_array_equal(result["labels"], batch["labels"])


def moved(config: AugmentationConfig, count: int = 200) -> np.ndarray:
    """What becomes of the middle half of an image: boxes (count, 4) of as many images."""
    images = np.zeros((count, 8, 8, 1), np.uint8)
    batch = make_batch(images, np.tile([0.25, 0.25, 0.75, 0.75], (count, 1)))
    return augment(batch, config, seed(1))["boxes"].numpy()[:, 1]


def test_shifts_and_scales_reach_as_far_as_the_config_says() -> None:
    boxes = moved(only(shift=0.1))
    sides, middles = boxes[:, 2:] - boxes[:, :2], (boxes[:, 2:] + boxes[:, :2]) / 2
    np.testing.assert_allclose(sides, 0.5, atol=1e-6)
    assert 0.095 < np.abs(middles - 0.5).max() <= 0.1 + 1e-6
    assert abs(np.corrcoef(middles.T)[0, 1]) < 0.2, "right and down are two draws"

    boxes = moved(only(scale=0.2))
    sides, middles = boxes[:, 2:] - boxes[:, :2], (boxes[:, 2:] + boxes[:, :2]) / 2
    np.testing.assert_allclose(middles, 0.5, atol=1e-6)
    np.testing.assert_allclose(sides[:, 0], sides[:, 1], atol=1e-6)
    assert 0.4 <= sides.min() + 1e-6 < 0.41 and 0.59 < sides.max() - 1e-6 <= 0.6


def test_half_of_the_images_are_mirrored_exactly() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (64, 16, 16, 3), np.uint8)
    result = augment(make_batch(images), only(flip=True), seed(0))["image"].numpy()
    mirrored = [not np.array_equal(image, before) for image, before in zip(result, images, strict=True)]
    for image, before, flipped in zip(result, images, mirrored, strict=True):
        np.testing.assert_array_equal(image, before[:, ::-1] if flipped else before)
    assert 20 < sum(mirrored) < 44


def test_what_comes_into_view_is_black() -> None:
    result = augment(make_batch(np.full((32, 20, 20, 1), 200, np.uint8)), only(shift=0.2), seed(0))
    images = result["image"].numpy()
    assert ((images[:, [0, -1]] == 0).all(axis=(2, 3)).any(axis=1)).mean() > 0.5
    assert (images[:, 10, 10] == 200).all()


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("shift", [0.0, 0.05, 0.5])
@pytest.mark.parametrize("scale", [0.0, 0.1, 0.5])
def test_a_label_that_is_present_always_has_a_box_that_can_be_seen(
    flip: bool, shift: float, scale: float
) -> None:
    count = 2000
    rng = np.random.default_rng(0)
    # Corners anywhere, many of them at the very edge; and boxes of a pixel of 240.
    corners = np.clip(rng.uniform(-0.3, 1.3, (count, 2, 2)), 0, 1)
    corners[::4, 1] = np.clip(corners[::4, 0], 1 / 240, 1) - 1 / 240
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1).astype(np.float32)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    boxes[areas < 1e-5] = 0  # ingest lets no empty box pass
    batch = make_batch(np.zeros((count, 4, 4, 1), np.uint8), boxes)
    present = batch["labels"].numpy() > 0
    assert count > present.sum() > 0.7 * count

    after = augment(batch, only(flip=flip, shift=shift, scale=scale), seed(0))["boxes"].numpy()

    assert (after >= 0).all() and (after <= 1).all()
    sides = after[..., 2:] - after[..., :2]
    np.testing.assert_array_equal((sides > 0).all(axis=-1), present)
    np.testing.assert_array_equal(after.any(axis=-1), present)
    kept = np.prod(sides[present], axis=-1) / areas[present[:, 1]]
    assert kept.min() > 0.499 * (1 - scale) ** 2 and kept.max() < 1.001 * (1 + scale) ** 2


def test_an_image_stays_where_a_box_would_leave_it() -> None:
    """A thin box at the edge, and a large one beside it that no shift could lose."""
    images = np.zeros((64, 8, 8, 1), np.uint8)
    batch = make_batch(images, np.tile([0.0, 0.0, 0.02, 0.5], (64, 1)))
    large = np.tile(np.float32([0.2, 0.2, 0.8, 0.8]), (64, 1))
    batch["boxes"] = tf.tensor_scatter_nd_update(
        batch["boxes"], [[image, 2] for image in range(64)], tf.constant(large)
    )
    boxes = augment(batch, only(shift=0.1), seed(0))["boxes"].numpy()
    stays = np.isclose(boxes[:, 2], large, atol=1e-6).all(axis=1)
    np.testing.assert_allclose(boxes[stays, 1], batch["boxes"].numpy()[stays, 1], atol=1e-6)
    assert 16 < stays.sum() < 56, "about half of the shifts go to the left"
    visible = boxes[:, 1, 2] - boxes[:, 1, 0]
    assert (visible >= 0.01 - 1e-6).all()


def test_brightness_and_contrast_are_two_draws_of_each_image() -> None:
    image = np.full((SIZE, SIZE, 1), 60, np.uint8)
    image[8:16, 4:20] = 180
    config = only(brightness=0.1, contrast=0.2)
    result = augment(make_batch(np.stack([image] * 200)), config, seed(3))["image"].numpy()

    dark, bright = result[:, 0, 0, 0], result[:, 10, 10, 0]
    assert all(len(np.unique(changed)) == 2 for changed in result)
    contrast = (bright - dark) / 120 - 1
    brightness = (result.mean(axis=(1, 2, 3)) - image.mean()) / 255
    for values, limit in ((contrast, 0.2), (brightness, 0.1)):
        assert len(np.unique(values)) == 200
        assert 0.95 * limit < np.abs(values).max() <= limit + 1e-4 and abs(values.mean()) < 0.2 * limit
    assert abs(np.corrcoef(contrast, brightness)[0, 1]) < 0.2


def test_what_is_too_bright_or_too_dark_is_cut_off() -> None:
    images = np.tile(np.uint8([0, 255]), (16, 8, 4))[..., np.newaxis]
    result = augment(make_batch(images), only(brightness=1.0, noise=0.5), seed(0))["image"].numpy()
    assert result.min() == 0 and result.max() == 255


def test_noise_is_gaussian_and_each_images_own() -> None:
    count, size, limit = 40, 100, 0.04
    images = np.full((count, size, size, 1), 128, np.uint8)
    result = augment(make_batch(images), only(noise=limit), seed(0))["image"].numpy() - 128
    noise = result.reshape(count, -1).astype(np.float64)

    deviations = noise.std(axis=1)
    assert deviations.max() <= 1.03 * limit * 255 and deviations.min() < 0.15 * limit * 255
    assert deviations.mean() == pytest.approx(limit * 255 / 2, rel=0.25)
    noise /= deviations[:, np.newaxis]
    error = size**-1  # of a mean of size * size draws
    assert np.abs(noise.mean(axis=1)).max() < 4.5 * error
    assert np.abs((noise**3).mean()) < 0.02
    assert (noise**4).mean() == pytest.approx(3, abs=0.15)
    # The share within one, two and three deviations.
    for width, share in ((1, 0.6827), (2, 0.9545), (3, 0.9973)):
        assert (np.abs(noise) < width).mean() == pytest.approx(share, abs=0.01)
    between = np.corrcoef(noise) - np.eye(count)
    assert np.abs(between).max() < 5 * error, "no two images share their noise"
    fields = noise.reshape(count, size, size)
    for a, b in ((fields[:, 1:], fields[:, :-1]), (fields[:, :, 1:], fields[:, :, :-1])):
        assert abs((a * b).mean()) < 0.01, "nor do neighbouring pixels"
    again = augment(make_batch(images), only(noise=limit), seed(1))["image"].numpy() - 128
    other = again.reshape(count, -1) / again.std(axis=(1, 2, 3))[:, np.newaxis]
    assert np.abs((noise * other).mean(axis=1)).max() < 5 * error, "another seed, other noise"


def test_saturation_and_hue_change_colours_and_leave_grey_and_luma() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(100, 156, (50, 12, 12, 3), np.uint8)
    images[:, :6] = images[:, :6, :, :1]
    before = tf.image.rgb_to_yiq(tf.cast(images, tf.float32)).numpy()
    chroma = before[:, 6:, :, 1] + 1j * before[:, 6:, :, 2]
    for config in (only(saturation=0.5), only(hue=0.1), only(saturation=0.5, hue=0.1)):
        result = augment(make_batch(images), config, seed(0))["image"].numpy()
        np.testing.assert_allclose(result[:, :6], images[:, :6], atol=1e-2)
        after = tf.image.rgb_to_yiq(result).numpy()
        np.testing.assert_allclose(after[..., 0], before[..., 0], atol=1e-2)
        factor = (after[:, 6:, :, 1] + 1j * after[:, 6:, :, 2]) / chroma
        one_an_image = factor.reshape(50, -1).mean(axis=1)
        np.testing.assert_allclose(factor, one_an_image[:, None, None] * np.ones((1, 6, 12)), atol=1e-2)
        saturation, hue = np.abs(one_an_image) - 1, np.angle(one_an_image) / (2 * np.pi)
        for values, limit in ((saturation, config.saturation), (hue, config.hue)):
            assert 0.9 * limit - 1e-3 <= np.abs(values).max() <= limit + 1e-3


def test_colour_changes_do_nothing_to_grey_images_and_say_so(
    examples: tf.data.Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        batches = training_batches(examples, 8, HEADS, only(saturation=0.5), seed=1)
    assert "All images are grey" in caplog.text
    assert order(take(batches)) == order(take(training_batches(examples, 8, HEADS, None, seed=1)))


def test_without_changes_a_batch_stays_as_it_is() -> None:
    batch = batch_of_rectangles(4)
    result = augment(batch, UNCHANGED, seed(0))
    np.testing.assert_array_equal(result["boxes"], batch["boxes"])
    np.testing.assert_array_equal(result["image"], tf.cast(batch["image"], tf.float32))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (UNCHANGED, set()),
        (only(flip=True), {"GatherV2"}),
        (only(shift=0.1), {"GatherV2"}),
        (only(scale=0.1), {"GatherV2"}),
        (only(brightness=0.1), set()),
        (only(contrast=0.1), {"Mean"}),
        (only(noise=0.1), {"PopulationCount"}),
        (only(hue=0.1), {"Cos"}),
        (only(saturation=0.1), {"Cos"}),
    ],
)
def test_what_is_off_costs_nothing(config: AugmentationConfig, expected: set[str]) -> None:
    spec = {
        "image": tf.TensorSpec((2, 8, 8, 3), tf.uint8),
        "boxes": tf.TensorSpec((2, 3, 4), tf.float32),
    }
    traced = tf.function(lambda batch, number: augment(batch, config, number))
    graph = traced.get_concrete_function(spec, tf.TensorSpec((2,), tf.int64)).graph.as_graph_def()
    functions = [graph.node, *(function.node_def for function in graph.library.function)]
    operations = {node.op for nodes in functions for node in nodes}
    assert operations & {"GatherV2", "Mean", "PopulationCount", "Cos"} == expected


@pytest.mark.parametrize("channels", [1, 3])
def test_a_models_input_has_three_channels(channels: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 4, channels), np.uint8)
    result = to_model_input(tf.constant(images)).numpy()
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, np.broadcast_to(images, (2, 4, 4, 3)))
