"""One training: a phase of the detector, from records and an optional start model to a model artifact."""

import logging
import math
import os
from pathlib import Path

import keras

from brain_tumor.artifacts.folder import artifact_id
from brain_tumor.artifacts.model import (
    Backbone,
    Epoch,
    Model,
    ModelDescription,
    TrainedPhase,
    open_model,
    write_model,
)
from brain_tumor.artifacts.records import Records
from brain_tumor.artifacts.transfer import publish_copy
from brain_tumor.config import HEADS, TrainConfig
from brain_tumor.model.detector import (
    build_detector,
    freeze,
    resolve_trainable_layers,
    set_batchnorm_momentum,
    training_model,
)
from brain_tumor.model.graphs import skip_graph_optimizer_on_cpu
from brain_tumor.model.saving import LAYER_FILES, LOADER_FILE, load_model
from brain_tumor.records.read import reading_explained
from brain_tumor.runtime import environment
from brain_tumor.runtime.tracking import Run, open_run
from brain_tumor.stores.locations import check_writable
from brain_tumor.training.callbacks import Preemption
from brain_tumor.training.checkpoints import open_checkpoints
from brain_tumor.training.devices import (
    build_strategy,
    choose_precision,
    out_of_memory_explained,
    training_devices,
)
from brain_tumor.training.fit import fit
from brain_tumor.training.precision import compute_policy
from brain_tumor.training.start import check_start
from brain_tumor.training.tensorboard import TensorBoardLog


def train(
    config: TrainConfig,
    records: Records,
    output: Path,
    start: Model | None = None,
    logs: Path | None = None,
) -> dict[str, float]:
    """Runs one phase and publishes its model.

    With checkpoints (see `brain_tumor.training.checkpoints`), a killed training resumes after its last
    checkpoint with the same result, and a finished one is not repeated.

    Args:
        config: The training step's config: the phase, the model, and settings that all phases share.
        records: The records artifact.
        output: The model artifact's folder, see `brain_tumor.artifacts.model`.
        start: The model artifact to start from; without it a new model is built.
        logs: The folder for TensorBoard's files, if any, written during the training.

    Returns:
        The validation metrics of the best epoch, whose weights the model has.

    Raises:
        InputError: The config does not fit the records or the start model, or the training ran
            out of memory, or a loss or metric is not finite.
        SystemExit: On SIGTERM, with code 143.
    """
    dtype = choose_precision(config.precision)
    if publish_to := _publish_to(config):
        check_writable(publish_to)
    check_start(start, config, records.labels)
    checkpoints = open_checkpoints(config, records, start)
    if checkpoints and checkpoints.restore_model(output):
        return _restored_metrics(config.name, output, logs)
    if checkpoints:
        check_writable(str(checkpoints.folder))
    skip_graph_optimizer_on_cpu()
    strategy = build_strategy(training_devices())
    replicas = strategy.num_replicas_in_sync
    with (
        Preemption() as preemption,
        out_of_memory_explained(config),
        reading_explained(records),
        strategy.scope(),
    ):
        model = _prepare_model(config, len(records.labels), start)
        trained = training_model(model, config.phase.trained_heads)
        _log_start(config, model, trained, f"in {dtype} on {replicas} device(s)")
        with open_run(config.name) as run:
            run.log_params(config.model_dump(mode="json"))
            board = TensorBoardLog(logs, config.name) if logs else None
            with compute_policy(model, dtype, replicas):
                epochs = fit(trained, config, records, run, board, checkpoints, preemption)
            description = _describe(model, config, records, start, epochs, run.id)
            write_model(output, description, model.save)
            _report(config, records, output, description, run)
            if config.phase.log_model:
                _log_model(model, dtype, records, open_model(output), run)
            if checkpoints:
                checkpoints.keep_model(output)
    return description.metrics


def _restored_metrics(name: str, output: Path, logs: Path | None) -> dict[str, float]:
    """The metrics of a finished training whose model was restored; writes its TensorBoard files."""
    description = open_model(output).description
    if logs:
        TensorBoardLog(logs, name).write_epochs(description.phases[-1].epochs)
    logging.info("%s: already finished; its model is restored from the checkpoints.", name)
    return description.metrics


