from kfp import dsl
from kfp.dsl import Dataset, Input, Model, Output


@dsl.component(base_image="brain-tumor", install_kfp_package=False)
def train(config: str, records: Input[Dataset], model: Output[Model], start: Input[Model] = None):
    """Trains one phase.

    Args:
        config: The phase and what all phases share (JSON).
        records: From build_tfrecords.
        model: The model artifact.
        start: The model to go on from; without it a new one is built.
    """
    from brain_tumor.config import TrainConfig, from_json
    from brain_tumor.step import step

    with step():
        from brain_tumor.training.trainer import train

        parsed = from_json(TrainConfig, config)
        model.metadata.update(train(parsed, records.path, model.path, start.path if start else None))
