"""The component that reads the data set."""

from kfp import dsl
from kfp.dsl import HTML, Dataset, Output


@dsl.component(base_image="brain-tumor", install_kfp_package=False)
def ingest(config: str, dataset: Output[Dataset], data_report: Output[HTML]):
    """Reads images and boxes from their source, quarantines bad images, and writes a data report.

    Args:
        config: The dataset section of the configuration (JSON).
        dataset: The dataset artifact.
        data_report: The data report.
    """
    from brain_tumor import steps

    dataset.metadata.update(steps.ingest(config, dataset.path, data_report.path))
