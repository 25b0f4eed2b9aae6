"""One training: a phase of the detector, from records and perhaps a start model to a model artifact."""

import json
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from brain_tumor.config import TrainConfig, to_json
from brain_tumor.data.records import read_statistics
from brain_tumor.errors import InputError
from brain_tumor.metrics.boxes import present
from brain_tumor.model.artifact import load_model, read_description, save_model
from brain_tumor.model.backbone import set_batchnorm_momentum
from brain_tumor.model.detector import build_detector, count_trainable_layers, freeze, split_at_backbone
from brain_tumor.storage import check_writable, publish_copy, read_manifest
from brain_tumor.tracking import Run, open_run, parent_run_id
from brain_tumor.training.callbacks import Checkpointer, EpochLog, FiniteLoss, Preemption, Progress
from brain_tumor.training.checkpoints import Checkpoints, open_checkpoints
from brain_tumor.training.input_pipeline import (
    evaluation_batches,
    extract_features,
    load_split,
    steps_per_epoch,
    to_model_input,
    training_batches,
    with_features,
)
from brain_tumor.training.learner import changing_variables, compile_learner, computing, select_learner
from brain_tumor.training.startup import (
    as_graph,
    build_strategy,
    choose_jit_compile,
    choose_precision,
    flatten_graphs,
    start_quickly,
    training_devices,
)
from brain_tumor.training.tensorboard import TensorBoardLog