def _prepare_model(config: TrainConfig, num_classes: int, start: Model | None) -> keras.Model:
    """The phase's initial detector, after `freeze`."""
    phase = config.phase
    keras.utils.set_random_seed(config.seed)
    model = load_model(start) if start else build_detector(config.model, num_classes, phase.heads)
    backbone = model.get_layer("backbone")
    set_batchnorm_momentum(model, config.model.batchnorm_momentum)
    layers = resolve_trainable_layers(len(backbone.layers), phase.trainable_layers, phase.trainable_fraction)
    freeze(model, phase.train_heads, layers)
    return model


def _log_start(config: TrainConfig, model: keras.Model, trained: keras.Model, compute: str) -> None:
    logging.info(
        "%s: trains %s and %d of the backbone's %d layers, %s of %s parameters, %s",
        config.name,
        " and ".join(config.phase.train_heads),
        _count_trainable_layers(model),
        len(model.get_layer("backbone").layers),
        f"{_count_parameters(trained.trainable_weights):,}",
        f"{_count_parameters(model.weights):,}",
        compute,
    )


def _count_trainable_layers(model: keras.Model) -> int:
    return sum(layer.trainable for layer in model.get_layer("backbone").layers)


def _count_parameters(weights: list[keras.Variable]) -> int:
    return sum(math.prod(weight.shape) for weight in weights)


def _describe(
    model: keras.Model,
    config: TrainConfig,
    records: Records,
    start: Model | None,
    epochs: list[Epoch],
    run_id: str,
) -> ModelDescription:
    """The model artifact's description."""
    best = max(epochs, key=config.phase.monitored_value)
    trained = TrainedPhase(
        name=config.name,
        config=config.model_dump(mode="json"),
        trainable_layers=_count_trainable_layers(model),
        epochs=epochs,
        best_epoch=int(best["epoch"]),
        seconds=round(sum(epoch["seconds"] for epoch in epochs), 1),
    )
    phases = [*(start.description.phases if start else []), trained]
    new = Backbone(name=config.model.backbone, weights=config.model.weights)
    backbone = start.description.backbone if start else new
    return ModelDescription(
        title=_title(config.name, phases, backbone),
        labels=records.labels,
        heads=[head for head in HEADS if head in model.output],
        image_size=config.model.image_size,
        notice=records.manifest.notice,
        backbone=backbone,
        box_head=config.model.box_head,
        phases=phases,
        metrics={name: value for name, value in best.items() if name.startswith("val_")},
        mlflow_run_id=run_id,
    )


def _title(name: str, phases: list[TrainedPhase], backbone: Backbone) -> str:
    """The phase's name as words, with a note if the backbone was never trained."""
    title = name.replace("_", " ")
    if any(phase.trainable_layers for phase in phases):
        return title
    return f"{title} (frozen {'random' if backbone.weights == 'none' else 'pretrained'} backbone)"


def _report(
    config: TrainConfig,
    records: Records,
    output: Path,
    description: ModelDescription,
    run: Run,
) -> None:
    """Publishes a copy of the model artifact if the phase asks for it, and logs the result to MLflow."""
    if publish_to := _publish_to(config):
        run.set_tags({"published": publish_copy(output, publish_to)})
    run.log_metrics({f"best_{name}": value for name, value in description.metrics.items()})
    run.set_tags({"model": str(output), "data": records.manifest.source})


def _publish_to(config: TrainConfig) -> str:
    """The path or address to publish the model to, or an empty string."""
    return str(config.phase.publish_to) or os.environ.get(environment.PUBLISH, "")


def _log_model(model: keras.Model, dtype: str, records: Records, artifact: Model, run: Run) -> None:
    """Logs a model that loads without this library to MLflow, with metadata on its use."""
    size = artifact.description.image_size
    run.log_model(
        LOADER_FILE,
        [artifact.keras_file, *LAYER_FILES],
        size,
        {name: (-1, *output.shape[1:]) for name, output in model.output.items()},
        {
            "labels": records.labels,
            "images": f"(batch, {size}, {size}, 1 or 3), letterboxed, 0..255, uint8 or float",
            "boxes": "[xmin, ymin, xmax, ymax] of each label, 0..1 of the letterboxed image",
            "code": {**artifact.manifest.versions, "image": os.environ.get(environment.IMAGE, "")},
            "data": {"source": records.manifest.source, "records": artifact_id(records.path)},
            "precision": {"training": dtype, "weights": "float32"},
        },
    )
