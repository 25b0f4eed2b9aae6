"""The steps' entry functions, which the components and the command line call.

Each parses its config, opens its inputs once, and calls its part of the library. Bad input ends a step with
one sentence and exit code 2. Further imports are inside the functions: ingest needs no TensorFlow.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from brain_tumor.config import (
    DirectoryDataset,
    EvaluateConfig,
    GateConfig,
    RecordsConfig,
    TrainConfig,
    VisualizeConfig,
    from_json,
    parse_dataset,
)
from brain_tumor.config.fields import is_bucket
from brain_tumor.runtime.errors import InputError
from brain_tumor.runtime.events import begin
from brain_tumor.runtime.step import import_tensorflow, step
from brain_tumor.runtime.tracking import pipeline_run

if TYPE_CHECKING:
    from brain_tumor.artifacts.evaluation import LabelCurves
    from brain_tumor.artifacts.model import Model

# The dashboard truncates longer titles.
LONGEST_TITLE = 24
# The steps' display titles, by component.
TITLES = {
    "ingest": "ingest",
    "build_tfrecords": "build TFRecords",
    "train": "train: {}",
    "evaluate": "evaluate",
    "label_curves": "curves: {}",
    "visualize": "visualize",
    "gate": "gate",
}


def title(step: str, subject: str = "") -> str:
    """A step's display title; a training's is without `train:` if it would be too long.

    Args:
        step: The component's name.
        subject: The phase that it trains, or the label of the curves.

    Example:
        >>> title("train", "phase1_box")
        'train: phase1 box'
    """
    if step != "train":
        return TITLES[step].format(subject)
    phase = subject.replace("_", " ")
    shown = TITLES[step].format(phase)
    return shown if len(shown) <= LONGEST_TITLE else phase


@step()
def ingest(config: str, output: Path, report: Path) -> dict[str, float]:
    """Reads images and boxes, quarantines bad ones, and writes a report.

    Args:
        config: A data set's config (JSON).
        output: The dataset artifact.
        report: The data report (HTML).

    Returns:
        The counts, by name.
    """
    begin(title("ingest"))
    from brain_tumor.artifacts.dataset import DatasetManifest
    from brain_tumor.artifacts.outputs import check_outputs

    parsed = parse_dataset(config)
    export = [parsed.path] if isinstance(parsed, DirectoryDataset) else []
    check_outputs(export, {output: DatasetManifest}, [report])
    from brain_tumor.ingest.ingest import ingest

    ingested = ingest(parsed, Path(output))
    # Imported late: it imports Matplotlib, which is not needed before an error.
    from brain_tumor.reports.data_report import write_data_report

    write_data_report(Path(report), ingested)
    return ingested.dataset.manifest.metrics()


@step()
def build_tfrecords(config: str, dataset: Path, output: Path) -> dict[str, float]:
    """Writes TFRecords and statistics.

    Args:
        config: A `RecordsConfig` (JSON).
        dataset: The dataset artifact.
        output: The records artifact.

    Returns:
        The counts, by name.
    """
    begin(title("build_tfrecords"))
    from brain_tumor.artifacts.dataset import open_dataset
    from brain_tumor.artifacts.outputs import check_outputs
    from brain_tumor.artifacts.records import RecordsManifest

    parsed, opened = from_json(RecordsConfig, config, "records"), open_dataset(dataset)
    check_outputs([dataset], {output: RecordsManifest})
    import_tensorflow()
    from brain_tumor.records.build import build_tfrecords

    return build_tfrecords(parsed, opened, Path(output)).metrics()


@step()
def train(
    config: str, records: Path, output: Path, start: Path | None = None, logs: Path | None = None
) -> dict[str, float]:
    """Trains one phase.

    Args:
        config: A `TrainConfig` (JSON).
        records: The records artifact.
        output: The model artifact.
        start: The model to start from.
        logs: A folder for TensorBoard's files.

    Returns:
        The validation figures of the best epoch, by name.
    """
    parsed = from_json(TrainConfig, config, "training")
    begin(title("train", parsed.name))
    from brain_tumor.artifacts.model import ModelManifest, open_model
    from brain_tumor.artifacts.outputs import check_outputs
    from brain_tumor.artifacts.records import open_records

    opened, before = open_records(records), open_model(start) if start else None
    inputs: list[str | Path] = [path for path in (records, start) if path]
    weights = parsed.model.weights
    inputs += [weights] if parsed.model.weights_fingerprint and not is_bucket(weights) else []
    check_outputs(inputs, {output: ModelManifest}, folders=[logs] if logs else [])
    import_tensorflow()
    from brain_tumor.training.train import train

    return train(parsed, opened, Path(output), before, Path(logs) if logs else None)


@step()
def evaluate(
    config: str,
    records: Path,
    final: Path,
    predictions: Path,
    evaluation: Path,
    report: Path,
    baselines: list[Path] | None = None,
) -> dict[str, float]:
    """Evaluates models and a constant baseline on a split.

    Args:
        config: An `EvaluateConfig` (JSON).
        records: The records artifact.
        final: The model that the report is about.
        predictions: The predictions artifact.
        evaluation: The evaluation artifact.
        report: The model card (Markdown).
        baselines: Models to compare with.

    Returns:
        The final model's main figures, by name; the evaluation has all figures.
    """
    begin(title("evaluate"))
    from brain_tumor.artifacts.evaluation import EvaluationManifest, write_evaluation
    from brain_tumor.artifacts.outputs import check_outputs
    from brain_tumor.artifacts.predictions import PredictionsManifest
    from brain_tumor.artifacts.records import open_records
    from brain_tumor.stores.files import write_file

    parsed = from_json(EvaluateConfig, config, "evaluate")
    opened, models = open_records(records), _open_models(final, baselines or [])
    inputs = [records, final, *(baselines or [])]
    check_outputs(inputs, {predictions: PredictionsManifest, evaluation: EvaluationManifest}, [report])
    import_tensorflow()
    from brain_tumor.evaluation.evaluate import evaluate_predictions
    from brain_tumor.evaluation.predict import predict
    from brain_tumor.reports.model_card import model_card

    found = evaluate_predictions(parsed, predict(parsed, opened, models, Path(predictions)))
    write_evaluation(evaluation, found)
    write_file(report, model_card(found))
    return found.summary()


@step()
def label_curves(evaluation: Path, label: str) -> "LabelCurves":
    """Reads the final model's curves of one label, for a dashboard.

    Args:
        evaluation: The evaluation artifact.
        label: The label's name, or `all labels` for the micro average.
    """
    begin(title("label_curves", label))
    from brain_tumor.artifacts.evaluation import read_evaluation

    found = read_evaluation(evaluation).final_curves(label)
    from brain_tumor.evaluation.curves import repeat_points

    return found.model_copy(update={"roc": found.roc and repeat_points(found.roc)})


@step()
def visualize(config: str, dataset: Path, predictions: Path, evaluation: Path, output: Path) -> None:
    """Draws the gallery, one HTML page.

    Args:
        config: A `VisualizeConfig` (JSON).
        dataset: The dataset artifact, for the images.
        predictions: The predictions artifact.
        evaluation: The evaluation artifact.
        output: The page.
    """
    begin(title("visualize"))
    from brain_tumor.artifacts.dataset import open_dataset
    from brain_tumor.artifacts.evaluation import read_evaluation
    from brain_tumor.artifacts.outputs import check_outputs
    from brain_tumor.artifacts.predictions import open_predictions

    parsed = from_json(VisualizeConfig, config, "visualize")
    check_outputs([dataset, predictions, evaluation], {}, [output])
    images, table, found = open_dataset(dataset), open_predictions(predictions), read_evaluation(evaluation)
    from brain_tumor.reports.prediction_report import write_prediction_report

    write_prediction_report(Path(output), parsed, table, found, images)
    # The figures are logged here rather than by evaluate, since MLflow's import takes seconds.
    run = pipeline_run()
    run.log_metrics(found.metrics())
    run.log_text(Path(output).read_text(encoding="utf-8"), "report.html")
    # So that runs can be compared from MLflow alone.
    run.log_folder(Path(predictions), "predictions")
    run.log_folder(Path(evaluation), "evaluation")
    run.end()


@step()
def gate(config: str, records: Path, final: Path, predictions: Path, output: Path) -> dict[str, str]:
    """Registers the final model with MLflow, and makes it the champion if it is good enough.

    Args:
        config: A `GateConfig` (JSON).
        records: The records artifact.
        final: The model artifact.
        predictions: The predictions artifact.
        output: The decision and its reasons (Markdown).

    Returns:
        The registered version's URI and its alias; empty if nothing is tracked.
    """
    begin(title("gate"))
    from brain_tumor.artifacts.model import open_model
    from brain_tumor.artifacts.outputs import check_outputs
    from brain_tumor.artifacts.predictions import open_predictions
    from brain_tumor.artifacts.records import open_records
    from brain_tumor.reports.gate_report import NOT_TRACKED, gate_markdown
    from brain_tumor.runtime.tracking import existing_store
    from brain_tumor.stores.files import write_file

    parsed = from_json(GateConfig, config, "gate")
    check_outputs([records, final, predictions], {}, [output])
    model, table, images = open_model(final), open_predictions(predictions), open_records(records)
    with existing_store(Path("runs")) as client:
        if client is None or not model.description.mlflow_run_id:
            write_file(output, NOT_TRACKED)
            return {}
        from brain_tumor.gate.register import register

        version, decision = register(parsed, client, model, table, images)
        write_file(output, gate_markdown(version, decision))
    return {"registered": version.uri, "alias": decision.alias}


def _open_models(final: Path, baselines: list[Path]) -> "dict[str, Model]":
    """Models by their names in tables: `final`, and for the others the phase that made each."""
    from brain_tumor.artifacts.model import open_model
    from brain_tumor.config.fields import FINAL

    models = {FINAL: open_model(final)}
    for path in baselines:
        model = open_model(path)
        name = model.description.phases[-1].name
        if name in models:
            raise InputError(f"{path} is a second model of the phase {name}; give each phase's model once.")
        models[name] = model
    return models
