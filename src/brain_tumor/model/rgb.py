"""Conversion of grey images to RGB."""

from typing import Any

import keras
from keras import ops
from typing_extensions import override


@keras.saving.register_keras_serializable("brain_tumor")
class Rgb(keras.layers.Layer):
    """Converts grey or RGB images (batch, rows, columns, 1 or 3) to RGB."""

    @override
    def call(self, inputs: Any) -> Any:
        return ops.broadcast_to(inputs, (*ops.shape(inputs)[:-1], 3))

    @override
    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*input_shape[:-1], 3)
