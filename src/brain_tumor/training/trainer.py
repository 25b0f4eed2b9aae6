"""One training: a phase of the detector, from records and perhaps a start model to a model artifact."""

import json
import logging
import math
import time
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from brain_tumor.config import PhaseConfig, TrainConfig, to_json
from brain_tumor.data.records import read_statistics
from brain_tumor.errors import InputError
from brain_tumor.losses import DIoULoss, WeightedBinaryCrossentropy
from brain_tumor.metrics import BoxIoU
from brain_tumor.model.artifact import load_model, read_description, save_model
from brain_tumor.model.backbone import set_batchnorm_momentum
from brain_tumor.model.detector import (
    build_detector,
    count_trainable_layers,
    freeze,
    select_heads,
    split_at_backbone,
)
from brain_tumor.storage import check_writable, publish_copy, read_manifest
from brain_tumor.tracking import Run, open_run, parent_run_id
from brain_tumor.training.callbacks import EpochLog
from brain_tumor.training.input_pipeline import (
    evaluation_batches,
    load_split,
    steps_per_epoch,
    training_batches,
    with_features,
)
from brain_tumor.training.optimizer import FusedAdamW
from brain_tumor.training.startup import as_graph, start_quickly

METRIC_NAMES = {"labels": "auc", "boxes": "iou"}


def train(
    config: TrainConfig, records: str | Path, output: str | Path, start: str | Path | None = None
) -> dict[str, float]:
    """Runs one phase and publishes its model.

    Args:
        config: The phase, the model and what all phases share.
        records: The records artifact's folder.
        output: The model artifact's folder, see `brain_tumor.model.artifact`.
        start: The model artifact to go on from; without it a new model is built.

    Returns:
        The validation figures of the best epoch, whose weights the model has.

    Raises:
        InputError: The config is not usable, or the start model does not fit it or the records.
    """
    for name, value in (("batch_size", config.batch_size), ("epochs", config.phase.epochs)):
        if value < 1:
            raise InputError(f"{config.name}: {name} is {value}; give at least 1.")
    if config.phase.publish_to:
        check_writable(config.phase.publish_to)
    manifest = read_manifest(records, "records")
    previous = read_description(start) if start else {}
    if previous:
        _check_fit(previous, config, manifest["labels"])
    keras.utils.set_random_seed(config.seed)
    start_quickly()

    started = time.perf_counter()
    phase = config.phase
    model = load_model(start) if start else build_detector(config.model, len(manifest["labels"]), phase.heads)
    backbone = model.get_layer("backbone")
    set_batchnorm_momentum(backbone, config.model.batchnorm_momentum)
    layers = count_trainable_layers(len(backbone.layers), phase.trainable_layers, phase.trainable_fraction)
    freeze(model, phase.train_heads, layers)
    weights = read_statistics(records)["class_weights"]
    learner = select_learner(model, phase)
    splits = {
        split: load_split(records, split, len(manifest["labels"]), config.model.image_size)
        for split in ("train", "valid")
    }
    if not layers and not phase.augment:
        extractor, learner = split_at_backbone(learner)
        extract = as_graph(extractor)
        splits = {split: with_features(examples, extract, 64) for split, examples in splits.items()}
    compile_learner(learner, phase, [weights[label] for label in manifest["labels"]])
    logging.info(
        "%s: trains %s and %d of the backbone's %d layers, %s weights of %s",
        config.name,
        " and ".join(phase.train_heads),
        layers,
        len(backbone.layers),
        f"{_count(learner.trainable_weights):,}",
        f"{_count(model.weights):,}",
    )

    with open_run(config.name, parent_run_id()) as run:
        run.log_params(json.loads(to_json(config)))
        epochs = _fit(learner, config, splits, run)
        best = max(epochs, key=lambda epoch: epoch[phase.monitor])
        metrics = {name: value for name, value in best.items() if name.startswith("val_")}
        phases = [
            *previous.get("phases", []),
            {
                "name": config.name,
                "config": json.loads(to_json(config)),
                "trainable_layers": layers,
                "epochs": epochs,
                "best_epoch": best["epoch"],
                "seconds": round(time.perf_counter() - started, 1),
            },
        ]
        description = {
            "title": _title(config.name, phases),
            "labels": manifest["labels"],
            "heads": list(model.output),
            "image_size": config.model.image_size,
            "backbone": previous.get(
                "backbone", {"name": config.model.backbone, "weights": config.model.weights}
            ),
            "notice": manifest["notice"],
            "phases": phases,
            "metrics": metrics,
            "mlflow_run_id": run.id,
        }
        save_model(model, description, output)
        if phase.publish_to:
            run.set_tags({"published": publish_copy(output, phase.publish_to)})
        run.log_metrics({f"best_{name}": value for name, value in metrics.items()})
        run.set_tags({"model": str(output), "data": manifest["source"]})
        if phase.log_model:
            run.log_model(model, _example(records, manifest, config))
    return metrics


