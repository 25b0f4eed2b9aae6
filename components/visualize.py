from kfp import dsl
from kfp.dsl import HTML, Dataset, Input, Model, Output


@dsl.component(base_image="brain-tumor", install_kfp_package=False)
def visualize(
    config: str,
    dataset: Input[Dataset],
    predictions: Input[Dataset],
    final: Input[Model],
    baseline_classification: Input[Model],
    baseline_box: Input[Model],
    gallery: Output[HTML],
):
    """Draws true and predicted boxes, curves and histograms on one page.

    Args:
        config: The visualize section of the configuration (JSON).
        dataset: From ingest, for the images.
        predictions: From evaluate.
        final: The model of the last phase, for its training curves.
        baseline_classification: The model with the class head alone, likewise.
        baseline_box: The model with the box head alone, likewise.
        gallery: The page.
    """
    from brain_tumor.config import VisualizeConfig, from_json
    from brain_tumor.model.artifact import read_histories
    from brain_tumor.step import step
    from brain_tumor.visualization.page import visualize

    models = [final.path, baseline_classification.path, baseline_box.path]
    with step():
        parsed = from_json(VisualizeConfig, config)
        visualize(parsed, predictions.path, dataset.path, read_histories(models), gallery.path)
