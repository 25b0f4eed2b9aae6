"""The part of a detector that a phase trains, with its losses, metrics and optimizer.

Nothing here computes with TensorFlow itself, so that it trains on any of Keras's backends.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import keras
from keras import ops

from brain_tumor.config import PhaseConfig
from brain_tumor.errors import InputError
from brain_tumor.losses import BOX_LOSSES, WeightedBinaryCrossentropy
from brain_tumor.metrics import BoxIoU, BoxMeanAbsoluteError, BoxMeanSquaredError, BoxRecall
from brain_tumor.model.detector import HEADS, select_heads

METRIC_NAMES = {"labels": "auc", "boxes": "iou"}
SCHEDULES = ("plateau", "cosine")
# The share of a cosine schedule's steps in which the rate rises to its height.
WARMUP_SHARE = 0.05
# Grey levels up to 255 and what a loss reads need more digits than bfloat16's three.
EXACT_LAYERS = ("preprocessing", "labels", "boxes")


def select_learner(model: keras.Model, phase: PhaseConfig) -> keras.Model:
    """The part of a model that a phase trains: the heads whose loss counts, and all below them.

    Raises:
        InputError: The phase trains nothing or a head that the model lacks, or monitors an unknown figure.
    """
    unusable = [head for head, weight in phase.loss_weights.items() if head not in HEADS or not weight >= 0]
    if unusable:
        raise InputError(
            f"loss_weights={phase.loss_weights}: give numbers from 0 for {' and '.join(HEADS)} alone."
        )
    heads = [head for head in phase.train_heads if phase.loss_weights.get(head, 0)]
    if not heads:
        raise InputError(
            f"train_heads={phase.train_heads} learn nothing with loss_weights={phase.loss_weights}."
        )
    monitors = [f"val_{head}_{METRIC_NAMES[head]}" for head in heads]
    if phase.monitor not in monitors:
        raise InputError(
            f"monitor={phase.monitor} is no figure of this phase; choose {' or '.join(monitors)}."
        )
    return select_heads(model, heads)


def compile_learner(
    learner: keras.Model,
    phase: PhaseConfig,
    class_weights: list[float],
    steps: int,
    jit_compile: bool | str = "auto",
    reduction: str = "sum_over_batch_size",
) -> None:
    """Compiles a model with the phase's losses, metrics and optimizer. Metrics are named `<head>_<metric>`.

    Args:
        learner: From `select_learner`.
        phase: The phase.
        class_weights: Weight of each present label in the class loss.
        steps: Training steps of the whole phase, over which a cosine schedule goes.
        jit_compile: Keras's argument: whether XLA compiles the step.
        reduction: The losses' own; see `brain_tumor.losses.BoxLoss`.

    Raises:
        InputError: The box loss or the schedule is unknown.
    """
    if phase.box_loss not in BOX_LOSSES:
        raise InputError(f"box_loss={phase.box_loss} is not known; choose one of {', '.join(BOX_LOSSES)}.")
    heads = list(learner.output)
    losses = {
        "labels": WeightedBinaryCrossentropy(class_weights, reduction=reduction),
        "boxes": BOX_LOSSES[phase.box_loss](phase.l1_weight, reduction=reduction),
    }
    metrics = {
        "labels": [keras.metrics.AUC(multi_label=True, num_labels=len(class_weights), name="auc")],
        "boxes": [
            BoxIoU(name="iou"),
            BoxRecall(0.5, name="recall_at_50"),
            BoxMeanSquaredError(name="mse"),
            BoxMeanAbsoluteError(name="mae"),
        ],
    }
    if len(heads) == 1:
        # Keras puts the output's name before the metric's only where there are several outputs.
        for metric in metrics[heads[0]]:
            metric.name = f"{heads[0]}_{metric.name}"
    optimizer = build_optimizer(phase, steps)
    learner.compile(
        optimizer,
        loss={head: losses[head] for head in heads},
        loss_weights={head: phase.loss_weights[head] for head in heads},
        metrics={head: metrics[head] for head in heads},
        jit_compile=jit_compile,
    )
    _create_variables(learner)


def _create_variables(learner: keras.Model) -> None:
    """Creates what the optimizer, the losses and the metrics keep.

    Left to the first step, each of these makes Keras trace that step twice, which is most of its time.
    """
    learner.optimizer.build(learner.trainable_variables)
    answers = {head: ops.zeros((1, *output.shape[1:])) for head, output in learner.output.items()}
    learner.compute_loss(y=answers, y_pred=answers)
    learner.compute_metrics(x=None, y=answers, y_pred=answers)
    learner.reset_metrics()


def build_optimizer(phase: PhaseConfig, steps: int) -> keras.optimizers.Optimizer:
    """AdamW at the phase's rate: on TensorFlow with fused updates, else Keras's own.

    Raises:
        InputError: The schedule is unknown.
    """
    if phase.schedule not in SCHEDULES:
        raise InputError(f"schedule={phase.schedule} is not known; choose one of {', '.join(SCHEDULES)}.")
    rate = phase.learning_rate
    if phase.schedule == "cosine":
        warmup = max(1, int(steps * WARMUP_SHARE))
        rate = keras.optimizers.schedules.CosineDecay(
            0.0, max(1, steps - warmup), warmup_target=phase.learning_rate, warmup_steps=warmup
        )
    adamw = keras.optimizers.AdamW
    if keras.backend.backend() == "tensorflow":
        from brain_tumor.training.optimizer import FusedAdamW as adamw  # noqa: N813
    return adamw(rate, weight_decay=phase.weight_decay, global_clipnorm=phase.clip_norm)


@contextmanager
def computing(model: keras.Model, dtype: str, replicas: int) -> Iterator[None]:
    """Lets a model compute in another type or on several devices, and makes it what it was afterwards.

    Weights stay float32, and so does the model that is saved. On several devices BatchNormalization takes its
    statistics from the whole batch, not from a device's share.

    Args:
        model: The detector.
        dtype: `float32` or `bfloat16`.
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


def changing_variables(model: keras.Model) -> list[keras.Variable]:
    """What a training changes in a model: all but the weights of frozen layers.

    Dropout's random state is among it. Saving the rest would make a checkpoint of a training of the heads as
    large as one of everything; it comes from the start model, or from the seed.
    """
    frozen = {id(weight) for layer in leaf_layers(model) if not layer.trainable for weight in layer.weights}
    return [variable for variable in model.variables if id(variable) not in frozen]


def leaf_layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """The layers of a model, in place of a model among them its layers."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from leaf_layers(layer)
        else:
            yield layer