def train(
    config: TrainConfig,
    records: str | Path,
    output: str | Path,
    start: str | Path | None = None,
    logs: str | Path | None = None,
) -> dict[str, float]:
    """Runs one phase and publishes its model.

    Where checkpoints are kept (see `brain_tumor.training.checkpoints`), a training that was killed goes on
    after its last finished epoch, with the same result, and one that was finished is not done again.

    Args:
        config: The phase, the model and what all phases share.
        records: The records artifact's folder.
        output: The model artifact's folder, see `brain_tumor.model.artifact`.
        start: The model artifact to go on from; without it a new model is built.
        logs: The folder for TensorBoard's files, if they are wanted. They grow during the training.

    Returns:
        The validation figures of the best epoch, whose weights the model has.

    Raises:
        InputError: The config is not usable, the start model does not fit it or the records, or the training
            failed for a reason that another config mends: memory, or a loss that is not finite.
        SystemExit: With code 143, at SIGTERM.
    """
    dtype = choose_precision(config.precision)
    if config.phase.publish_to:
        check_writable(config.phase.publish_to)
    manifest = read_manifest(records, "records")
    previous = read_description(start) if start else {}
    _check_start(previous, config, manifest["labels"])
    checkpoints = open_checkpoints(config, records, start)
    if checkpoints and checkpoints.restore_model(Path(output)):
        return _take_finished(config.name, output, logs)
    phase, labels = config.phase, manifest["labels"]
    start_quickly()
    strategy = build_strategy(training_devices())
    with Preemption() as preemption, out_of_memory_explained(config), strategy.scope():
        keras.utils.set_random_seed(config.seed)
        model = load_model(start) if start else build_detector(config.model, len(labels), phase.heads)
        backbone = model.get_layer("backbone")
        set_batchnorm_momentum(backbone, config.model.batchnorm_momentum)
        layers = count_trainable_layers(
            len(backbone.layers), phase.trainable_layers, phase.trainable_fraction
        )
        freeze(model, phase.train_heads, layers)
        learner = select_learner(model, phase)
        logging.info(
            "%s: trains %s and %d of the backbone's %d layers, %s weights of %s, in %s on %d device(s)",
            config.name,
            " and ".join(phase.train_heads),
            layers,
            len(backbone.layers),
            f"{_count(learner.trainable_weights):,}",
            f"{_count(model.weights):,}",
            dtype,
            strategy.num_replicas_in_sync,
        )
        with open_run(config.name, parent_run_id()) as run:
            run.log_params(json.loads(to_json(config)))
            board = TensorBoardLog(logs, config.name) if logs else None
            with computing(model, dtype, strategy.num_replicas_in_sync):
                epochs = _fit(learner, config, records, run, board, checkpoints, preemption)
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
                    "seconds": round(sum(epoch["seconds"] for epoch in epochs), 1),
                },
            ]
            description = {
                "title": _title(config.name, phases),
                "labels": labels,
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
                run.log_model(model)
            if checkpoints:
                checkpoints.keep_model(Path(output))
    return metrics


def _fit(
    learner: keras.Model,
    config: TrainConfig,
    records: str | Path,
    run: Run,
    board: TensorBoardLog | None,
    checkpoints: Checkpoints | None,
    preemption: Preemption,
) -> list[dict[str, float]]:
    """Trains, gives the model its best epoch's weights, and returns the epochs' figures."""
    phase, heads = config.phase, list(learner.output)
    statistics = read_statistics(records)["class_weights"]
    labels = read_manifest(records, "records")["labels"]
    examples = {
        split: load_split(records, split, len(labels), config.model.image_size)
        for split in ("train", "valid")
    }
    inputs, read = examples, to_model_input
    backbone = learner.get_layer("backbone")
    if not phase.augment and not backbone.trainable_weights:
        extractor, learner = split_at_backbone(learner)
        extract = as_graph(extractor)
        read = partial(extract_features, extract)
        inputs = {split: with_features(each, extract, 64) for split, each in examples.items()}

    shared = tf.distribute.get_strategy().num_replicas_in_sync > 1
    steps = steps_per_epoch(inputs["train"], config.batch_size)
    jit_compile = choose_jit_compile(training_devices())
    compile_learner(
        learner,
        phase,
        [statistics[label] for label in labels],
        steps * phase.epochs,
        jit_compile,
        "sum" if shared else "sum_over_batch_size",
    )
    if not shared and not jit_compile:
        flatten_graphs(learner)

    variables = changing_variables(learner)
    log, progress = EpochLog(config.name, run), Progress(phase, variables)
    callbacks = [preemption, FiniteLoss(config.name), log, progress]
    if board:
        callbacks.append(board)
        if "boxes" in heads:
            board.show(examples["valid"], read)
    if checkpoints:
        checkpointer = Checkpointer(checkpoints, variables, log, progress)
        checkpointer.restore(learner.optimizer)
        callbacks.append(checkpointer)
    done = len(log.epochs)
    if board:
        board.write_epochs(log.epochs)
    if done < phase.epochs and not progress.finished:
        batches = training_batches(
            inputs["train"],
            config.batch_size,
            heads,
            config.augmentation if phase.augment else None,
            config.seed,
            done,
            config.memory_cache_gb,
        )
        validation = evaluation_batches(inputs["valid"], config.batch_size, heads, config.memory_cache_gb)
        if shared:
            batches, validation = batches.map(with_loss_weights), validation.map(with_loss_weights)
        learner.fit(
            batches,
            steps_per_epoch=steps,
            validation_data=validation,
            initial_epoch=done,
            epochs=phase.epochs,
            shuffle=False,  # the batches are shuffled already
            verbose=0,
            callbacks=callbacks,
        )
    progress.restore_best()
    return log.epochs


def with_loss_weights(inputs: Any, targets: dict[str, Any]) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """Adds what the losses' sums over a batch are divided by, where several devices share the batch.

    A device sees only its own share, and how many boxes are in that. So every image brings along, as weight
    of its loss, one over the number of boxes (for the labels, of images) in the whole batch.
    """
    weights = {}
    for head, truth in targets.items():
        images = tf.shape(truth)[0]
        count = tf.reduce_sum(tf.cast(present(truth), tf.int32)) if head == "boxes" else images
        weights[head] = tf.fill([images], 1 / tf.cast(tf.maximum(count, 1), tf.float32))
    return inputs, targets, weights


def _take_finished(name: str, output: str | Path, logs: str | Path | None) -> dict[str, float]:
    """The figures of a training that was done before, whose model was put back."""
    description = read_description(output)
    if logs:
        TensorBoardLog(logs, name).write_epochs(description["phases"][-1]["epochs"])
    logging.info("%s: finished before; its model is taken from the checkpoints.", name)
    metrics: dict[str, float] = description["metrics"]
    return metrics


@contextmanager
def out_of_memory_explained(config: TrainConfig) -> Iterator[None]:
    """Turns TensorFlow's pages about memory that it did not get into a sentence that says what to change.

    Raises:
        InputError: The memory did not do.
    """
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        smaller = config.batch_size // 2
        advice = f"try {smaller}" if smaller else "try a smaller model.image_size"
        raise InputError(
            f"{config.name}: out of memory with training.batch_size={config.batch_size} at "
            f"{config.model.image_size} px; {advice}."
        ) from error


def _check_start(previous: dict[str, Any], config: TrainConfig, labels: list[str]) -> None:
    """Refuses a start model that is missing, not wanted, or none that the phase can go on from."""
    wanted_start = config.phase.start
    if not previous:
        if wanted_start:
            raise InputError(
                f"{config.name} goes on from the model of {wanted_start}; give that, or set "
                f"phases.{config.name}.start=null for a new model."
            )
        return
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
    last = previous["phases"][-1]
    if last["config"]["model"]["box_head"] != config.model.box_head:
        raise InputError(
            f"{config.name}: the start model's box head is {last['config']['model']['box_head']}, "
            f"this phase's is {config.model.box_head}."
        )
    if last["name"] != wanted_start:
        raise InputError(
            f"{config.name}: the start model is that of {last['name']}, this phase goes on from "
            f"{wanted_start or 'none'}; set phases.{config.name}.start={last['name']} if it is to."
        )


def _title(name: str, phases: list[dict[str, Any]]) -> str:
    """The phase's name as words, and what a reader must know: a backbone that never learned."""
    title = name.replace("_", " ")
    if any(phase["trainable_layers"] for phase in phases):
        return title
    kind = "random" if phases[0]["config"]["model"]["weights"] == "none" else "pretrained"
    return f"{title} (frozen {kind} backbone)"


def _count(weights: list[Any]) -> int:
    return sum(math.prod(weight.shape) for weight in weights)
