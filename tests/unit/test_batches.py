import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from brain_tumor.artifacts.records import open_records
from brain_tumor.config import HEADS, AugmentationConfig
from brain_tumor.records.read import load_split
from brain_tumor.runtime.errors import InputError
from brain_tumor.training.batches import (
    evaluation_batches,
    steps_per_epoch,
    training_batches,
    with_loss_weights,
)
from tests.unit.programs import PROGRAMS
from tests.unit.streams import SIZE, STEPS, assert_same, order, take

pytestmark = pytest.mark.slow

CHANGED = AugmentationConfig(
    flip=True,
    flip_vertical=True,
    shift=0.05,
    scale=0.1,
    rotation=5.0,
    brightness=0.2,
    contrast=0.2,
    gamma=0.1,
)
IN_A_FILE = 0.0  # GB of memory for a cache


def in_color(examples: tf.data.Dataset) -> tf.data.Dataset:
    return examples.map(lambda example: {**example, "image": tf.repeat(example["image"], 3, axis=-1)})


@pytest.fixture
def examples(tiny_records: Path) -> tf.data.Dataset:
    return load_split(open_records(tiny_records), "train", SIZE)


def test_epochs_have_different_orders_which_the_seed_determines(examples: tf.data.Dataset) -> None:
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
def test_a_stream_that_starts_at_an_epoch_equals_the_rest_of_the_whole_one(
    examples: tf.data.Dataset, cache_folder: Path, memory_cache_gb: float
) -> None:
    options: dict[str, Any] = {"seed": 1, "memory_cache_gb": memory_cache_gb}
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


def test_targets_belong_to_their_image(examples: tf.data.Dataset) -> None:
    truth = {example["image"].tobytes(): example for example in examples.as_numpy_iterator()}
    for images, boxes, labels in take(training_batches(examples, 8, HEADS, None, seed=1)):
        assert images.dtype == np.uint8 and images.shape == (8, SIZE, SIZE, 1)
        for index, image in enumerate(images):
            np.testing.assert_array_equal(labels[index], truth[image.tobytes()]["labels"])
            np.testing.assert_array_equal(boxes[index], truth[image.tobytes()]["boxes"])


@pytest.mark.parametrize("outputs", [["labels"], ["boxes"], ["boxes", "boxes_map"], [*HEADS, "boxes_map"]])
@pytest.mark.parametrize("augmentation", [CHANGED, None])
def test_a_batch_has_the_truth_of_each_output(
    examples: tf.data.Dataset, outputs: list[str], augmentation: AugmentationConfig | None
) -> None:
    for batches in (
        training_batches(examples, 8, outputs, augmentation, seed=1),
        evaluation_batches(examples, 8, outputs),
    ):
        _, targets = next(batches.as_numpy_iterator())
        assert set(targets) == set(outputs)
        for output, truth in targets.items():
            assert truth.shape == ((8, 3) if output == "labels" else (8, 3, 4))
            if output == "boxes_map":
                np.testing.assert_array_equal(truth, targets["boxes"])


def test_an_images_weight_is_one_over_the_count_in_the_whole_batch() -> None:
    boxes = np.zeros((4, 3, 4), np.float32)
    boxes[[0, 0, 2, 3, 3], [0, 1, 2, 0, 2]] = [0.1, 0.2, 0.3, 0.4]
    targets = {"labels": boxes.any(axis=-1).astype(np.float32), "boxes": boxes, "boxes_map": boxes}
    inputs, same, weights = with_loss_weights("images", targets)
    assert inputs == "images" and same == targets
    for output, expected in (("labels", 1 / 4), ("boxes", 1 / 5), ("boxes_map", 1 / 5)):
        np.testing.assert_allclose(weights[output], [expected] * 4)
    _, _, weights = with_loss_weights("images", {"boxes_map": np.zeros((2, 3, 4), np.float32)})
    np.testing.assert_allclose(weights["boxes_map"], [1, 1])


