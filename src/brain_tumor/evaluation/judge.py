"""From the predictions table to all that is found of it. It is judged here, once: the rest reads."""

import pandas as pd

from brain_tumor.artifacts.dataset import count_patients
from brain_tumor.artifacts.evaluation import ALL, Evaluation, Interval, ModelEvaluation
from brain_tumor.artifacts.predictions import Predictions, PredictionsManifest, has_class_head
from brain_tumor.config import EvaluateConfig
from brain_tumor.config.fields import FINAL
from brain_tumor.evaluation.curves import label_curves
from brain_tumor.evaluation.figures import label_figures, overall_figures
from brain_tumor.evaluation.intervals import METRICS, difference, interval
from brain_tumor.runtime.errors import InputError


def judge(config: EvaluateConfig, predictions: Predictions) -> Evaluation:
    """Judges the models of a predictions artifact.

    Args:
        config: Split, threshold, number of resamples and their seed.
        predictions: The models' answers.

    Raises:
        InputError: The predictions have no row of the split.
    """
    manifest, table = predictions.manifest, predictions.table
    table = table[table["split"] == config.split]
    if table.empty:
        raise InputError(
            f"{predictions.path} has no predictions of the split {config.split}; make them with that split."
        )
    # Every model has a row for each image and label: one model's rows count them all.
    rows = table[table["model"] == next(iter(manifest.models))]
    return Evaluation(
        notice=manifest.notice,
        split=config.split,
        threshold=config.threshold,
        patients=count_patients(rows["patient_id"]),
        images=int(rows["source_id"].nunique()),
        boxes=int(rows["present"].sum()),
        absent_labels=[
            label for label in manifest.labels if not rows.loc[rows["label"] == label, "present"].any()
        ],
        models={name: _judge_model(name, table, manifest, config) for name in manifest.models},
        differences={
            name: _differences(name, table, manifest.labels, config)
            for name in manifest.models
            if name != FINAL
        },
        trainings={
            name: epochs for model in manifest.models.values() for name, epochs in model.trainings.items()
        },
    )


def _judge_model(
    name: str, table: pd.DataFrame, manifest: PredictionsManifest, config: EvaluateConfig
) -> ModelEvaluation:
    rows = table[table["model"] == name]
    labels = label_figures(rows, manifest.labels, config.threshold)
    curves = {
        label: label_curves(rows[rows["label"] == label], config.threshold)
        for label in manifest.labels
        if has_class_head(rows)
    }
    return ModelEvaluation(
        title=manifest.models[name].title,
        mlflow_run_id=manifest.models[name].mlflow_run_id,
        figures=overall_figures(rows, labels, config.threshold),
        labels=labels,
        intervals={metric: interval(table, name, metric, config) for metric in METRICS},
        curves=curves,
    )


def _differences(
    other: str, table: pd.DataFrame, labels: list[str], config: EvaluateConfig
) -> dict[str, dict[str, Interval]]:
    """Of the final model from another one, over all labels and for each."""
    parts = {ALL: table} | {label: table[table["label"] == label] for label in labels}
    return {
        label: {metric: difference(part, FINAL, other, metric, config) for metric in METRICS}
        for label, part in parts.items()
    }
