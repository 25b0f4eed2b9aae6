"""Minimal hand-written training steps in TensorFlow and JAX, as a reference for the project's step."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from brain_tumor.config import TrainConfig

LABELS = 3

Batch = tuple[np.ndarray, dict[str, np.ndarray]]


def build_model(config: TrainConfig) -> Any:
    """Builds the model of a phase with only its trainable heads, as `train` does."""
    import keras

    from brain_tumor.model.detector import build_detector, freeze, resolve_trainable_layers, training_model

    phase = config.phase
    keras.utils.set_random_seed(config.seed)
    model = build_detector(config.model, LABELS, phase.heads)
    total = len(model.get_layer("backbone").layers)
    layers = resolve_trainable_layers(total, phase.trainable_layers, phase.trainable_fraction)
    freeze(model, phase.train_heads, layers)
    return training_model(model, phase.trained_heads)


def random_batch(config: TrainConfig) -> Batch:
    """Makes a batch of noise with boxes in half of the slots."""
    rng = np.random.default_rng(0)
    size, count = config.model.image_size, config.batch_size
    images = rng.integers(0, 256, (count, size, size, 1), np.uint8)
    labels = rng.integers(0, 2, (count, LABELS)).astype(np.float32)
    corners = np.sort(rng.random((count, LABELS, 2, 2)), axis=2).reshape(count, LABELS, 4)
    boxes = corners.astype(np.float32) * labels[..., None]
    return images, {"labels": labels, "boxes": boxes, "boxes_map": boxes}


def compile_on_one_device(model: Any, config: TrainConfig, steps: int, jit: bool) -> None:
    """Compiles a model as `train` does on one device."""
    import keras

    from brain_tumor.training.compile import compile_model

    compile_model(model, config.phase, {f"label{slot}": 1.0 for slot in range(LABELS)}, steps, jit)
    if keras.backend.backend() == "tensorflow" and not jit:
        from brain_tumor.model.graphs import flatten_graphs

        flatten_graphs(model, training=True)


def bare_tensorflow(model: Any, config: TrainConfig, batch: Batch, jit: bool) -> Callable[[], Any]:
    """Makes a function that does a training step and returns the loss: forward, loss, backward, update."""
    import tensorflow as tf

    optimizer, loss_of = _optimizer(model, config), _loss(config)

    @tf.function(jit_compile=jit, autograph=False)
    def train(images: Any, truth: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = loss_of(truth, model(images, training=True))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)
        return loss

    images, truth = tf.nest.map_structure(tf.constant, batch)
    return lambda: train(images, truth)


def bare_jax(model: Any, config: TrainConfig, batch: Batch) -> Callable[[], Any]:
    """The same as `bare_tensorflow`, in JAX."""
    import jax

    optimizer, loss_of = _optimizer(model, config), _loss(config)

    def loss_and_rest(trainable: Any, rest: Any, images: Any, truth: Any) -> Any:
        answers, rest = model.stateless_call(trainable, rest, images, training=True)
        return loss_of(truth, answers), rest

    # Donates the old state's memory to the new one, as Keras does: otherwise a GPU needs it twice. On a CPU
    # this makes XLA's program a tenth slower.
    @partial(jax.jit, donate_argnums=0)
    def train(state: Any, images: Any, truth: Any) -> Any:
        trainable, rest, moments = state
        gradient = jax.value_and_grad(loss_and_rest, has_aux=True)
        (loss, rest), gradients = gradient(trainable, rest, images, truth)
        trainable, moments = optimizer.stateless_apply(moments, gradients, trainable)
        return (trainable, rest, moments), loss

    groups = (model.trainable_variables, model.non_trainable_variables, optimizer.variables)
    # Copies, since `fit` donates the model's own arrays.
    state = [[jax.numpy.array(variable.value, copy=True) for variable in group] for group in groups]
    images, truth = jax.device_put(batch)

    def run() -> Any:
        nonlocal state
        state, loss = train(state, images, truth)
        return loss

    return run


def _optimizer(model: Any, config: TrainConfig) -> Any:
    from brain_tumor.training.compile import build_optimizer

    optimizer = build_optimizer(config.phase, 1)
    optimizer.build(model.trainable_variables)
    return optimizer


def _loss(config: TrainConfig) -> Callable[[Any, Any], Any]:
    """The weighted sum of the heads' losses, from truth and predictions by output."""
    from brain_tumor.losses import DetectionLoss, WeightedBinaryCrossentropy

    weights = config.phase.loss_weights
    labels = WeightedBinaryCrossentropy([1.0] * LABELS)
    boxes = DetectionLoss(config.phase.box_loss, weights.boxes, weights.scores)

    def loss(truth: Any, answers: Any) -> Any:
        of_labels = labels(truth["labels"], answers["labels"])
        return weights.labels * of_labels + boxes(truth["boxes"], answers["boxes_map"])

    return loss
