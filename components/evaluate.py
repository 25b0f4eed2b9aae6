from kfp import dsl
from kfp.dsl import Dataset, Input, Markdown, Metrics, Model, Output


@dsl.component(base_image="brain-tumor", install_kfp_package=False)
def evaluate(
    config: str,
    records: Input[Dataset],
    final: Input[Model],
    baseline_classification: Input[Model],
    baseline_box: Input[Model],
    predictions: Output[Dataset],
    metrics: Output[Metrics],
    report: Output[Markdown],
):
    """Judges the final model beside the baselines.

    Args:
        config: The evaluate section of the configuration (JSON).
        records: From build_tfrecords.
        final: The model of the last phase.
        baseline_classification: The model with the class head alone.
        baseline_box: The model with the box head alone.
        predictions: The predictions artifact: one row an image, class and model.
        metrics: All figures, under the same names in every run.
        report: The figures to read.
    """
    from brain_tumor.config import EvaluateConfig, from_json
    from brain_tumor.step import step
    from brain_tumor.storage import write_json

    models = {
        "final": final.path,
        "baseline_classification": baseline_classification.path,
        "baseline_box": baseline_box.path,
    }
    with step():
        from brain_tumor.evaluation.evaluate import evaluate

        parsed = from_json(EvaluateConfig, config)
        figures = evaluate(parsed, records.path, models, predictions.path, report.path)
        write_json(metrics.path, figures)
        for name, value in figures.items():
            metrics.log_metric(name, value)
