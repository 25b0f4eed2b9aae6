"""The component that evaluates the models."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Markdown, Metrics, Model, Output


@dsl.component(base_image="brain-tumor", install_kfp_package=False)
def evaluate(
    config: str,
    records: Input[Dataset],
    final: Input[Model],
    predictions: Output[Dataset],
    evaluation: Output[Artifact],
    metrics: Output[Metrics],
    report: Output[Markdown],
    baseline_1: Input[Model] = None,
    baseline_2: Input[Model] = None,
    baseline_3: Input[Model] = None,
    baseline_4: Input[Model] = None,
):
    """Evaluates the final model, the baselines and a constant baseline.

    Args:
        config: The evaluate section of the configuration (JSON).
        records: From build_tfrecords.
        final: The model that is the pipeline's result.
        predictions: The predictions artifact: one row per image, class and model.
        evaluation: The evaluation artifact: all figures.
        metrics: The final model's main figures, under the same names in every run.
        report: The model card.
        baseline_1: A baseline. A component cannot take a list of models, so there are four inputs.
        baseline_2: See baseline_1.
        baseline_3: See baseline_1.
        baseline_4: See baseline_1.
    """
    from brain_tumor import steps
    from brain_tumor.stores.files import write_json

    baselines = [model.path for model in (baseline_1, baseline_2, baseline_3, baseline_4) if model]
    outputs = predictions.path, evaluation.path, report.path
    figures = steps.evaluate(config, records.path, final.path, *outputs, baselines)
    write_json(metrics.path, figures)
    for name, value in figures.items():
        metrics.log_metric(name, value)
