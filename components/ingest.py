"""The component that reads the data set."""

from kfp import dsl
from kfp.dsl import HTML, Dataset, Output


@dsl.component(base_image="brain-tumor", install_kfp_package=False)
def ingest(config: str, dataset: Output[Dataset], data_report: Output[HTML]):
    """Reads a source of images, quarantines bad ones, and writes a data report.

    Args:
        config: The data set's section of the configuration (JSON).
        dataset: The dataset artifact.
        data_report: An overview of the data.
    """
    from brain_tumor import steps

    dataset.metadata.update(steps.ingest(config, dataset.path, data_report.path))
