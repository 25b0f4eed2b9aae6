"""Loads a model for prediction: a model artifact, local or in a bucket, or a model in MLflow."""

import json
import re
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from brain_tumor.artifacts.folder import artifact_id
from brain_tumor.artifacts.model import ModelManifest, open_model
from brain_tumor.artifacts.transfer import local_copy
from brain_tumor.comparison.history import model_thresholds
from brain_tumor.config.fields import DEFAULT_THRESHOLD, is_bucket
from brain_tumor.model.graphs import as_graph, skip_graph_optimizer_on_cpu
from brain_tumor.model.saving import load_model
from brain_tumor.runtime.errors import InputError
from brain_tumor.runtime.registry import THRESHOLDS
from brain_tumor.runtime.tracking import existing_store
from brain_tumor.stores.paths import open_path

IN_MLFLOW = re.compile(r"(models|runs|mlflow-artifacts):/")
ALIAS = re.compile(r"[^/@:]+@[^/@:]+")


@dataclass(frozen=True)
class Predictor:
    """A model, ready to predict.

    Attributes:
        name: The name that the user gave.
        labels: Label names in slot order.
        size: Side of its images, in pixels.
        thresholds: The probability from which a label counts as present, by label.
        thresholds_from: A description of the thresholds' source.
        notice: A notice about the training data that every report must show, or an empty string.
        forward: Predicts images, uint8 (batch, size, size, 3); returns float32 arrays by head: `labels`
            (batch, classes), `boxes` (batch, classes, 4), normalized to the letterboxed image, and `scores`
            (batch, classes).
    """

    name: str
    labels: list[str]
    size: int
    thresholds: dict[str, float]
    thresholds_from: str
    notice: str
    forward: Callable[[np.ndarray], dict[str, np.ndarray]]


def load_predictor(name: str, runs: Path) -> Predictor:
    """Loads a model.

    Args:
        name: A model artifact's folder or its address in a bucket; or MLflow's `models:/NAME@ALIAS`,
            `models:/NAME/VERSION`, `models:/ID` or `runs:/ID/model`, or `NAME@ALIAS` for short.
        runs: The folder of the runs. Its MLflow store is used if MLFLOW_TRACKING_URI is not set.

    Raises:
        InputError: The model does not exist, or is not a detector of this project.
        DamagedError: It is damaged.
    """
    skip_graph_optimizer_on_cpu()
    if IN_MLFLOW.match(name):
        return _load_from_mlflow(name, runs)
    if not is_bucket(name) and not Path(name).exists() and ALIAS.fullmatch(name):
        return _load_from_mlflow(f"models:/{name}", runs)
    with local_copy(open_path(name), ModelManifest) as folder:
        model, artifact = open_model(folder), artifact_id(folder)
        description, graph = model.description, as_graph(load_model(model))

    thresholds, source = model_thresholds(runs, artifact) or _default_thresholds(description.labels)

    def forward(images: np.ndarray) -> dict[str, np.ndarray]:
        return {head: values.numpy() for head, values in graph(images).items()}

    labels, size, notice = description.labels, description.image_size, description.notice
    return Predictor(name, labels, size, thresholds, source, notice, forward)


def _load_from_mlflow(address: str, runs: Path) -> Predictor:
    with existing_store(runs) as client, redirect_stdout(sys.stderr):
        if client is None:
            raise InputError(
                f"{address} is an MLflow model, but {runs / 'mlflow.db'} does not exist and "
                "MLFLOW_TRACKING_URI is not set; set it, or name a model artifact's folder."
            )
        import mlflow

        loaded = mlflow.pyfunc.load_model(address)
        known = (loaded.metadata.metadata or {}).get("labels")
        example = loaded.input_example
        if not known or not isinstance(example, np.ndarray):
            raise InputError(f"{address} is not a detector of this project: it has no labels or image size.")
        tags = client.get_logged_model(loaded.metadata.model_id).tags
    thresholds, source = _default_thresholds(known)
    if THRESHOLDS in tags:
        thresholds, source = json.loads(tags[THRESHOLDS]), "the model's tags in MLflow"
    return Predictor(address, list(known), example.shape[1], thresholds, source, "", loaded.predict)


def _default_thresholds(labels: list[str]) -> tuple[dict[str, float], str]:
    return dict.fromkeys(labels, DEFAULT_THRESHOLD), "the default, as the model was not evaluated"
