"""The component that draws the gallery."""

from kfp import dsl
from kfp.dsl import HTML, Artifact, Dataset, Input, Output


@dsl.component(base_image="brain-tumor", install_kfp_package=False)
def visualize(
    config: str,
    dataset: Input[Dataset],
    predictions: Input[Dataset],
    evaluation: Input[Artifact],
    gallery: Output[HTML],
):
    """Draws the gallery: true and predicted boxes, curves and histograms on one page.

    Args:
        config: The visualize section of the configuration (JSON).
        dataset: From ingest, for the images.
        predictions: From evaluate.
        evaluation: From evaluate.
        gallery: The HTML page.
    """
    from brain_tumor import steps

    steps.visualize(config, dataset.path, predictions.path, evaluation.path, gallery.path)
