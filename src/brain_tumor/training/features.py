"""A frozen backbone's feature maps in place of the images, for trainings in which it does not change."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def with_features(
    examples: tf.data.Dataset, extractor: Callable[[Any], Any], batch_size: int
) -> tf.data.Dataset:
    """The same examples with a backbone's feature maps in place of the image.

    They are computed as they are read; what is cached behind this is computed once.

    Args:
        examples: From `load_split`.
        extractor: A function from images (batch, size, size, 1 or 3) to a list of tensors.
        batch_size: Images a call.
    """
    count = examples.cardinality()
    return (
        examples.batch(batch_size)
        .map(lambda batch: {**batch, "image": extract_features(extractor, batch["image"])})
        .unbatch()
        .apply(tf.data.experimental.assert_cardinality(count))
    )


def extract_features(extractor: Callable[[Any], Any], images: Any) -> tuple[Any, ...]:
    """What a model that begins behind the backbone reads in place of images (as in `load_split`)."""
    # Keras answers with a tensor in place of a list of one.
    return tuple(tf.nest.flatten(extractor(images)))
