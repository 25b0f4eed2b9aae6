"""The component that writes the TFRecords."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Output


@dsl.component(base_image="brain-tumor", install_kfp_package=False)
def build_tfrecords(config: str, dataset: Input[Dataset], records: Output[Dataset]):
    """Writes the images and boxes as TFRecords, and the statistics that training needs.

    Args:
        config: The records section of the configuration (JSON).
        dataset: From ingest.
        records: The records artifact.
    """
    from brain_tumor import steps

    records.metadata.update(steps.build_tfrecords(config, dataset.path, records.path))
