"""Faster construction of TensorFlow graphs."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf


def skip_graph_optimizer_on_cpu() -> None:
    """Turns off TensorFlow's graph optimizer if there is no GPU.

    On a CPU it takes a third of the time until a large model's first step, and later steps are not faster.
    """
    # Unlike listing physical devices, this initializes TensorFlow's runtime. Set before that, the option
    # would also change the last digits of the input pipeline's results, which would then depend on what the
    # process did before.
    if not tf.config.list_logical_devices("GPU"):
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})


def as_graph(model: keras.Model) -> Any:
    """Traces a model as one TensorFlow graph for batches of any size, in inference mode.

    `Model.predict` traces a second graph for an incomplete last batch.

    Args:
        model: A model whose input is images (batch, size, size, 1 or 3).

    Returns:
        A `tf.function` from such a batch, uint8, to the model's outputs.
    """
    images = tf.TensorSpec((None, *model.input_shape[1:]), tf.uint8)
    return tf.function(lambda batch: model(batch, training=False), input_signature=[images], autograph=False)


def flatten_graphs(model: keras.Model, training: bool) -> None:
    """Builds one TensorFlow graph each for a compiled model's evaluation and training steps.

    Keras nests a step's graph in a second one that reads the batch, which only XLA and several devices need.
    It takes a quarter of the time until ResNet101's first step. Evaluation does not use XLA, which would
    compile again for an incomplete last batch.

    Args:
        model: The compiled model.
        training: Whether to flatten the training step too; False if XLA compiles it.
    """

    def flat(step: Callable[[Any], Any]) -> Any:
        return tf.function(lambda iterator: step(iterator.get_next()), autograph=False, reduce_retracing=True)

    # Keras's `fit` and `evaluate` use existing functions.
    model.test_function = flat(model.test_step)
    if training:
        model.train_function = flat(model.train_step)
