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

# The fraction of a cosine schedule's steps for the warm-up.
WARMUP_SHARE = 0.05


def compile_model(
    model: keras.Model,
    phase: PhaseConfig,
    class_weights: dict[str, float],
    steps: int,
    jit_compile: bool | str = "auto",
    reduction: str = "sum_over_batch_size",
    watched: Collection[str] | None = None,
) -> None:
    """Compiles a model with the phase's losses, metrics and optimizer.

    Metrics are named `<head>_<metric>`, those of one label's boxes `boxes_<metric>_<label>`.

    Args:
        model: From `training_model`.
        phase: The phase.
        class_weights: Each label's weight in the class loss where it is present, in slot order.
        steps: Training steps of the whole phase, the length of a cosine schedule.
        jit_compile: Keras's argument: whether XLA compiles the step.
        reduction: The losses' own; see `brain_tumor.losses.BoxLoss`.
        watched: The labels whose boxes get their own metrics; None for all. The metrics of a label that is
            not in the validation images would be 0.
    """
    outputs = list(model.output)
    weights = phase.loss_weights
    losses = {
        "labels": WeightedBinaryCrossentropy(list(class_weights.values()), reduction=reduction),
        "boxes": BOX_LOSSES[phase.box_loss](reduction=reduction),
        "boxes_map": DetectionLoss(phase.box_loss, weights.boxes, weights.scores, reduction=reduction),
    }
    learning = [name for name in outputs if not (name == "boxes" and "boxes_map" in outputs)]
    # The detection loss includes its weights.
    shares = {"labels": weights.labels, "boxes": weights.boxes, "boxes_map": 1.0}
    metrics = _metrics(list(class_weights), watched, "boxes_map" in outputs)
    if len(outputs) == 1:
        # Keras prefixes a metric's name with the output's only if there are several outputs.
        for metric in metrics[outputs[0]]:
            metric.name = f"{outputs[0]}_{metric.name}"
    model.compile(
        build_optimizer(phase, steps),
        loss={name: losses[name] for name in learning},
        loss_weights={name: shares[name] for name in learning},
        metrics={name: metrics[name] for name in outputs if name in metrics},
        jit_compile=jit_compile,
    )
    _create_variables(model, len(class_weights))


def _metrics(
    labels: list[str], watched: Collection[str] | None, ranked: bool
) -> dict[str, list[keras.metrics.Metric]]:
    """The metrics of each head; `ranked` says whether boxes have scores."""
    # A mean over labels hides a label whose boxes are all wrong.
    own = {
        metric_name(label): slot for slot, label in enumerate(labels) if watched is None or label in watched
    }
    of_boxes: list[keras.metrics.Metric] = [
        BoxIoU(name="iou"),
        BoxRecall(0.5, name="recall_at_50"),
        BoxMeanSquaredError(name="mse"),
        BoxMeanAbsoluteError(name="mae"),
        *(BoxIoU(slot, name=f"iou_{label}") for label, slot in own.items()),
    ]
    if ranked:
        of_boxes += [BoxAP50(slot, name=f"ap50_{label}") for label, slot in own.items()]
    return {"labels": [MeanAUC(len(labels))], "boxes": of_boxes}


def _create_variables(model: keras.Model, num_classes: int) -> None:
    """Creates the variables of the optimizer, the losses and the metrics.

    If the first step created them, Keras would trace it twice, which is most of its time.
    """
    model.optimizer.build(model.trainable_variables)
    answers = {name: ops.zeros((1, *output.shape[1:])) for name, output in model.output.items()}
    truth = {
        name: ops.zeros((1, num_classes) if name == "labels" else (1, num_classes, 4)) for name in answers
    }
    model.compute_loss(y=truth, y_pred=answers)
    model.compute_metrics(x=None, y=truth, y_pred=answers)
    model.reset_metrics()


def build_optimizer(phase: PhaseConfig, steps: int) -> keras.optimizers.Optimizer:
    """AdamW with the phase's learning rate: with fused updates on TensorFlow, otherwise Keras's.

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
    optimizer = adamw(rate, weight_decay=phase.weight_decay, global_clipnorm=phase.clip_norm)
    # Decaying a normalization's scale shrinks its channel, and a bias does not overfit.
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer
