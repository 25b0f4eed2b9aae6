import keras
import numpy as np
import pytest
import tensorflow as tf

from brain_tumor.config import HEADS, ModelConfig, PhaseConfig
from brain_tumor.losses import BOX_LOSSES
from brain_tumor.model.detector import build_detector, freeze
from brain_tumor.model.graphs import flatten_graphs
from brain_tumor.model.heads import pooled_box_head
from brain_tumor.training.compile import compile_model


@pytest.mark.parametrize("name", BOX_LOSSES)
def test_the_box_loss_is_the_phases(name: str) -> None:
    features = keras.Input((2, 2, 8))
    model = keras.Model(features, {"boxes": pooled_box_head([features], 3, 16)})
    phase = PhaseConfig.model_validate({"box_loss": name, "l1_weight": 0.5})

    compile_model(model, phase, [1.0] * 3, 10)

    loss = model.loss["boxes"]
    assert type(loss) is BOX_LOSSES[name]
    assert loss.l1_weight == 0.5


@pytest.mark.parametrize("one_graph", [True, False])
def test_a_step_is_traced_once(one_graph: bool) -> None:
    """Keras would trace it twice if the first trace created a variable, of the optimizer or a metric."""
    config = ModelConfig(backbone="resnet50", weights="none", image_size=32, head_width=16)
    model = build_detector(config, 3, list(HEADS))
    freeze(model, list(HEADS), 20)
    compile_model(model, PhaseConfig(clip_norm=1.0), [1.0] * 3, 4, False)
    steps: list[str] = []
    for name in ("train_step", "test_step"):
        step = getattr(model, name)
        setattr(model, name, lambda data, name=name, step=step: (steps.append(name), step(data))[1])
    if one_graph:
        flatten_graphs(model)
    truth = {"labels": np.ones((5, 3), np.float32), "boxes": np.full((5, 3, 4), 0.5, np.float32)}
    batches = tf.data.Dataset.from_tensor_slices((np.ones((5, 32, 32, 3), np.float32), truth)).batch(2)

    history = model.fit(batches.repeat(), steps_per_epoch=2, epochs=2, validation_data=batches, verbose=0)

    assert steps == ["train_step", "test_step"]
    assert len(history.history["val_loss"]) == 2
