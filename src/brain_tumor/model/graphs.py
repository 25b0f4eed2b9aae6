"""Models as TensorFlow graphs, made quickly."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf


def skip_graph_optimizer_on_cpu() -> None:
    """Turns TensorFlow's graph optimizer off where there is no GPU.

    On a CPU it takes a third of the time to a large model's first step, and the steps after it gain nothing.
    """
    # Listing these, unlike the physical ones, starts TensorFlow's runtime. Before its start the setting would
    # reach the input pipeline's functions too, and their last digits; so results would hang on what a process
    # did before.
    if not tf.config.list_logical_devices("GPU"):
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})


def as_graph(model: keras.Model) -> Any:
    """A model as one TensorFlow graph for batches of any size, in inference mode.

    `Model.predict` traces a second graph for a last, smaller batch.

    Args:
        model: A model of images (batch, size, size, 1 or 3).

    Returns:
        A `tf.function` from such a batch, uint8, to the model's outputs.
    """
    images = tf.TensorSpec((None, *model.input_shape[1:]), tf.uint8)
    return tf.function(lambda batch: model(batch, training=False), input_signature=[images], autograph=False)


def flatten_graphs(model: keras.Model, training: bool) -> None:
    """Makes one TensorFlow graph of a compiled model's evaluation step, and one of its training step.

    Keras puts the graph of a step into a second one, which reads the batch, for the sake of XLA and of
    several devices. Without either, both graphs only have to be prepared one after the other, which is a
    quarter of the time to a ResNet101's first step. An evaluation is better off without XLA: its last batch
    is a smaller one, which XLA would compile anew.

    Args:
        model: The model.
        training: Whether the training step is flattened too; not where XLA compiles it.
    """

    def flat(step: Callable[[Any], Any]) -> Any:
        return tf.function(lambda iterator: step(iterator.get_next()), autograph=False, reduce_retracing=True)

    # What is there already, `fit` does not make.
    model.test_function = flat(model.test_step)
    if training:
        model.train_function = flat(model.train_step)
