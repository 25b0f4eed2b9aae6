"""A model's losses, metrics and optimizer, as a phase wants them.

Nothing here computes with TensorFlow itself, so that it trains on any of Keras's backends.
"""

import keras
from keras import ops

from brain_tumor.config import PhaseConfig
from brain_tumor.losses import BOX_LOSSES, WeightedBinaryCrossentropy
from brain_tumor.metrics import BoxIoU, BoxMeanAbsoluteError, BoxMeanSquaredError, BoxRecall

# The share of a cosine schedule's steps in which the rate rises to its height.
WARMUP_SHARE = 0.05


def compile_model(
    model: keras.Model,
    phase: PhaseConfig,
    class_weights: list[float],
    steps: int,
    jit_compile: bool | str = "auto",
    reduction: str = "sum_over_batch_size",
) -> None:
    """Compiles a model with the phase's losses, metrics and optimizer. Metrics are named `<head>_<metric>`.

    Args:
        model: A model whose outputs are the heads that learn.
        phase: The phase.
        class_weights: Weight of each present label in the class loss.
        steps: Training steps of the whole phase, over which a cosine schedule goes.
        jit_compile: Keras's argument: whether XLA compiles the step.
        reduction: The losses' own; see `brain_tumor.losses.BoxLoss`.
    """
    heads = list(model.output)
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
    model.compile(
        build_optimizer(phase, steps),
        loss={head: losses[head] for head in heads},
        loss_weights={head: getattr(phase.loss_weights, head) for head in heads},
        metrics={head: metrics[head] for head in heads},
        jit_compile=jit_compile,
    )
    _create_variables(model)


def _create_variables(model: keras.Model) -> None:
    """Creates what the optimizer, the losses and the metrics keep.

    Left to the first step, each of these makes Keras trace that step twice, which is most of its time.
    """
    model.optimizer.build(model.trainable_variables)
    answers = {head: ops.zeros((1, *output.shape[1:])) for head, output in model.output.items()}
    model.compute_loss(y=answers, y_pred=answers)
    model.compute_metrics(x=None, y=answers, y_pred=answers)
    model.reset_metrics()


def build_optimizer(phase: PhaseConfig, steps: int) -> keras.optimizers.Optimizer:
    """AdamW at the phase's rate: on TensorFlow with fused updates, else Keras's own.

    Args:
        phase: The phase.
        steps: Training steps of the whole phase.
    """
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
