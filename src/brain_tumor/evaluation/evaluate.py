"""Computes an evaluation from the predictions table. Reports compute no figures."""

import pandas as pd

from brain_tumor.artifacts.dataset import count_patients
from brain_tumor.artifacts.evaluation import ALL, Evaluation, Interval, ModelEvaluation
from brain_tumor.artifacts.predictions import Predictions, PredictionsManifest, has_class_head
from brain_tumor.config import EvaluateConfig
from brain_tumor.config.fields import FINAL
from brain_tumor.evaluation.curves import label_curves
from brain_tumor.evaluation.figures import label_figures, overall_figures
from brain_tumor.evaluation.intervals import FROM_IMAGE, LABEL_METRICS, METRICS, Bootstrap
from brain_tumor.evaluation.thresholds import Thresholds, find_thresholds, with_decisions
from brain_tumor.runtime.errors import InputError


def evaluate_predictions(config: EvaluateConfig, predictions: Predictions) -> Evaluation:
    """Evaluates the models of a predictions artifact.

    Args:
        config: Split, threshold, number of resamples and their seed.
        predictions: The models' predictions.

    Raises:
        InputError: The predictions have no rows of the split, or none of valid to tune thresholds on.
    """
    manifest, full_table = predictions.manifest, predictions.table
    table = full_table[full_table["split"] == config.split]
    if table.empty:
        raise InputError(
            f"{predictions.path} has no predictions for the split {config.split}; predict that split first."
        )
    thresholds = {
        name: find_thresholds(full_table[full_table["model"] == name], manifest.labels, config)
        for name in manifest.models
    }
    table = with_decisions(table, thresholds)
    bootstrap = Bootstrap(table, config)
    # All models have rows for the same images and labels, so one model's rows are counted.
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
        models={
            name: _evaluate_model(name, table, manifest, config, thresholds[name], bootstrap)
            for name in manifest.models
        },
        differences={
            name: _differences(name, manifest.labels, bootstrap) for name in manifest.models if name != FINAL
        },
        trainings={
            name: epochs for model in manifest.models.values() for name, epochs in model.trainings.items()
        },
        configs={"evaluate": config.model_dump(mode="json")}
        | {name: own for model in manifest.models.values() for name, own in model.configs.items()},
        data=manifest.data,
    )


def _evaluate_model(
    name: str,
    table: pd.DataFrame,
    manifest: PredictionsManifest,
    config: EvaluateConfig,
    thresholds: Thresholds,
    bootstrap: Bootstrap,
) -> ModelEvaluation:
    rows = table[table["model"] == name]
    labels = label_figures(rows, manifest.labels, config.threshold)
    class_head = has_class_head(rows)
    curves = {
        label: label_curves(rows[rows["label"] == label], config.threshold)
        for label in manifest.labels
        if class_head
    }
    return ModelEvaluation(
        title=manifest.models[name].title,
        mlflow_run_id=manifest.models[name].mlflow_run_id,
        artifact=manifest.models[name].artifact,
        thresholds=thresholds,
        figures=overall_figures(rows, labels, config.threshold),
        labels=labels,
        intervals={metric: bootstrap.interval(name, metric) for metric in METRICS},
        label_intervals={
            label: {
                figure: bootstrap.interval(name, metric, label) for figure, metric in LABEL_METRICS.items()
            }
            for label in manifest.labels
        },
        iou_from_image=bootstrap.interval(name, FROM_IMAGE),
        curves=curves,
        micro=label_curves(rows, config.threshold) if class_head else None,
    )


def _differences(other: str, labels: list[str], bootstrap: Bootstrap) -> dict[str, dict[str, Interval]]:
    """The final model's figures minus another's, over all labels and for each."""
    metrics = {ALL: METRICS} | {label: tuple(LABEL_METRICS.values()) for label in labels}
    return {
        label: {metric: bootstrap.difference(FINAL, other, metric, label) for metric in own}
        for label, own in metrics.items()
    }
