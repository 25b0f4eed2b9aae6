import keras
import pytest

from brain_tumor.compose import compose, step_configs
from brain_tumor.config import PhaseConfig, TrainConfig, from_json
from brain_tumor.errors import InputError
from brain_tumor.losses import BOX_LOSSES
from brain_tumor.model.heads import pooled_box_head
from brain_tumor.training.learner import compile_learner


def phase(**changes: object) -> PhaseConfig:
    overrides = [f"phases.baseline_box.{key}={value}" for key, value in changes.items()]
    return from_json(TrainConfig, step_configs(compose(overrides))["baseline_box"]).phase


def learner() -> keras.Model:
    features = keras.Input((2, 2, 8))
    return keras.Model(features, {"boxes": pooled_box_head([features], 3, 16)})


@pytest.mark.parametrize("name", BOX_LOSSES)
def test_the_box_loss_is_the_phases(name: str) -> None:
    model = learner()
    compile_learner(model, phase(box_loss=name, l1_weight=0.5), [1.0] * 3, 10)
    loss = model.loss["boxes"]
    assert type(loss) is BOX_LOSSES[name]
    assert loss.l1_weight == 0.5


def test_an_unknown_box_loss_is_refused() -> None:
    with pytest.raises(InputError, match="box_loss=eiou is not known; choose one of iou, giou, diou, ciou"):
        compile_learner(learner(), phase(box_loss="eiou"), [1.0] * 3, 10)
