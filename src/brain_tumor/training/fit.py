"""The epochs of a training, with early stopping."""

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
    BatchCount,
    BestEpoch,
    EpochLog,
    FiniteLoss,
    Preemption,
)
from brain_tumor.training.checkpointing import Checkpointer
from brain_tumor.training.checkpoints import Checkpoints
from brain_tumor.training.compile import compile_model
from brain_tumor.training.devices import choose_jit_compile, copied_ahead, training_devices
from brain_tumor.training.features import extract_features, with_features
from brain_tumor.training.tensorboard import TensorBoardLog

# Batch size of a frozen backbone.
FEATURES_BATCH = 64


@dataclass(frozen=True)
class _Learning:
    """The trained model and its data.

    Attributes:
        model: The model, or only its heads if the backbone's features are cached.
        train: The training examples, with `model`'s inputs as their image.
        valid: The validation examples, in the same form.
        read: Maps images (as in `load_split`) to `model`'s inputs.
    """

    model: keras.Model
    train: tf.data.Dataset
    valid: tf.data.Dataset
    read: Callable[[Any], Any]


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
        model: The model with the heads that learn; all other layers are frozen.
        config: The training's config.
        records: The training and validation data.
        run: The MLflow run that gets the epochs' figures.
        board: The TensorBoard callback, if any.
        checkpoints: Where the state after each epoch is saved and a killed training resumes from, if any.
        preemption: Ends the process on SIGTERM, if any.

    Returns:
        The figures of all epochs.

    Raises:
        InputError: A figure is not finite, or the disk is too small for the cache.
    """
    train, valid = (load_split(records, split, config.model.image_size) for split in ("train", "valid"))
    learning = _skip_frozen_backbone(model, config.phase, train, valid)
    _compile(learning, config, records)
    variables = changing_variables(learning.model)
    log, progress = EpochLog(config.name, run), BestEpoch(config.phase, variables)
    callbacks: list[keras.callbacks.Callback] = [preemption, BatchCount(), FiniteLoss(config.name)]
    callbacks += [log, progress]
    if board:
        callbacks.append(board)
        if "boxes" in learning.model.output:
            board.choose_images(valid, learning.read)
    checkpointer = Checkpointer(checkpoints, variables, log, progress) if checkpoints else None
    if checkpointer:
        checkpointer.restore(learning.model.optimizer)
        callbacks.append(checkpointer)
    validation = _validation_batches(learning, config)
    if config.phase.start and not log.epochs:
        # A phase may not improve the start model: then that is the result.
        found = learning.model.evaluate(validation, verbose=0, return_dict=True)
        figures = {f"val_{name}": float(value) for name, value in found.items()}
        log.begin(figures)
        progress.begin(figures)
    if board:
        board.write_epochs(log.epochs)
    if log.done < config.phase.epochs and not progress.finished:
        with checkpointer or nullcontext():
            _run_epochs(learning, config, validation, log.done, callbacks)
    progress.restore_best()
    if not progress.best_epoch:
        logging.warning("%s: no epoch was better than the start model, which is the result.", config.name)
    return log.epochs


def _skip_frozen_backbone(
    model: keras.Model, phase: PhaseConfig, train: tf.data.Dataset, valid: tf.data.Dataset
) -> _Learning:
    """Trains the heads alone on cached features, if these are the same in each epoch."""
    if phase.augment or model.get_layer("backbone").trainable_weights:
        return _Learning(model, train, valid, lambda images: images)
    extractor, rest = split_frozen_part(model)
    extract = as_graph(extractor)
    train, valid = (with_features(examples, extract, FEATURES_BATCH) for examples in (train, valid))
    return _Learning(rest, train, valid, partial(extract_features, extract))


def _compile(learning: _Learning, config: TrainConfig, records: Records) -> None:
    shared, jit_compile = _is_shared(), choose_jit_compile(training_devices())
    class_weights, shown = records.statistics.class_weights, records.statistics.class_counts["valid"]
    if absent := [label for label in records.labels if not shown[label]]:
        logging.warning(
            "%s: no validation image shows %s, so no figure of an epoch is about it.",
            config.name,
            ", ".join(absent),
        )
    compile_model(
        learning.model,
        config.phase,
        {label: class_weights[label] for label in records.labels},
        steps_per_epoch(learning.train, config.batch_size) * config.phase.epochs,
        jit_compile,
        "sum" if shared else "sum_over_batch_size",
        watched=[label for label in records.labels if shown[label]],
    )
    if not shared:
        flatten_graphs(learning.model, training=not jit_compile)


def _is_shared() -> bool:
    """Whether several devices share a batch."""
    return bool(tf.distribute.get_strategy().num_replicas_in_sync > 1)


def _validation_batches(learning: _Learning, config: TrainConfig) -> tf.data.Dataset:
    batches = evaluation_batches(
        learning.valid, config.batch_size, list(learning.model.output), config.memory_cache_gb
    )
    return batches.map(with_loss_weights) if _is_shared() else batches


def _run_epochs(
    learning: _Learning,
    config: TrainConfig,
    validation: tf.data.Dataset,
    done: int,
    callbacks: list[keras.callbacks.Callback],
) -> None:
    """Runs the remaining epochs."""
    batches = training_batches(
        learning.train,
        config.batch_size,
        list(learning.model.output),
        config.augmentation if config.phase.augment else None,
        phase_seed(config),
        done,
        config.memory_cache_gb,
    )
    batches = batches.map(with_loss_weights) if _is_shared() else copied_ahead(batches, training_devices())
    learning.model.fit(
        batches,
        steps_per_epoch=steps_per_epoch(learning.train, config.batch_size),
        validation_data=validation,
        initial_epoch=done,
        epochs=config.phase.epochs,
        shuffle=False,  # the batches are already shuffled
        verbose=0,
        callbacks=callbacks,
    )


def phase_seed(config: TrainConfig) -> int:
    """The seed of a phase's shuffling and augmentation; it differs between phases."""
    digest = hashlib.sha256(f"{config.seed} {config.name}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
