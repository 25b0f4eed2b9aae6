import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from exports import directory_config, write_export
from PIL import Image

from brain_tumor.config import AugmentationConfig, RecordsConfig
from brain_tumor.data.dataset import ingest, open_dataset
from brain_tumor.data.records import build_tfrecords
from brain_tumor.geometry import box_to_letterbox, letterbox
from brain_tumor.training.input_pipeline import (
    augment,
    evaluation_batches,
    load_split,
    training_batches,
    with_features,
)

LABELS = ["label0", "label1", "label2"]
HEADS = ["labels", "boxes"]
SIZE = 32
UNCHANGED = AugmentationConfig(flip=False, brightness=0.0, contrast=0.0)
CHANGED = AugmentationConfig(flip=True, brightness=0.2, contrast=0.2)
FLIPPED = AugmentationConfig(flip=True, brightness=0.0, contrast=0.0)


def order(batches: tf.data.Dataset) -> list[bytes]:
    """One epoch's images in order, each by its pixels."""
    return [image.tobytes() for images, _ in batches.as_numpy_iterator() for image in images]


def contents(batches: tf.data.Dataset) -> list[np.ndarray]:
    """One epoch's images and targets, batch by batch."""
    return [
        array
        for images, targets in batches.as_numpy_iterator()
        for array in (images, *(targets[head] for head in sorted(targets)))
    ]


def test_boxes_move_with_their_image(tmp_path: Path) -> None:
    export = write_export(
        tmp_path / "export", train=["volume_1_slice_1.jpg,128,64,label1,32,16,96,48"], valid=[], test=[]
    )
    pixels = np.zeros((64, 128), np.uint8)
    pixels[16:48, 32:96] = 255
    Image.fromarray(pixels).save(export / "train" / "volume_1_slice_1.jpg", quality=95)
    ingest(directory_config(export), tmp_path / "dataset", tmp_path / "report.html")
    build_tfrecords(RecordsConfig(100, 10.0), tmp_path / "dataset", tmp_path / "records")

    example = next(
        example
        for example in load_split(tmp_path / "records", "train", 3, 64).as_numpy_iterator()
        if example["filename"] == b"volume_1_slice_1.jpg"
    )

    image = example["image"]
    assert image.shape == (64, 64, 3) and image.dtype == np.uint8
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


@pytest.fixture
def examples(tiny_records: Path) -> tf.data.Dataset:
    return load_split(tiny_records, "train", 3, SIZE)


def test_each_epoch_has_another_order_and_the_seed_fixes_them(examples: tf.data.Dataset) -> None:
    batches = training_batches(examples, 8, HEADS, None, seed=1)
    first, second = order(batches), order(batches)
    assert first != second
    assert sorted(first) == sorted(second)
    assert len(set(first)) == 32

    again = training_batches(examples, 8, HEADS, None, seed=1)
    assert [order(again), order(again)] == [first, second]
    assert order(training_batches(examples, 8, HEADS, None, seed=2)) != first


def test_the_same_seed_gives_the_same_changes(examples: tf.data.Dataset) -> None:
    batches, again, other = (training_batches(examples, 8, HEADS, CHANGED, seed) for seed in (1, 1, 2))
    for _ in range(2):
        for array, same in zip(contents(batches), contents(again), strict=True):
            np.testing.assert_array_equal(array, same)
    assert not np.array_equal(contents(batches)[0], contents(other)[0])


def test_no_epoch_sees_the_same_picture_twice(examples: tf.data.Dataset) -> None:
    batches = training_batches(examples, 8, HEADS, CHANGED, seed=1)
    assert not set(order(batches)) & set(order(batches))


