"""The compute dtype of a model's layers during training.

Nothing here uses TensorFlow directly, so that it works with any Keras backend.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import keras

from brain_tumor.model.detector import leaf_layers

# Kept in float32: grey levels up to 255 and the losses' inputs need more than bfloat16's three digits.
EXACT_LAYERS = ("rgb", "preprocessing", "labels_logits", "labels", "boxes_map", "boxes_best", "boxes")


@contextmanager
def compute_policy(
    model: keras.Model, dtype: Literal["float32", "bfloat16"], replicas: int
) -> Iterator[None]:
    """Sets a model's compute dtype and number of devices, and restores the previous ones afterwards.

    Weights stay float32, and so does the saved model. On several devices, BatchNormalization's statistics are
    those of the whole batch, not of each device's part.

    Args:
        model: The detector.
        dtype: The compute dtype.
        replicas: The number of devices that share a batch.
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
