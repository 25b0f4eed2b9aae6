"""How TensorFlow is set up for the hardware at hand: quick to start, exact on a CPU, fast on a GPU."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from brain_tumor.errors import InputError

PRECISIONS = ("auto", "float32", "bfloat16")


def start_quickly() -> None:
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
    """
    images = tf.TensorSpec((None, *model.input_shape[1:]), tf.float32)
    return tf.function(lambda batch: model(batch, training=False), input_signature=[images], autograph=False)


def flatten_graphs(learner: keras.Model) -> None:
    """Makes one TensorFlow graph each of a compiled model's training step and of its evaluation step.

    Keras puts the graph of a step into a second one, which reads the batch, for the sake of XLA and of
    several devices. Without either, both graphs only have to be prepared one after the other, which is a
    quarter of the time to a ResNet101's first step.
    """

    def flat(step: Callable[[Any], Any]) -> Any:
        return tf.function(lambda iterator: step(iterator.get_next()), autograph=False, reduce_retracing=True)

    # What is there already, `fit` does not make.
    learner.train_function, learner.test_function = flat(learner.train_step), flat(learner.test_step)


def training_devices() -> list[str]:
    """The names of the GPUs that a training uses; none where it uses the CPU."""
    return [device.name for device in tf.config.list_logical_devices("GPU")]


def build_strategy(devices: list[str]) -> tf.distribute.Strategy:
    """How a batch is spread: over all of several devices, each with a copy of the weights."""
    return tf.distribute.MirroredStrategy(devices) if len(devices) > 1 else tf.distribute.get_strategy()


def choose_jit_compile(devices: list[str]) -> bool | str:
    """Whether XLA compiles the training step: on one GPU.

    On a CPU it takes minutes to compile a ResNet101, and it cannot compile a step across devices.
    """
    return "auto" if len(devices) == 1 else False


def choose_precision(precision: str) -> str:
    """The type to compute in: `float32` or `bfloat16`.

    Args:
        precision: One of `PRECISIONS`; `auto` takes bfloat16 where a GPU has units for it (compute capability
            8.0 and later).

    Raises:
        InputError: The precision is unknown.
    """
    if precision not in PRECISIONS:
        raise InputError(f"precision={precision} is not known; choose one of {', '.join(PRECISIONS)}.")
    if precision != "auto":
        return precision
    details = map(tf.config.experimental.get_device_details, tf.config.list_physical_devices("GPU"))
    capabilities = [detail.get("compute_capability", (0, 0)) for detail in details]
    return "bfloat16" if capabilities and min(capabilities) >= (8, 0) else "float32"
