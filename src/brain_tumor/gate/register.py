"""Registers a pipeline run's model, and compares it with the champion."""

import logging
from pathlib import Path
from typing import Any

import pandas as pd

from brain_tumor.artifacts.model import Model
from brain_tumor.artifacts.predictions import Predictions
from brain_tumor.artifacts.records import Records
from brain_tumor.config import EvaluateConfig, GateConfig
from brain_tumor.config.fields import CONSTANT, FINAL
from brain_tumor.evaluation.thresholds import Thresholds, find_thresholds
from brain_tumor.gate.decision import Decision, decide
from brain_tumor.runtime.errors import InputError
from brain_tumor.runtime.registry import CHALLENGER, CHAMPION, Registry, Version
from brain_tumor.runtime.step import import_tensorflow


def register(
    config: GateConfig, client: Any, model: Model, predictions: Predictions, records: Records
) -> tuple[Version, Decision]:
    """Registers the final model as a version, with its thresholds, and sets the version's alias.

    A model that was already compared with the current champion keeps its version and decision. If the
    champion has changed, the model gets a new version: each version has one decision, see `Registry`.

    Args:
        config: The registered model's name, and the margin.
        client: An MLflow client (`mlflow.MlflowClient`).
        model: The final model.
        predictions: Its predictions and those of the constant baseline.
        records: The records that the predictions are for.

    Returns:
        The version and its decision.

    Raises:
        InputError: MLflow has no model of the run that trained it.
    """
    registry = Registry(client, config.model)
    run_id = model.description.mlflow_run_id
    version, champion = registry.find(run_id), registry.champion()
    if version and champion and champion.number == version.number:
        decision = Decision(CHAMPION, "It is already the champion.")
    elif version and version.decision == CHALLENGER and version.against == _number(champion):
        decision = Decision(CHALLENGER, version.why)
    else:
        version = registry.register(run_id)
        with registry.turn(version):
            champion = registry.champion()
            decision = _compare(config, champion, predictions, records)
            registry.decide(version, decision.alias, decision.why, champion)
    registry.set_thresholds(version, _thresholds(predictions))
    logging.info("%s/%d is the %s. %s", version.name, version.number, decision.alias, decision.why)
    return version, decision


def _thresholds(predictions: Predictions) -> Thresholds:
    """The final model's thresholds."""
    evaluate = EvaluateConfig.model_validate(predictions.manifest.config)
    rows = predictions.table[predictions.table["model"] == FINAL]
    return find_thresholds(rows, predictions.manifest.labels, evaluate)


def _number(champion: Version | None) -> str:
    return str(champion.number) if champion else ""


def _compare(
    config: GateConfig, champion: Version | None, predictions: Predictions, records: Records
) -> Decision:
    evaluate = EvaluateConfig.model_validate(predictions.manifest.config)
    table = predictions.table[predictions.table["model"].isin([FINAL, CONSTANT])]
    if champion is None:
        return decide(table, CONSTANT, "the constant baseline (there is no champion yet)", 0.0, evaluate)
    opponent = f"the champion, version {champion.number}"
    try:
        rows = _predict(champion, records, evaluate)
    except InputError as error:
        # A damaged champion must not fail the run, but the new model does not replace it untested.
        return Decision(CHALLENGER, f"It could not be compared with {opponent}: {error}", opponent)
    return decide(pd.concat([table, rows], ignore_index=True), CHAMPION, opponent, config.margin, evaluate)


def _predict(champion: Version, records: Records, config: EvaluateConfig) -> pd.DataFrame:
    """The champion's rows of the predictions table, for the same images.

    Raises:
        InputError: It cannot be loaded, or has other labels.
    """
    import_tensorflow()
    from brain_tumor.evaluation.figures import with_iou
    from brain_tumor.evaluation.predict import prediction_rows
    from brain_tumor.inference.models import load_predictor

    predictor = load_predictor(champion.uri, Path("runs"))
    if predictor.labels != records.labels:
        raise InputError(
            f"it has the labels {', '.join(predictor.labels)}, but the data have {', '.join(records.labels)}."
        )
    # MLflow's models take arrays, not tensors.
    rows = prediction_rows(
        CHAMPION, lambda batch: predictor.forward(batch.numpy()), predictor.size, records, config
    )
    return with_iou(rows)
