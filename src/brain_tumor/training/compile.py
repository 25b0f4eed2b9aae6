"""The losses, metrics and optimizer of a phase.

Nothing here uses TensorFlow directly, so that it works with any Keras backend.
"""

from collections.abc import Collection

import keras
from keras import ops

from brain_tumor.config import PhaseConfig
from brain_tumor.config.dataset import metric_name
from brain_tumor.losses import BOX_LOSSES, DetectionLoss, WeightedBinaryCrossentropy
from brain_tumor.metrics import (
    BoxAP50,
    BoxIoU,
    BoxMeanAbsoluteError,
    BoxMeanSquaredError,
    BoxRecall,
    MeanAUC,
)

# The fraction of the steps of a cosine schedule that are warm-up.
WARMUP_FRACTION = 0.05


def compile_model(
    model: keras.Model,
    phase: PhaseConfig,
    class_weights: dict[str, float],
    steps: int,
    jit_compile: bool | str = "auto",
    reduction: str = "sum_over_batch_size",
    measured_labels: Collection[str] | None = None,
) -> None:
    """Compiles a model with the phase's losses, metrics and optimizer.

    Metrics are named `<head>_<metric>`, and `boxes_<metric>_<label>` for the boxes of one label.

    Args:
        model: From `training_model`.
        phase: The phase's config.
        class_weights: The weight of each label's positives in the class loss, in slot order.
        steps: Training steps of the whole phase: the length of a cosine schedule.
        jit_compile: Whether XLA compiles the step, see `keras.Model.compile`.
        reduction: The reduction of the losses, see `brain_tumor.losses.BoxLoss`.
        measured_labels: The labels whose boxes get metrics of their own; None for all. Those of a label that
            is not in the validation images would be 0.
    """
    outputs = list(model.output)
    weights = phase.loss_weights
    losses = {
        "labels": WeightedBinaryCrossentropy(list(class_weights.values()), reduction=reduction),
        "boxes": BOX_LOSSES[phase.box_loss](reduction=reduction),
        "boxes_map": DetectionLoss(phase.box_loss, weights.boxes, weights.scores, reduction=reduction),
    }
    with_loss = [name for name in outputs if not (name == "boxes" and "boxes_map" in outputs)]
    # The detection loss applies its weights itself.
    loss_weights = {"labels": weights.labels, "boxes": weights.boxes, "boxes_map": 1.0}
    metrics = _metrics(list(class_weights), measured_labels, "boxes_map" in outputs)
    if len(outputs) == 1:
        # Keras prefixes metric names with the output's name only if there are several outputs.
        for metric in metrics[outputs[0]]:
            metric.name = f"{outputs[0]}_{metric.name}"
    model.compile(
        build_optimizer(phase, steps),
        loss={name: losses[name] for name in with_loss},
        loss_weights={name: loss_weights[name] for name in with_loss},
        metrics={name: metrics[name] for name in outputs if name in metrics},
        jit_compile=jit_compile,
    )
    _create_variables(model, len(class_weights))


def _metrics(
    labels: list[str], measured_labels: Collection[str] | None, has_scores: bool
) -> dict[str, list[keras.metrics.Metric]]:
    """The metrics of each head; `has_scores`: whether boxes have scores."""
    # A mean over labels would hide a label whose boxes are all wrong.
    slots = {
        metric_name(label): slot
        for slot, label in enumerate(labels)
        if measured_labels is None or label in measured_labels
    }
    box_metrics: list[keras.metrics.Metric] = [
        BoxIoU(name="iou"),
        BoxRecall(0.5, name="recall_at_50"),
        BoxMeanSquaredError(name="mse"),
        BoxMeanAbsoluteError(name="mae"),
        *(BoxIoU(slot, name=f"iou_{label}") for label, slot in slots.items()),
    ]
    if has_scores:
        box_metrics += [BoxAP50(slot, name=f"ap50_{label}") for label, slot in slots.items()]
    return {"labels": [MeanAUC(len(labels))], "boxes": box_metrics}


def _create_variables(model: keras.Model, num_classes: int) -> None:
    """Creates the variables of the optimizer, the losses and the metrics.

    If the first step created them, Keras would trace it twice, and tracing is most of its time.
    """
    model.optimizer.build(model.trainable_variables)
    predictions = {name: ops.zeros((1, *output.shape[1:])) for name, output in model.output.items()}
    truth = {
        name: ops.zeros((1, num_classes) if name == "labels" else (1, num_classes, 4)) for name in predictions
    }
    model.compute_loss(y=truth, y_pred=predictions)
    model.compute_metrics(x=None, y=truth, y_pred=predictions)
    model.reset_metrics()


def build_optimizer(phase: PhaseConfig, steps: int) -> keras.optimizers.Optimizer:
    """Builds AdamW with the phase's learning rate: on TensorFlow with fused updates, otherwise Keras's.

    Args:
        phase: The phase's config.
        steps: Training steps of the whole phase.
    """
    rate = phase.learning_rate
    if phase.schedule == "cosine":
        warmup = max(1, int(steps * WARMUP_FRACTION))
        rate = keras.optimizers.schedules.CosineDecay(
            0.0, max(1, steps - warmup), warmup_target=phase.learning_rate, warmup_steps=warmup
        )
    adamw = keras.optimizers.AdamW
    if keras.backend.backend() == "tensorflow":
        from brain_tumor.training.optimizer import FusedAdamW as adamw  # noqa: N813
    optimizer = adamw(rate, weight_decay=phase.weight_decay, global_clipnorm=phase.clip_norm)
    # Decay would shrink the channels of normalizations, and biases do not overfit.
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer
