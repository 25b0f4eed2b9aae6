"""Computes the predictions table: the only part of an evaluation that needs TensorFlow."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf

from brain_tumor.artifacts.folder import artifact_id
from brain_tumor.artifacts.model import Model
from brain_tumor.artifacts.predictions import (
    PREDICTED_BOX,
    TRUE_BOX,
    EvaluationData,
    PredictingModel,
    Predictions,
    PredictionsManifest,
    write_predictions,
)
from brain_tumor.artifacts.records import Records
from brain_tumor.artifacts.tables import COORDINATES
from brain_tumor.boxes.letterbox import boxes_in_pixels
from brain_tumor.config import EvaluateConfig, Split
from brain_tumor.config.fields import CONSTANT, FINAL
from brain_tumor.evaluation.figures import with_iou
from brain_tumor.model.graphs import as_graph, skip_graph_optimizer_on_cpu
from brain_tumor.model.saving import load_model
from brain_tumor.records.read import load_split, reading_explained
from brain_tumor.runtime.errors import InputError

IMAGE_COLUMNS = ["split", "source_id", "filename", "patient_id", "slice", "width", "height"]


def predict(config: EvaluateConfig, records: Records, models: dict[str, Model], output: Path) -> Predictions:
    """Predicts the images of the evaluated split and of valid, and publishes the predictions table.

    The table also has the constant baseline, which predicts every label with the training set's mean box.

    Args:
        config: The split and the batch size.
        records: The images and their ground truth.
        models: Models by their names in the table, in the order of the reports; see
            `PredictionsManifest.models`.
        output: The predictions artifact's folder.

    Raises:
        InputError: A model's labels differ from those of the records, or its predictions are not finite.
        DamagedError: A model or the records are damaged.
    """
    for name, model in models.items():
        if model.description.labels != records.labels:
            raise InputError(
                f"The {name} model has the labels {model.description.labels}, but the records have "
                f"{records.labels}."
            )

    skip_graph_optimizer_on_cpu()
    tables = [
        prediction_rows(name, as_graph(load_model(model)), model.description.image_size, records, config)
        for name, model in models.items()
    ]
    tables += [_constant_rows(_read_truth(records, split), records) for split in _predicted_splits(config)]
    manifest = PredictionsManifest(
        labels=records.labels,
        notice=records.manifest.notice,
        models={
            **{name: _describe(name, model) for name, model in models.items()},
            CONSTANT: PredictingModel(
                title="constant baseline", heads=["labels", "boxes"], mlflow_run_id="", trainings={}
            ),
        },
        config=config.model_dump(mode="json"),
        data=EvaluationData(
            source=records.manifest.source,
            splits=records.manifest.splits,
            class_counts=records.statistics.class_counts,
            leakage=records.statistics.leakage,
        ),
    )
    return write_predictions(output, with_iou(pd.concat(tables, ignore_index=True)), manifest)


def prediction_rows(
    name: str,
    forward: Callable[[Any], dict[str, Any]],
    size: int,
    records: Records,
    config: EvaluateConfig,
) -> pd.DataFrame:
    """Computes a model's rows of the predictions table, without the IoU, for the evaluated split and valid.

    Args:
        name: The model's name in the table.
        forward: Predicts a batch of images, uint8 (batch, size, size, 1 or 3); returns arrays (batch, ...)
            by head.
        size: Side of its images, in pixels.
        records: The images and their ground truth.
        config: The split and the batch size.

    Raises:
        InputError: The predictions are not finite.
        DamagedError: The records are damaged.
    """
    tables = []
    for split in _predicted_splits(config):
        truth = _read_truth(records, split)
        with reading_explained(records):
            outputs = _predict_examples(name, forward, load_split(records, split, size), config.batch_size)
        boxes = _to_pixels(outputs["boxes"], truth, size) if "boxes" in outputs else None
        tables.append(_rows(name, truth, outputs.get("labels"), boxes, outputs.get("scores")))
    return pd.concat(tables, ignore_index=True)


def _predicted_splits(config: EvaluateConfig) -> list[Split]:
    """The splits to predict: thresholds are tuned on valid, whichever split is evaluated."""
    return list(dict.fromkeys(("valid", config.split)))


def _describe(name: str, model: Model) -> PredictingModel:
    description = model.description
    return PredictingModel(
        title="final model" if name == FINAL else description.title,
        heads=description.heads,
        mlflow_run_id=description.mlflow_run_id,
        artifact=artifact_id(model.path),
        trainings={phase.name: phase.epochs for phase in description.phases},
        configs={phase.name: phase.config for phase in description.phases},
    )


def _read_truth(records: Records, split: Split) -> pd.DataFrame:
    """The ground truth columns of one model's rows: images in the records' order, labels in slot order."""
    images, labels = records.images(split)[IMAGE_COLUMNS], records.labels
    rows = images.loc[images.index.repeat(len(labels))].assign(label=labels * len(images))
    boxes = records.annotations(split)[["source_id", "label", *COORDINATES]].assign(present=True)
    boxes = boxes.rename(columns=dict(zip(COORDINATES, TRUE_BOX, strict=True)))
    truth = rows.merge(boxes, how="left", on=["source_id", "label"], validate="one_to_one")
    truth["present"] = truth["present"].notna()
    return truth.astype({"slice": "Int64"})[[*rows, "present", *TRUE_BOX]]


def _predict_examples(
    name: str, forward: Any, examples: tf.data.Dataset, batch_size: int
) -> dict[str, np.ndarray]:
    """A model's predictions for the examples, by head: arrays (images, ...)."""
    batches = examples.map(lambda example: example["image"]).batch(batch_size).prefetch(2)
    parts = [forward(batch) for batch in batches]
    outputs = {head: np.concatenate([part[head] for part in parts]) for head in parts[0]}
    for head, values in outputs.items():
        if not np.isfinite(values).all():
            raise InputError(
                f"The {name} model's {head} are not finite: it diverged in training; train it again with "
                "a lower learning rate or with clip_norm."
            )
    return outputs


