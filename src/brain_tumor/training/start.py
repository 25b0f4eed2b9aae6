"""Checks of the model that a phase starts from."""

from brain_tumor.artifacts.model import Model
from brain_tumor.config import TrainConfig
from brain_tumor.runtime.errors import InputError


def check_start(start: Model | None, config: TrainConfig, labels: list[str]) -> None:
    """Checks that the start model is there if, and only if, the phase needs one, and fits the phase.

    Args:
        start: The start model, if one is given.
        config: The training's config.
        labels: The records' labels, in slot order.

    Raises:
        InputError: It is missing, unexpected or does not fit; the message says what to change.
    """
    name, wanted_start = config.name, config.phase.start
    if start is None:
        if wanted_start:
            raise InputError(
                f"{name} starts from the model of {wanted_start}; give that model, or set "
                f"phases.{name}.start=null for a new model."
            )
        return
    found = start.description
    pairs = {
        "labels": (found.labels, labels),
        "image_size": (found.image_size, config.model.image_size),
        "heads": (found.heads, config.phase.heads),
    }
    for key, (value, wanted) in pairs.items():
        if value != wanted:
            raise InputError(
                f"{name}: the start model has {key} {value}, this phase needs {wanted}; start from a "
                "model with the same value."
            )
    if found.backbone.name != config.model.backbone:
        raise InputError(
            f"{name}: the start model's backbone is {found.backbone.name}, this phase's is "
            f"{config.model.backbone}; start from a model with the same backbone."
        )
    if found.box_head != config.model.box_head:
        raise InputError(
            f"{name}: the start model's box head is {found.box_head}, this phase's is "
            f"{config.model.box_head}; start from a model with the same box head."
        )
    last = found.phases[-1].name
    if last != wanted_start:
        raise InputError(
            f"{name}: the start model is that of {last}, this phase starts from {wanted_start or 'none'}; "
            f"set phases.{name}.start={last} to use it."
        )
