"""The component that trains one phase or baseline."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Model, Output


@dsl.component(base_image="brain-tumor", install_kfp_package=False)
def train(
    config: str,
    records: Input[Dataset],
    model: Output[Model],
    tensorboard: Output[Artifact],
    start: Input[Model] = None,
):
    """Trains one phase.

    Args:
        config: The phase's section of the configuration, and the settings shared by all phases (JSON).
        records: From build_tfrecords.
        model: The model artifact.
        tensorboard: TensorBoard's event files: curves, and boxes on validation images.
        start: The model to start from; if it is not given, a new one is built.
    """
    import json

    from brain_tumor import steps

    before = start.path if start else None
    model.metadata.update(steps.train(config, records.path, model.path, before, tensorboard.path))
    name = json.loads(config)["name"].replace("_", " ")
    model.metadata["display_name"] = f"model: {name}"
    tensorboard.metadata["display_name"] = f"tensorboard: {name}"
