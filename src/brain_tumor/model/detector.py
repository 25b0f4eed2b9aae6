"""The detector: backbone and heads, and which of its weights learn."""

from collections.abc import Iterator

import keras

from brain_tumor.config import HEADS, Head, ModelConfig
from brain_tumor.model.backbone import BACKBONES, build_backbone
from brain_tumor.model.heads import BOX_HEADS, label_head
from brain_tumor.runtime.errors import InputError


def build_detector(config: ModelConfig, num_classes: int, heads: list[Head]) -> keras.Model:
    """Builds the model.

    Args:
        config: The architecture and the backbone's start weights.
        num_classes: Number of labels.
        heads: The heads that the model gets.

    Returns:
        A model from letterboxed RGB images (batch, size, size, 3), 0..255, to a dict with the heads' answers:
        `labels`, probabilities (batch, num_classes), and `boxes`, (batch, num_classes, 4), each
        `[xmin, ymin, xmax, ymax]`, normalized to 0..1 of the letterboxed image, row k for class k.
        Preprocessing is part of the model.

    Raises:
        InputError: The backbone's start weights cannot be had, or do not fit.
    """
    image = keras.Input((config.image_size, config.image_size, 3), name="image")
    features = build_backbone(config)(BACKBONES[config.backbone].preprocess(image))
    outputs = {}
    if "labels" in heads:
        outputs["labels"] = label_head(features[-1], num_classes, config.dropout)
    if "boxes" in heads:
        outputs["boxes"] = BOX_HEADS[config.box_head](features, num_classes, config.head_width)
    return keras.Model(image, outputs, name="detector")


def select_heads(model: keras.Model, heads: list[Head]) -> keras.Model:
    """The same weights with only some of the outputs: nothing is computed for a head that is left out.

    Args:
        model: A detector.
        heads: Some of its heads.
    """
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


def freeze(model: keras.Model, train_heads: list[Head], trainable_layers: int) -> None:
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
    """How many layers of the backbone learn: all of them where neither a number nor a share is given.

    Args:
        backbone_layers: How many it has (345 for ResNet101).
        layers: The number that learn, or None.
        fraction: The share that learn, 0..1, rounded down to whole layers, or None.

    Raises:
        InputError: The backbone has fewer layers.
    """
    if fraction is not None:
        # Rounded first: 0.29 of 100 is 28.999999999999996 in floating point.
        return int(round(backbone_layers * fraction, 6))
    if layers is None:
        return backbone_layers
    if layers > backbone_layers:
        raise InputError(
            f"trainable_layers={layers} is out of range: the backbone has {backbone_layers} layers."
        )
    return layers


def changing_variables(model: keras.Model) -> list[keras.Variable]:
    """What a training changes in a model: all but the weights of frozen layers.

    Dropout's random state is among it. Saving the rest would make a checkpoint of a training of the heads as
    large as one of everything; it comes from the start model, or from the seed.
    """
    frozen = {id(weight) for layer in leaf_layers(model) if not layer.trainable for weight in layer.weights}
    return [variable for variable in model.variables if id(variable) not in frozen]


def leaf_layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """The layers of a model, in place of a model among them its layers."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from leaf_layers(layer)
        else:
            yield layer
