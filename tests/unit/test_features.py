from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from brain_tumor.artifacts.records import open_records
from brain_tumor.config import HEADS
from brain_tumor.records.read import load_split
from brain_tumor.training.batches import evaluation_batches, training_batches
from brain_tumor.training.features import with_features
from tests.unit.streams import SIZE, STEPS, take

pytestmark = pytest.mark.slow

IN_A_FILE = 0.0  # GB of memory for a cache


@pytest.fixture
def examples(tiny_records: Path) -> tf.data.Dataset:
    return load_split(open_records(tiny_records), "train", SIZE)


@pytest.mark.parametrize("memory_cache_gb", [1.0, IN_A_FILE])
def test_features_are_computed_once_and_keep_their_targets(
    examples: tf.data.Dataset, cache_folder: Path, memory_cache_gb: float
) -> None:
    calls = []

    def features(images: np.ndarray) -> list[np.ndarray]:
        calls.append(images.shape)
        return [images.mean(axis=(1, 2), dtype=np.float32), images[:, ::8, ::8]]

    def extractor(images: tf.Tensor) -> list[tf.Tensor]:
        pooled, small = tf.numpy_function(features, [images], [tf.float32, tf.uint8])
        return [tf.ensure_shape(pooled, (None, 1)), tf.ensure_shape(small, (None, 4, 4, 1))]

    batches = training_batches(
        with_features(examples, extractor, 12), 8, HEADS, None, seed=1, memory_cache_gb=memory_cache_gb
    )
    seen = [
        (*feature, boxes[index])
        for inputs, boxes, _ in take(batches, 2 * STEPS)
        for index, feature in enumerate(zip(*inputs, strict=True))
    ]

    assert calls == [(count, SIZE, SIZE, 1) for count in (12, 12, 8)]
    truth = {example["image"][::8, ::8].tobytes(): example for example in examples.as_numpy_iterator()}
    for epoch in (seen[:32], seen[32:]):
        assert {small.tobytes() for _, small, _ in epoch} == set(truth)
        for pooled, small, boxes in epoch:
            example = truth[small.tobytes()]
            np.testing.assert_allclose(pooled, [example["image"].mean()], rtol=1e-5)
            np.testing.assert_array_equal(boxes, example["boxes"])
    assert [small.tobytes() for _, small, _ in seen[:32]] != [small.tobytes() for _, small, _ in seen[32:]]


def test_a_single_feature_map_works_like_several(examples: tf.data.Dataset) -> None:
    features = with_features(examples, lambda images: images[:, ::8, ::8], 12)
    assert int(features.cardinality()) == 32
    for batches in (
        training_batches(features, 8, ["labels"], None, seed=1),
        evaluation_batches(features, 8, ["labels"]),
    ):
        for inputs, _ in take(batches):
            assert [feature.shape for feature in inputs] == [(8, 4, 4, 1)]