def test_targets_are_those_of_their_image(examples: tf.data.Dataset) -> None:
    truth = {
        example["image"].astype(np.float32).tobytes(): example for example in examples.as_numpy_iterator()
    }
    for images, targets in training_batches(examples, 8, HEADS, None, seed=1).as_numpy_iterator():
        assert images.dtype == np.float32
        for image, labels, boxes in zip(images, targets["labels"], targets["boxes"], strict=True):
            np.testing.assert_array_equal(labels, truth[image.tobytes()]["labels"])
            np.testing.assert_array_equal(boxes, truth[image.tobytes()]["boxes"])


@pytest.mark.parametrize("heads", [["labels"], ["boxes"], HEADS])
def test_a_batch_has_the_targets_of_its_heads(examples: tf.data.Dataset, heads: list[str]) -> None:
    for batches in (
        training_batches(examples, 8, heads, CHANGED, seed=1),
        evaluation_batches(examples, 8, heads),
    ):
        assert set(batches.element_spec[1]) == set(heads)


@pytest.mark.parametrize(("batch_size", "expected"), [(8, [8] * 4), (10, [10] * 3), (64, [32])])
def test_a_last_smaller_batch_is_left_out_unless_it_is_the_only_one(
    examples: tf.data.Dataset, batch_size: int, expected: list[int]
) -> None:
    batches = training_batches(examples, batch_size, HEADS, CHANGED, seed=1)
    assert [len(images) for images, _ in batches.as_numpy_iterator()] == expected
    assert int(batches.cardinality()) == len(expected)


def test_images_are_decoded_once(tiny_records: Path, tmp_path: Path) -> None:
    records = Path(shutil.copytree(tiny_records, tmp_path / "records"))
    batches = training_batches(load_split(records, "train", 3, SIZE), 8, HEADS, None, seed=1)
    first = order(batches)
    shutil.rmtree(records)
    assert sorted(order(batches)) == sorted(first)


def test_the_cache_and_the_shuffle_hold_bytes(examples: tf.data.Dataset) -> None:
    stages = {
        type(stage).__name__: stage for stage in _stages(training_batches(examples, 8, HEADS, CHANGED, 1))
    }
    for name in ("CacheDataset", "_ShuffleDataset"):
        assert stages[name].element_spec["image"].dtype == tf.uint8
    assert "CacheDataset" in [type(stage).__name__ for stage in _stages(stages["_ShuffleDataset"])]


def _stages(dataset: tf.data.Dataset) -> list[tf.data.Dataset]:
    """A data set and all that it is made from. TensorFlow has no public name for that."""
    return [dataset, *(stage for source in dataset._inputs() for stage in _stages(source))]


def test_features_are_computed_once_and_keep_their_targets(examples: tf.data.Dataset) -> None:
    calls = []

    def features(images: np.ndarray) -> list[np.ndarray]:
        calls.append(len(images))
        return [images.mean(axis=(1, 2)), images[:, ::8, ::8]]

    def extractor(images: tf.Tensor) -> list[tf.Tensor]:
        pooled, small = tf.numpy_function(features, [images], [tf.float32, tf.float32])
        return [tf.ensure_shape(pooled, (None, 3)), tf.ensure_shape(small, (None, 4, 4, 3))]

    batches = training_batches(with_features(examples, extractor, 12), 8, HEADS, None, seed=1)
    seen = [
        [
            (*feature, targets["boxes"][index])
            for inputs, targets in batches.as_numpy_iterator()
            for index, feature in enumerate(zip(*inputs, strict=True))
        ]
        for _ in range(2)
    ]

    assert calls == [12, 12, 8]
    truth = {
        example["image"][::8, ::8].astype(np.float32).tobytes(): example
        for example in examples.as_numpy_iterator()
    }
    for epoch in seen:
        assert {small.tobytes() for _, small, _ in epoch} == set(truth)
        for pooled, small, boxes in epoch:
            example = truth[small.tobytes()]
            np.testing.assert_allclose(pooled, example["image"].mean(axis=(0, 1)), rtol=1e-5)
            np.testing.assert_array_equal(boxes, example["boxes"])
    assert [small.tobytes() for _, small, _ in seen[0]] != [small.tobytes() for _, small, _ in seen[1]]


def test_one_feature_map_is_as_good_as_many(examples: tf.data.Dataset) -> None:
    features = with_features(examples, lambda images: images[:, ::8, ::8], 12)
    assert int(features.cardinality()) == 32
    for batches in (
        training_batches(features, 8, ["labels"], None, seed=1),
        evaluation_batches(features, 8, ["labels"]),
    ):
        for inputs, _ in batches.as_numpy_iterator():
            assert [feature.shape for feature in inputs] == [(8, 4, 4, 3)]


def test_evaluation_has_each_image_once_in_order(tiny_records: Path) -> None:
    examples = load_split(tiny_records, "valid", 3, SIZE)
    expected = list(examples.as_numpy_iterator())
    batches = evaluation_batches(examples, 6, HEADS)

    assert [len(images) for images, _ in batches.as_numpy_iterator()] == [6, 6, 4]
    assert order(batches) == order(batches) == [e["image"].astype(np.float32).tobytes() for e in expected]
    for head in HEADS:
        answers = np.concatenate([targets[head] for _, targets in batches.as_numpy_iterator()])
        np.testing.assert_array_equal(answers, [example[head] for example in expected])


def batch_of_rectangles(count: int) -> dict[str, tf.Tensor]:
    """`count` times the same grey image with a bright rectangle, its box in slot 1; the others are absent."""
    image = np.full((SIZE, SIZE, 3), 60, np.uint8)
    image[8:16, 4:20] = 200
    boxes = np.zeros((3, 4), np.float32)
    boxes[1] = np.array([4, 8, 20, 16]) / SIZE
    return {
        "image": tf.constant(np.stack([image] * count)),
        "labels": tf.constant([[0.0, 1.0, 0.0]] * count),
        "boxes": tf.constant(np.stack([boxes] * count)),
    }


def seed(number: int) -> tf.Tensor:
    return tf.constant(number, tf.int64)


def test_each_image_of_a_batch_changes_in_its_own_way() -> None:
    batch = batch_of_rectangles(8)
    config = AugmentationConfig(flip=False, brightness=0.1, contrast=0.2)
    images = augment(batch, config, seed(3))["image"].numpy()
    assert len({image.tobytes() for image in images}) == 8
    # Shift and contrast are two draws: the dark and the bright grey do not move by the same amount.
    dark, bright = images[:, 0, 0, 0] - 60, images[:, 10, 10, 0] - 200
    assert (np.abs(dark - bright) > 1e-3).all()
    assert images.min() >= 0 and images.max() <= 255
    np.testing.assert_array_equal(images, augment(batch, config, seed(3))["image"])
    assert not np.array_equal(images, augment(batch, config, seed(4))["image"])


def test_a_flip_mirrors_image_and_boxes_and_leaves_absent_rows_zero() -> None:
    batch = batch_of_rectangles(32)
    result = augment(batch, FLIPPED, seed(0))
    mirrored = 0
    for image, boxes in zip(result["image"].numpy(), result["boxes"].numpy(), strict=True):
        bright = image[..., 0] > 130
        rows, columns = np.flatnonzero(bright.any(axis=1)), np.flatnonzero(bright.any(axis=0))
        box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) / SIZE
        np.testing.assert_allclose(boxes[1], box, atol=1e-6)
        assert not boxes[[0, 2]].any()
        mirrored += columns[0] == 12
    assert 4 < mirrored < 28
    np.testing.assert_array_equal(result["labels"], batch["labels"])


def test_without_changes_a_batch_stays_as_it_is() -> None:
    batch = batch_of_rectangles(4)
    result = augment(batch, UNCHANGED, seed(0))
    np.testing.assert_array_equal(result["boxes"], batch["boxes"])
    np.testing.assert_allclose(result["image"], tf.cast(batch["image"], tf.float32), atol=1e-3)
