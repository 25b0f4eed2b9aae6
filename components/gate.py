"""The component that registers the final model, and decides whether it becomes the champion."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Markdown, Model, Output


@dsl.component(base_image="brain-tumor", install_kfp_package=False)
def gate(
    config: str,
    records: Input[Dataset],
    final: Input[Model],
    predictions: Input[Dataset],
    decision: Output[Markdown],
):
    """Registers the final model, and makes it the champion if it is not worse than the current one.

    Args:
        config: The gate section of the configuration (JSON).
        records: From build_tfrecords, for evaluating the champion.
        final: The model that is the pipeline's result.
        predictions: From evaluate.
        decision: The decision and its reasons.
    """
    from brain_tumor import steps

    paths = records.path, final.path, predictions.path, decision.path
    decision.metadata.update(steps.gate(config, *paths))
