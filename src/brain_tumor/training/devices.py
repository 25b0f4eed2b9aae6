"""The devices of a training, and TensorFlow's settings for them."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import tensorflow as tf

from brain_tumor.config import TrainConfig
from brain_tumor.runtime.errors import InputError


def training_devices() -> list[str]:
    """The names of the GPUs that a training uses; empty for the CPU."""
    return [device.name for device in tf.config.list_logical_devices("GPU")]


def build_strategy(devices: list[str]) -> tf.distribute.Strategy:
    """The distribution strategy: several devices mirror the weights and share each batch."""
    return tf.distribute.MirroredStrategy(devices) if len(devices) > 1 else tf.distribute.get_strategy()


def prefetch_to_gpu(batches: tf.data.Dataset, devices: list[str]) -> tf.data.Dataset:
    """Prefetches two batches to the GPU if there is exactly one.

    Args:
        batches: The batches, in the host's memory.
        devices: From `training_devices`. The strategy distributes batches to several.
    """
    if len(devices) != 1:
        return batches
    return batches.apply(tf.data.experimental.prefetch_to_device(devices[0], buffer_size=2))


def choose_jit_compile(devices: list[str]) -> bool | str:
    """Whether XLA compiles the training step: only on a single GPU.

    XLA takes minutes to compile ResNet101 on a CPU, and cannot compile a step across devices.
    """
    return "auto" if len(devices) == 1 else False


def choose_precision(precision: Literal["auto", "float32", "bfloat16"]) -> Literal["float32", "bfloat16"]:
    """The compute dtype.

    Args:
        precision: The configured one; `auto` is bfloat16 on GPUs that support it in hardware (compute
            capability 8.0 and later), otherwise float32.
    """
    if precision != "auto":
        return precision
    details = map(tf.config.experimental.get_device_details, tf.config.list_physical_devices("GPU"))
    capabilities = [detail.get("compute_capability", (0, 0)) for detail in details]
    return "bfloat16" if capabilities and min(capabilities) >= (8, 0) else "float32"


@contextmanager
def out_of_memory_explained(config: TrainConfig) -> Iterator[None]:
    """Turns TensorFlow's out-of-memory error into one that says what to change.

    Raises:
        InputError: Out of memory.
        OSError: The disk that TensorFlow writes to is full.
    """
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        if os.strerror(errno.ENOSPC) in str(error):  # TensorFlow raises the same error for a full disk
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        smaller = config.batch_size // 2
        advice = f"try {smaller}" if smaller else "try a smaller model.image_size"
        raise InputError(
            f"{config.name}: out of memory with training.batch_size={config.batch_size} at "
            f"{config.model.image_size} px; {advice}."
        ) from error
