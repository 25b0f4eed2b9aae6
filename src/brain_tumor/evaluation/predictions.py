"""From models to the predictions table: the only part of an evaluation that needs TensorFlow."""

from pathlib import Path

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from brain_tumor.config import EvaluateConfig
from brain_tumor.data.records import parse_example, read_statistics, shard_paths
from brain_tumor.errors import InputError
from brain_tumor.evaluation.table import FILE, PREDICTED_BOX, TRUE_BOX
from brain_tumor.geometry import box_from_letterbox
from brain_tumor.model.artifact import load_model, read_description
from brain_tumor.storage import publish, read_manifest
from brain_tumor.training.input_pipeline import load_split, to_model_input
from brain_tumor.training.startup import as_graph, start_quickly

CONSTANT = "constant"


def predict(
    config: EvaluateConfig, records: str | Path, models: dict[str, str | Path], output: str | Path
) -> None:
    """Lets models answer for every image of a split, and publishes the predictions table.

    The constant baseline stands beside them: every label present, each with the training set's mean box.

    Args:
        config: The split and the size of a batch.
        records: The records artifact's folder.
        models: Folders of model artifacts by the name that the table's rows get, in the order of the reports.
        output: The predictions artifact's folder, see `brain_tumor.evaluation.table`.

    Raises:
        InputError: An artifact is missing, or a model's labels are not the records'.
    """
    manifest = read_manifest(records, "records")
    labels = manifest["labels"]
    descriptions = {name: read_description(path) for name, path in models.items()}
    for name, description in descriptions.items():
        if description["labels"] != labels:
            raise InputError(
                f"The {name} model knows the labels {description['labels']}, the records have {labels}."
            )

    start_quickly()
    truth = _truth(records, config.split, labels)
    tables = []
    for name, path in models.items():
        size = descriptions[name]["image_size"]
        examples = load_split(records, config.split, len(labels), size)
        answers = _answers(load_model(path), examples, config.batch_size)
        tables.append(
            _table(name, truth, answers.get("labels"), _to_pixels(answers.get("boxes"), truth, size))
        )
    tables.append(_constant(truth, read_statistics(records)["mean_boxes"], labels))
    with publish(output, "predictions") as draft:
        pd.concat(tables, ignore_index=True).to_parquet(draft.path / FILE, index=False)
        draft.manifest = {
            "labels": labels,
            "notice": manifest["notice"],
            "threshold": config.threshold,
            "models": {
                **{
                    name: {
                        "title": "final model" if name == "final" else description["title"],
                        "heads": description["heads"],
                        "mlflow_run_id": description["mlflow_run_id"],
                    }
                    for name, description in descriptions.items()
                },
                CONSTANT: {"title": "constant baseline", "heads": ["labels", "boxes"], "mlflow_run_id": ""},
            },
        }


def _truth(records: str | Path, split: str, labels: list[str]) -> pd.DataFrame:
    """The rows of one model without its answers: images in the records' order, labels in slot order."""
    rows = []
    serialized = tf.data.TFRecordDataset(shard_paths(records, split))
    for example in serialized.map(lambda text: parse_example(text, len(labels))).as_numpy_iterator():
        for slot, label in enumerate(labels):
            present = bool(example["labels"][slot])
            scale = [example["width"], example["height"]] * 2
            rows.append(
                {
                    "split": split,
                    "source_id": example["source_id"].decode(),
                    "filename": example["filename"].decode(),
                    "patient_id": example["patient_id"].decode(),
                    "slice": int(example["slice"]) if example["slice"] >= 0 else None,
                    "width": int(example["width"]),
                    "height": int(example["height"]),
                    "label": label,
                    "present": present,
                    **dict(
                        zip(
                            TRUE_BOX, example["boxes"][slot] * scale if present else [np.nan] * 4, strict=True
                        )
                    ),
                }
            )
    return pd.DataFrame(rows).astype({"slice": "Int64"})


def _answers(model: keras.Model, examples: tf.data.Dataset, batch_size: int) -> dict[str, np.ndarray]:
    """What a model says of each example, by head: arrays (images, ...)."""
    forward = as_graph(model)
    batches = examples.map(lambda example: example["image"]).batch(batch_size).map(to_model_input).prefetch(2)
    parts = [forward(batch) for batch in batches]
    answers = {head: np.concatenate([part[head] for part in parts]) for head in model.output}
    for head, values in answers.items():
        if not np.isfinite(values).all():
            raise FloatingPointError(f"The model's {head} are not finite: it diverged in training.")
    return answers


def _to_pixels(boxes: np.ndarray | None, truth: pd.DataFrame, size: int) -> np.ndarray | None:
    """Boxes (images, classes, 4) of the letterboxed square as rows (images * classes, 4) in pixels."""
    if boxes is None:
        return None
    corners = boxes.reshape(-1, 4).astype(np.float64).T
    height, width = truth["height"].to_numpy(), truth["width"].to_numpy()
    moved = np.stack(box_from_letterbox(corners, height, width, size), axis=1)
    # What lies on the padding is outside the image: nobody can mean it.
    clipped: np.ndarray = np.clip(moved, 0, np.stack([width, height] * 2, axis=1))
    return clipped


def _constant(
    truth: pd.DataFrame, mean_boxes: dict[str, list[float] | None], labels: list[str]
) -> pd.DataFrame:
    # A label that the training set lacks has no mean box: the whole image stands in.
    boxes = np.array([mean_boxes[label] or [0.0, 0.0, 1.0, 1.0] for label in labels])
    scale = truth[["width", "height", "width", "height"]].to_numpy()
    repeated = np.tile(boxes, (len(truth) // len(labels), 1)) * scale
    return _table(CONSTANT, truth, np.ones(len(truth)), repeated)


def _table(
    name: str, truth: pd.DataFrame, labels: np.ndarray | None, boxes: np.ndarray | None
) -> pd.DataFrame:
    table = truth.copy()
    table.insert(0, "model", name)
    table["probability"] = np.nan if labels is None else labels.reshape(-1).astype(np.float64)
    table[PREDICTED_BOX] = np.nan if boxes is None else boxes
    return table
