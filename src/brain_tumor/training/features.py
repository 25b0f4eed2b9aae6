"""Caching of a frozen backbone's feature maps."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def with_features(
    examples: tf.data.Dataset, extractor: Callable[[Any], Any], batch_size: int
) -> tf.data.Dataset:
    """Replaces the examples' images with the outputs of a frozen part, such as a backbone's feature maps.

    They are computed lazily; a later cache keeps them.

    Args:
        examples: From `load_split`.
        extractor: A function from images (batch, size, size, 1 or 3) to a list of tensors.
        batch_size: Images per call.
    """
    count = examples.cardinality()
    return (
        examples.batch(batch_size)
        .map(lambda batch: {**batch, "image": extract_features(extractor, batch["image"])})
        .unbatch()
        .apply(tf.data.experimental.assert_cardinality(count))
    )


def extract_features(extractor: Callable[[Any], Any], images: Any) -> tuple[Any, ...]:
    """The extractor's outputs for images (as in `load_split`), as a tuple of tensors."""
    # Keras returns a list of one tensor as the tensor.
    return tuple(tf.nest.flatten(extractor(images)))
