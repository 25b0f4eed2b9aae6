"""TensorFlow's settings that shorten the time to a first step."""

from typing import Any

import keras
import tensorflow as tf


def start_quickly() -> None:
    """Turns TensorFlow's graph optimizer off where there is no GPU.

    On a CPU it takes a third of the time to a large model's first step, and the steps after it gain nothing.
    """
    if not tf.config.list_physical_devices("GPU"):
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})


def as_graph(model: keras.Model) -> Any:
    """A model as one TensorFlow graph for batches of any size, in inference mode.

    `Model.predict` traces a second graph for a last, smaller batch.
    """
    images = tf.TensorSpec((None, *model.input_shape[1:]), tf.float32)
    return tf.function(lambda batch: model(batch, training=False), input_signature=[images], autograph=False)
