"""Loading a model to predict with: a model artifact here or in a bucket, or one that MLflow has."""

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
from brain_tumor.comparison.history import judged_thresholds
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
        name: What the user called it.
        labels: In slot order.
        size: Side of its images, in pixels.
        thresholds: By label the probability from which it counts as present.
        thresholds_from: What these come from, for a person to read.
        notice: What every report must say about the data that it learned from, or an empty text.
        answer: From images uint8 (batch, size, size, 3) to what it says of each, by head: `labels`
            (batch, classes), `boxes` (batch, classes, 4), `scores` (batch, classes), float32.
    """

    name: str
    labels: list[str]
    size: int
    thresholds: dict[str, float]
    thresholds_from: str
    notice: str
    answer: Callable[[np.ndarray], dict[str, np.ndarray]]


def load_predictor(name: str, runs: Path) -> Predictor:
    """Loads a model.

    Args:
        name: A model artifact's folder or its address in a bucket; or MLflow's `models:/NAME@ALIAS`,
            `models:/NAME/VERSION`, `models:/ID` or `runs:/ID/model`, or `NAME@ALIAS` for short.
        runs: The folder of the runs, whose own MLflow store it is if the environment names none.

    Raises:
        InputError: There is no such model, or it is none of this project.
        DamagedError: It is damaged.
    """
    skip_graph_optimizer_on_cpu()
    if IN_MLFLOW.match(name):
        return _load_from_mlflow(name, runs)
    if not is_bucket(name) and not Path(name).exists() and ALIAS.fullmatch(name):
        return _load_from_mlflow(f"models:/{name}", runs)
    with local_copy(open_path(name), ModelManifest) as folder:
        model, artifact = open_model(folder), artifact_id(folder)
        description, forward = model.description, as_graph(load_model(model))

    thresholds, source = judged_thresholds(runs, artifact) or _not_judged(description.labels)

    def answer(images: np.ndarray) -> dict[str, np.ndarray]:
        return {head: values.numpy() for head, values in forward(images).items()}

    labels, size, notice = description.labels, description.image_size, description.notice
    return Predictor(name, labels, size, thresholds, source, notice, answer)


def _load_from_mlflow(address: str, runs: Path) -> Predictor:
    with existing_store(runs) as client, redirect_stdout(sys.stderr):
        if client is None:
            raise InputError(
                f"{address} is to come from MLflow, but {runs / 'mlflow.db'} is not there and "
                "MLFLOW_TRACKING_URI names no other store; set it, or name a model artifact's folder."
            )
        import mlflow

        loaded = mlflow.pyfunc.load_model(address)
        known = (loaded.metadata.metadata or {}).get("labels")
        example = loaded.input_example
        if not known or not isinstance(example, np.ndarray):
            raise InputError(
                f"{address} is no detector of this project: it does not say its labels and image size."
            )
        tags = client.get_logged_model(loaded.metadata.model_id).tags
    thresholds, source = _not_judged(known)
    if THRESHOLDS in tags:
        thresholds, source = json.loads(tags[THRESHOLDS]), "the model's tags in MLflow"
    return Predictor(address, list(known), example.shape[1], thresholds, source, "", loaded.predict)


def _not_judged(labels: list[str]) -> tuple[dict[str, float], str]:
    return dict.fromkeys(labels, DEFAULT_THRESHOLD), "the default, since no judgement of the model is known"
