"""The evaluate step."""

from pathlib import Path

from brain_tumor.config import EvaluateConfig
from brain_tumor.evaluation.predictions import predict
from brain_tumor.evaluation.report import evaluate_predictions, scalar_metrics
from brain_tumor.storage import write_file


def evaluate(
    config: EvaluateConfig,
    records: str | Path,
    models: dict[str, str | Path],
    output: str | Path,
    report: str | Path,
) -> dict[str, float]:
    """Predicts a split with all models, and judges them beside the constant baseline.

    Args:
        config: The step's config.
        records: The records artifact's folder.
        models: Folders of model artifacts by name; `final` is the one that the report is about.
        output: The predictions artifact's folder.
        report: The Markdown report's file.

    Returns:
        All figures that exist, by `<model>_<figure>`, sorted.

    Raises:
        InputError: An artifact is missing, or a model's labels are not the records'.
    """
    predict(config, records, models, output)
    judged = evaluate_predictions(config, output)
    write_file(report, judged.markdown)
    return scalar_metrics(judged.metrics)
