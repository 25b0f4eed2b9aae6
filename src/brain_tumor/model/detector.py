"""The detector: backbone and heads, and which of its weights learn."""

import keras

from brain_tumor.config import ModelConfig
from brain_tumor.errors import InputError
from brain_tumor.model.backbone import architecture, build_backbone
from brain_tumor.model.heads import BOX_HEADS, label_head

HEADS = ("labels", "boxes")


def build_detector(config: ModelConfig, num_classes: int, heads: list[str]) -> keras.Model:
    """Builds the model.

    Args:
        config: The architecture and the backbone's start weights.
        num_classes: Number of labels.
        heads: `labels`, `boxes` or both.

    Returns:
        A model from letterboxed RGB images (batch, size, size, 3), 0..255, to a dict with the heads' answers:
        `labels`, probabilities (batch, num_classes), and `boxes`, (batch, num_classes, 4), each
        `[xmin, ymin, xmax, ymax]`, normalised to 0..1 of the letterboxed image, row k for class k.
        Preprocessing is part of the model.

    Raises:
        InputError: A head's or the box head's name is unknown, or the backbone cannot be built.
    """
    if not heads or set(heads) - set(HEADS):
        raise InputError(f"heads={heads} is not usable: give one or both of {', '.join(HEADS)}.")
    if config.box_head not in BOX_HEADS:
        raise InputError(
            f"model.box_head={config.box_head} is not known; choose one of {', '.join(BOX_HEADS)}."
        )
    image = keras.Input((config.image_size, config.image_size, 3), name="image")
    features = build_backbone(config)(architecture(config.backbone).preprocess(image))
    outputs = {}
    if "labels" in heads:
        outputs["labels"] = label_head(features[-1], num_classes, config.dropout)
    if "boxes" in heads:
        outputs["boxes"] = BOX_HEADS[config.box_head](features, num_classes, config.head_width)
    return keras.Model(image, outputs, name="detector")


def select_heads(model: keras.Model, heads: list[str]) -> keras.Model:
    """The same weights with only some of the outputs: nothing is computed for a head that is left out.

    Raises:
        InputError: The model lacks one of the heads.
    """
    missing = [head for head in heads if head not in model.output]
    if missing:
        raise InputError(f"The model has no {missing[0]} head; it has: {', '.join(model.output)}.")
    return keras.Model(model.input, {head: model.output[head] for head in heads}, name=model.name)


def split_at_backbone(model: keras.Model) -> tuple[keras.Model, keras.Model]:
    """Cuts a model where the backbone ends, for trainings in which the backbone does not change.

    Args:
        model: A detector, or a part of one from `select_heads`.

    Returns:
        A model from images to the list of feature maps that the heads read, and one from these to the model's
        outputs. Both share the detector's weights.
    """
    stems = [
        layer
        for layer in model.layers
        if layer.name.startswith(("labels_pool", "boxes_lateral", "boxes_pool"))
    ]
    # Two heads may read the same map.
    features = list({id(stem.input): stem.input for stem in stems}.values())
    return keras.Model(model.input, features), keras.Model(features, model.output)


def freeze(model: keras.Model, train_heads: list[str], trainable_layers: int) -> None:
    """Sets which weights learn: the named heads and the top of the backbone.

    A frozen BatchNormalization also stops updating its moving statistics and runs in inference mode (Keras
    does so for a layer with trainable=False), so a frozen weight leaves a training as it entered.

    Args:
        model: A detector.
        train_heads: The heads that learn.
        trainable_layers: How many of the backbone's layers learn, counted from the top, activations and sums
            included. They may begin inside of a residual block: the top 150 of ResNet101's 345 begin behind
            the first normalization of `conv4_block12`.
    """
    backbone = model.get_layer("backbone")
    backbone.trainable = True
    first = len(backbone.layers) - trainable_layers
    for index, layer in enumerate(backbone.layers):
        layer.trainable = index >= first
    for layer in model.layers:
        head = layer.name.split("_")[0]
        if head in HEADS:
            layer.trainable = head in train_heads


def count_trainable_layers(backbone_layers: int, layers: int | None, fraction: float | None) -> int:
    """How many layers of the backbone learn.

    Args:
        backbone_layers: How many it has (345 for ResNet101).
        layers: The number that learn, or None.
        fraction: The share that learn, 0..1, rounded down to whole layers, or None.

    Raises:
        InputError: Not exactly one of the two is given, or it is out of range.
    """
    if (layers is None) == (fraction is None):
        raise InputError("Set exactly one of trainable_layers and trainable_fraction, and the other to null.")
    if layers is None:
        assert fraction is not None
        if not 0 <= fraction <= 1:
            raise InputError(f"trainable_fraction={fraction} is out of range: give a share from 0 to 1.")
        # Rounded first: 0.29 of 100 is 28.999999999999996 in floating point.
        return int(round(backbone_layers * fraction, 6))
    if not 0 <= layers <= backbone_layers:
        raise InputError(
            f"trainable_layers={layers} is out of range: the backbone has {backbone_layers} layers."
        )
    return layers
