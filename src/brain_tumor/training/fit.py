"""Trains a phase's epochs, with early stopping and checkpoints."""

import hashlib
import logging
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
import tensorflow as tf

from brain_tumor.artifacts.model import Epoch
from brain_tumor.artifacts.records import Records
from brain_tumor.config import PhaseConfig, TrainConfig
from brain_tumor.model.detector import changing_variables, split_frozen_part
from brain_tumor.model.graphs import as_graph, flatten_graphs
from brain_tumor.records.read import load_split
from brain_tumor.runtime.tracking import Run
from brain_tumor.training.batches import (
    evaluation_batches,
    steps_per_epoch,
    training_batches,
    with_loss_weights,
)
from brain_tumor.training.callbacks import (
    BestEpoch,
    EpochLog,
    EpochProgress,
    FiniteLoss,
    Preemption,
)
from brain_tumor.training.checkpointing import Checkpointer
from brain_tumor.training.checkpoints import Checkpoints
from brain_tumor.training.compile import compile_model
from brain_tumor.training.devices import choose_jit_compile, prefetch_to_gpu, training_devices
from brain_tumor.training.features import extract_features, with_features
from brain_tumor.training.tensorboard import TensorBoardLog

# Batch size for computing a frozen backbone's features.
FEATURES_BATCH = 64


@dataclass(frozen=True)
class _Setup:
    """The model to train and its data.

    Attributes:
        model: The model, or only its heads if the backbone's features are cached.
        train: The training examples, whose `image` is the input of `model`.
        valid: The validation examples, likewise.
        to_inputs: Maps images (as in `load_split`) to inputs of `model`.
    """

    model: keras.Model
    train: tf.data.Dataset
    valid: tf.data.Dataset
    to_inputs: Callable[[Any], Any]


def fit(
    model: keras.Model,
    config: TrainConfig,
    records: Records,
    run: Run,
    board: TensorBoardLog | None,
    checkpoints: Checkpoints | None,
    preemption: Preemption,
) -> list[Epoch]:
    """Trains a model, and sets the best epoch's weights.

    Args:
        model: From `training_model`, after `freeze`.
        config: The training's config.
        records: The training and validation data.
        run: The MLflow run that gets the epochs' metrics.
        board: The TensorBoard callback, if any.
        checkpoints: Where each epoch's state is saved and a killed training resumes from, if any.
        preemption: Ends the process on SIGTERM.

    Returns:
        The metrics of all epochs.

    Raises:
        InputError: A loss or metric is not finite, or the disk is too small for the cache.
    """
    train, valid = (load_split(records, split, config.model.image_size) for split in ("train", "valid"))
    setup = _skip_frozen_backbone(model, config.phase, train, valid)
    _compile(setup, config, records)
    variables = changing_variables(setup.model)
    log, progress = EpochLog(config.name, run), BestEpoch(config.phase, variables)
    callbacks: list[keras.callbacks.Callback] = [preemption, EpochProgress(), FiniteLoss(config.name)]
    callbacks += [log, progress]
    if board:
        callbacks.append(board)
        if "boxes" in setup.model.output:
            board.choose_images(valid, setup.to_inputs)
    checkpointer = Checkpointer(checkpoints, variables, log, progress) if checkpoints else None
    if checkpointer:
        checkpointer.restore(setup.model.optimizer)
        callbacks.append(checkpointer)
    validation = _validation_batches(setup, config)
    if config.phase.start and not log.epochs:
        # If no epoch is better than the start model, the result is the start model.
        results = setup.model.evaluate(validation, verbose=0, return_dict=True)
        metrics = {f"val_{name}": float(value) for name, value in results.items()}
        log.begin(metrics)
        progress.begin(metrics)
    if board:
        board.write_epochs(log.epochs)
    if log.done < config.phase.epochs and not progress.finished:
        with checkpointer or nullcontext():
            _run_epochs(setup, config, validation, log.done, callbacks)
    progress.restore_best()
    if not progress.best_epoch:
        logging.warning("%s: no epoch was better than the start model, which is the result.", config.name)
    return log.epochs


def _skip_frozen_backbone(
    model: keras.Model, phase: PhaseConfig, train: tf.data.Dataset, valid: tf.data.Dataset
) -> _Setup:
    """Selects only the heads, with cached features, if the features never change."""
    if phase.augment or model.get_layer("backbone").trainable_weights:
        return _Setup(model, train, valid, lambda images: images)
    extractor, rest = split_frozen_part(model)
    extract = as_graph(extractor)
    train, valid = (with_features(examples, extract, FEATURES_BATCH) for examples in (train, valid))
    return _Setup(rest, train, valid, partial(extract_features, extract))


def _compile(setup: _Setup, config: TrainConfig, records: Records) -> None:
    distributed, jit_compile = _is_distributed(), choose_jit_compile(training_devices())
    class_weights, valid_counts = records.statistics.class_weights, records.statistics.class_counts["valid"]
    if absent := [label for label in records.labels if not valid_counts[label]]:
        logging.warning(
            "%s: labels without validation images have no validation metrics: %s.",
            config.name,
            ", ".join(absent),
        )
    compile_model(
        setup.model,
        config.phase,
        {label: class_weights[label] for label in records.labels},
        steps_per_epoch(setup.train, config.batch_size) * config.phase.epochs,
        jit_compile,
        "sum" if distributed else "sum_over_batch_size",
        measured_labels=[label for label in records.labels if valid_counts[label]],
    )
    if not distributed:
        flatten_graphs(setup.model, training=not jit_compile)


def _is_distributed() -> bool:
    """Whether several devices share a batch."""
    return bool(tf.distribute.get_strategy().num_replicas_in_sync > 1)


def _validation_batches(setup: _Setup, config: TrainConfig) -> tf.data.Dataset:
    batches = evaluation_batches(
        setup.valid, config.batch_size, list(setup.model.output), config.memory_cache_gb
    )
    return batches.map(with_loss_weights) if _is_distributed() else batches


def _run_epochs(
    setup: _Setup,
    config: TrainConfig,
    validation: tf.data.Dataset,
    done: int,
    callbacks: list[keras.callbacks.Callback],
) -> None:
    """Runs the remaining epochs."""
    batches = training_batches(
        setup.train,
        config.batch_size,
        list(setup.model.output),
        config.augmentation if config.phase.augment else None,
        phase_seed(config),
        done,
        config.memory_cache_gb,
    )
    if _is_distributed():
        batches = batches.map(with_loss_weights)
    else:
        batches = prefetch_to_gpu(batches, training_devices())
    setup.model.fit(
        batches,
        steps_per_epoch=steps_per_epoch(setup.train, config.batch_size),
        validation_data=validation,
        initial_epoch=done,
        epochs=config.phase.epochs,
        shuffle=False,  # the batches are already shuffled
        verbose=0,
        callbacks=callbacks,
    )


def phase_seed(config: TrainConfig) -> int:
    """The seed of shuffling and augmentation, which differs between phases."""
    digest = hashlib.sha256(f"{config.seed} {config.name}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