def _to_pixels(boxes: np.ndarray, truth: pd.DataFrame, size: int) -> np.ndarray:
    """Converts boxes of letterboxed images (images, classes, 4) to original pixels (images * classes, 4)."""
    height, width = truth["height"].to_numpy(), truth["width"].to_numpy()
    return boxes_in_pixels(boxes.reshape(-1, 4), height, width, size)


def _constant_rows(truth: pd.DataFrame, records: Records) -> pd.DataFrame:
    means = records.statistics.mean_boxes
    # A label without training boxes has no mean box: the whole image is used.
    boxes = np.array([means[label] or [0.0, 0.0, 1.0, 1.0] for label in records.labels])
    sides = truth[["width", "height", "width", "height"]].to_numpy()
    repeated = np.tile(boxes, (len(truth) // len(boxes), 1)) * sides
    return _rows(CONSTANT, truth, np.ones(len(truth)), repeated, None)


def _rows(
    name: str,
    truth: pd.DataFrame,
    labels: np.ndarray | None,
    boxes: np.ndarray | None,
    scores: np.ndarray | None,
) -> pd.DataFrame:
    """The rows of one model: the ground truth, and the outputs of the heads that it has."""
    table = truth.copy()
    table.insert(0, "model", name)
    table["probability"] = _column(labels)
    table[PREDICTED_BOX] = np.nan if boxes is None else boxes
    # Without scores, boxes are ranked by the label's probability, or not at all.
    ranked = labels if scores is None else scores
    table["score"] = np.nan if boxes is None else 1.0 if ranked is None else _column(ranked)
    return table


def _column(values: np.ndarray | None) -> Any:
    return np.nan if values is None else values.reshape(-1).astype(np.float64)