def select_learner(model: keras.Model, phase: PhaseConfig) -> keras.Model:
    """The part of a model that a phase trains: the heads whose loss counts, and all below them.

    Raises:
        InputError: The phase trains nothing or a head that the model lacks, or monitors an unknown figure.
    """
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


def compile_learner(learner: keras.Model, phase: PhaseConfig, class_weights: list[float]) -> None:
    """Compiles a model with the phase's losses, metrics and optimizer. Metrics are named `<head>_<metric>`.

    Args:
        learner: From `select_learner`.
        phase: The phase.
        class_weights: Weight of each present label in the class loss.
    """
    heads = list(learner.output)
    losses = {"labels": WeightedBinaryCrossentropy(class_weights), "boxes": DIoULoss()}
    metrics = {
        "labels": keras.metrics.AUC(multi_label=True, num_labels=len(class_weights)),
        "boxes": BoxIoU(),
    }
    for head, metric in metrics.items():
        # Keras puts the output's name before the metric's only where there are several outputs.
        metric.name = METRIC_NAMES[head] if len(heads) > 1 else f"{head}_{METRIC_NAMES[head]}"
    optimizer = FusedAdamW(
        phase.learning_rate, weight_decay=phase.weight_decay, global_clipnorm=phase.clip_norm
    )
    learner.compile(
        optimizer,
        loss={head: losses[head] for head in heads},
        loss_weights={head: phase.loss_weights[head] for head in heads},
        metrics={head: [metrics[head]] for head in heads},
        # On a CPU, XLA takes minutes to compile a ResNet101.
        jit_compile="auto" if tf.config.list_physical_devices("GPU") else False,
    )
    # Left to the first step, building the optimizer makes Keras trace that step twice.
    optimizer.build(learner.trainable_variables)


def _fit(
    learner: keras.Model, config: TrainConfig, splits: dict[str, tf.data.Dataset], run: Run
) -> list[dict[str, float]]:
    """Trains, restores the best epoch's weights, and gives the epochs' figures."""
    phase, heads = config.phase, list(learner.output)
    augmentation = config.augmentation if phase.augment else None
    log = EpochLog(config.name, run)
    learner.fit(
        training_batches(
            splits["train"],
            config.batch_size,
            heads,
            augmentation,
            config.seed,
            memory_cache_gb=config.memory_cache_gb,
        ),
        steps_per_epoch=steps_per_epoch(splits["train"], config.batch_size),
        validation_data=evaluation_batches(splits["valid"], config.batch_size, heads, config.memory_cache_gb),
        epochs=phase.epochs,
        shuffle=False,  # the batches are shuffled already
        verbose=0,
        callbacks=[
            log,
            keras.callbacks.ReduceLROnPlateau(phase.monitor, 0.5, phase.reduce_rate_patience, mode="max"),
            keras.callbacks.EarlyStopping(
                phase.monitor, patience=phase.early_stopping_patience, mode="max", restore_best_weights=True
            ),
        ],
    )
    return log.epochs


def _check_fit(previous: dict[str, Any], config: TrainConfig, labels: list[str]) -> None:
    wanted = {
        "labels": labels,
        "image_size": config.model.image_size,
        "heads": list(config.phase.heads),
    }
    for name, value in wanted.items():
        if previous[name] != value:
            raise InputError(
                f"{config.name}: the start model has {name} {previous[name]}, this phase needs {value}; "
                "start it from a model that was trained alike."
            )
    if previous["backbone"]["name"] != config.model.backbone:
        raise InputError(
            f"{config.name}: the start model's backbone is {previous['backbone']['name']}, "
            f"this phase's is {config.model.backbone}."
        )


def _title(name: str, phases: list[dict[str, Any]]) -> str:
    """The phase's name as words, and what a reader must know: a backbone that never learned."""
    title = name.replace("_", " ")
    if any(phase["trainable_layers"] for phase in phases):
        return title
    kind = "random" if phases[0]["config"]["model"]["weights"] == "none" else "pretrained"
    return f"{title} (frozen {kind} backbone)"


def _example(records: str | Path, manifest: dict[str, Any], config: TrainConfig) -> Any:
    examples = load_split(records, "valid", len(manifest["labels"]), config.model.image_size)
    images, _ = next(iter(evaluation_batches(examples, 1, [])))
    return images.numpy()


def _count(weights: list[Any]) -> int:
    return sum(math.prod(weight.shape) for weight in weights)