@pytest.mark.parametrize(("batch_size", "size", "steps"), [(8, 8, 4), (10, 10, 3), (32, 32, 1), (64, 32, 1)])
def test_a_last_smaller_batch_is_left_out_unless_it_is_the_only_one(
    examples: tf.data.Dataset, batch_size: int, size: int, steps: int
) -> None:
    assert steps_per_epoch(examples, batch_size) == steps
    batches = take(training_batches(examples, batch_size, HEADS, CHANGED, seed=1), 2 * steps)
    assert {len(images) for images, *_ in batches} == {size}
    for epoch in (batches[:steps], batches[steps:]):
        assert len(set(order(epoch))) == size * steps, "the next batch starts another epoch"


def test_the_stream_is_infinite(examples: tf.data.Dataset) -> None:
    batches = training_batches(examples, 8, HEADS, CHANGED, seed=1)
    assert int(batches.cardinality()) == tf.data.INFINITE_CARDINALITY


def test_ending_a_stream_does_not_wait_for_the_autotuner(examples: tf.data.Dataset) -> None:
    for stream in (
        training_batches(examples, 8, HEADS, CHANGED, seed=1),
        evaluation_batches(examples, 8, HEADS),
    ):
        assert stream.options().autotune.enabled is False


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


def test_a_cache_is_a_file_if_memory_is_too_small(examples: tf.data.Dataset, cache_folder: Path) -> None:
    size = 32 * (SIZE * SIZE + 4 * (3 + 12))
    kept = training_batches(examples, 8, HEADS, CHANGED, 1, memory_cache_gb=size / 1e9)
    in_memory = take(kept, 2 * STEPS)
    assert not list(cache_folder.iterdir())

    written = training_batches(examples, 8, HEADS, CHANGED, 1, memory_cache_gb=(size - 1) / 1e9)
    # The shuffle window has at least 16 batches, here the whole split.
    assert_same(take(written, 2 * STEPS), in_memory)
    files = list(cache_folder.rglob("*.data*"))
    assert sum(file.stat().st_size for file in files) == pytest.approx(size, rel=0.05), (
        "it contains uint8 images"
    )


def test_shuffling_a_large_split_in_windows_yields_each_image_once(cache_folder: Path) -> None:
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


def test_a_cache_file_is_deleted_with_its_process(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, PROGRAMS / "cache_on_disk.py", str(tmp_path)],
        check=True,
        text=True,
        stdout=subprocess.PIPE,
    )
    assert "examples" in done.stdout, "it existed"
    assert not list(tmp_path.glob("brain-tumor-cache-*"))


def test_a_disk_that_is_too_small_is_reported(
    examples: tf.data.Dataset, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    with pytest.raises(InputError, match=r"32 images take .* free in .*temporary; raise memory_cache_gb"):
        evaluation_batches(examples, 8, HEADS, IN_A_FILE)


def test_evaluation_has_each_image_once_in_order(tiny_records: Path) -> None:
    examples = load_split(open_records(tiny_records), "valid", SIZE)
    expected = list(examples.as_numpy_iterator())
    batches = evaluation_batches(examples, 6, HEADS)

    first, second = take(batches, 99), take(batches, 99)
    assert [images.shape for images, *_ in first] == [(count, SIZE, SIZE, 1) for count in (6, 6, 4)]
    assert_same(first, second)
    images, boxes, labels = (np.concatenate(arrays) for arrays in zip(*first, strict=True))
    np.testing.assert_array_equal(images, [example["image"] for example in expected])
    np.testing.assert_array_equal(boxes, [example["boxes"] for example in expected])
    np.testing.assert_array_equal(labels, [example["labels"] for example in expected])


def test_one_channel_is_equivalent_to_three_equal_ones(examples: tf.data.Dataset) -> None:
    grey = take(training_batches(examples, 8, HEADS, CHANGED, seed=1))
    color = take(training_batches(in_color(examples), 8, HEADS, CHANGED, seed=1))
    for (images, *targets), (others, *same) in zip(grey, color, strict=True):
        assert others.shape == (8, SIZE, SIZE, 3)
        # A mean over three times as many pixels may be rounded differently, by one level.
        assert np.abs(images.astype(int) - others).max() <= 1
        assert_same([targets], [same])
