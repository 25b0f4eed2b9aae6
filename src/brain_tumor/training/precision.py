"""The type that a model's layers compute in while it is trained.

Nothing here computes with TensorFlow itself, so that it works on any of Keras's backends.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import keras

from brain_tumor.model.detector import leaf_layers

# Grey levels up to 255 and what a loss reads need more digits than bfloat16's three.
EXACT_LAYERS = ("rgb", "preprocessing", "labels_logits", "labels", "boxes_map", "boxes_best", "boxes")


@contextmanager
def compute_policy(
    model: keras.Model, dtype: Literal["float32", "bfloat16"], replicas: int
) -> Iterator[None]:
    """Lets a model compute in another type or on several devices, and makes it what it was afterwards.

    Weights stay float32, and so does the model that is saved. On several devices BatchNormalization takes its
    statistics from the whole batch, not from a device's share.

    Args:
        model: The detector.
        dtype: What it computes in.
        replicas: How many devices share a batch.
    """
    layers = [layer for layer in leaf_layers(model) if layer.name not in EXACT_LAYERS]
    policies = [layer.dtype_policy for layer in layers]
    norms = [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]
    try:
        for layer in layers:
            if dtype == "bfloat16":
                layer.dtype_policy = keras.DTypePolicy("mixed_bfloat16")
        for norm in norms:
            norm.synchronized = replicas > 1
        yield
    finally:
        for layer, policy in zip(layers, policies, strict=True):
            layer.dtype_policy = policy
        for norm in norms:
            norm.synchronized = False
