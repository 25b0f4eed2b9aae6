"""The detector: building, freezing, and the models derived from it for training."""

from collections.abc import Iterator
from typing import Any

import keras
from keras import ops

from brain_tumor.config import HEADS, Head, ModelConfig
from brain_tumor.model.backbone import BACKBONES, build_backbone
from brain_tumor.model.dense_head import BoxVoting, dense_box_head, feature_pyramid
from brain_tumor.model.heads import label_head, pooled_box_head
from brain_tumor.model.rgb import Rgb
from brain_tumor.runtime.errors import InputError


def build_detector(config: ModelConfig, num_classes: int, heads: list[Head]) -> keras.Model:
    """Builds the model.

    Args:
        config: The architecture and the backbone's initial weights.
        num_classes: Number of labels.
        heads: The model's heads.

    Returns:
        A model from letterboxed images (batch, size, size, 1 or 3), grey or RGB, 0..255, uint8 or float, to a
        dict with the heads' outputs: `labels`, probabilities (batch, num_classes); `boxes`, (batch,
        num_classes, 4), each `[xmin, ymin, xmax, ymax]`, normalized to 0..1 of the letterboxed image, row k
        for class k; and from the dense box head `scores`, 0..1, (batch, num_classes), by which the boxes of a
        class are ranked: the box's own score, times the label's probability if there is a class head.
        Preprocessing is part of the model.

    Raises:
        InputError: The backbone's initial weights cannot be loaded, or do not fit it.
    """
    image = keras.Input((config.image_size, config.image_size, None), name="image")
    rgb = Rgb(dtype="float32", name="rgb")(image)
    features = build_backbone(config)(BACKBONES[config.backbone].preprocess(rgb))
    outputs = {}
    # The class head's inputs. The mean of the last map alone would hide small objects.
    vectors = [keras.layers.GlobalAveragePooling2D(name="labels_pool")(features[-1])]
    if "boxes" in heads and config.box_head == "pooled":
        outputs["boxes"] = pooled_box_head(features, num_classes, config.head_width)
    elif "boxes" in heads:
        pyramid = feature_pyramid(features, config.head_width)
        box_map = dense_box_head(pyramid, num_classes, config.head_width)
        best = BoxVoting(dtype="float32", name="boxes_best")(box_map)
        outputs["boxes"], score = best[..., :4], best[..., 4]
        vectors += [keras.layers.GlobalMaxPooling2D(name="labels_peak")(pyramid), score]
        outputs["scores"] = ops.sigmoid(score)
    if "labels" in heads:
        outputs["labels"] = label_head(vectors, num_classes, config.dropout)
    if {"labels", "scores"} <= set(outputs):
        outputs["scores"] *= outputs["labels"]
    model = keras.Model(image, outputs, name="detector")
    set_batchnorm_momentum(model, config.batchnorm_momentum)
    return model


def training_model(model: keras.Model, heads: list[Head]) -> keras.Model:
    """A model that shares the weights and has the outputs that training needs; other heads are left out.

    Args:
        model: A detector.
        heads: The heads to train.

    Returns:
        A model with the outputs `labels`, the logits (batch, num_classes); `boxes`, (batch, num_classes, 4),
        or (batch, num_classes, 5) from the dense head, the fifth number the box's score as a logit; and from
        the dense head `boxes_map`, the predictions at all positions, for its loss.
    """
    layers = {layer.name for layer in model.layers}
    outputs = {}
    if "labels" in heads:
        outputs["labels"] = model.get_layer("labels_logits").output
    if "boxes" in heads and "boxes_map" in layers:
        outputs["boxes_map"] = model.get_layer("boxes_map").output
        outputs["boxes"] = model.get_layer("boxes_best").output
    elif "boxes" in heads:
        outputs["boxes"] = model.output["boxes"]
    return keras.Model(model.input, outputs, name=model.name)


def split_frozen_part(model: keras.Model) -> tuple[keras.Model, keras.Model]:
    """Splits a model into its frozen part and the rest, so that the frozen part's outputs can be cached.

    Args:
        model: From `training_model`, after `freeze`.

    Returns:
        A model from images to a list of tensors whose values do not change during training, and one from
        these to the model's outputs. Both share the model's weights.
    """
    changes: dict[str, bool] = {}
    boundary: dict[int, Any] = {}

    def visit(tensor: Any) -> bool:
        """Whether a tensor of the same image changes during training."""
        layer, node_index, _ = tensor._keras_history
        if layer.name not in changes:
            inputs = (
                []
                if isinstance(layer, keras.layers.InputLayer)
                else layer._inbound_nodes[node_index].input_tensors
            )
            inputs_change = [visit(each) for each in inputs]
            changes[layer.name] = _changes(layer) or any(inputs_change)
            if changes[layer.name]:
                boundary.update(
                    {id(each): each for each, change in zip(inputs, inputs_change, strict=True) if not change}
                )
        return changes[layer.name]

    for tensor in model.output.values():
        visit(tensor)
    tensors = list(boundary.values())
    return keras.Model(model.input, tensors), keras.Model(tensors, model.output)


def _changes(operation: Any) -> bool:
    """Whether an operation's output for the same input may change during training."""
    if isinstance(operation, keras.layers.Dropout):
        return bool(operation.rate > 0)
    return isinstance(operation, keras.layers.Layer) and bool(operation.trainable_weights)


def freeze(model: keras.Model, train_heads: list[Head], trainable_layers: int) -> None:
    """Makes the named heads and the top layers of the backbone trainable, and freezes all others.

    In Keras, a frozen BatchNormalization runs in inference mode and does not update its moving statistics, so
    frozen weights stay bit-identical.

    Args:
        model: A detector.
        train_heads: The heads to train.
        trainable_layers: The number of the backbone's layers to train, counted from the top, including
            activation and add layers. The first may be inside a residual block: the top 150 of ResNet101's
            345 start after the first normalization of `conv4_block12`.
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


def set_batchnorm_momentum(model: keras.Model, momentum: float) -> None:
    """Sets the momentum of all BatchNormalization layers in backbone and heads."""
    for layer in leaf_layers(model):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = momentum


def resolve_trainable_layers(backbone_layers: int, layers: int | None, fraction: float | None) -> int:
    """The number of the backbone's layers to train; all if neither a number nor a fraction is given.

    Args:
        backbone_layers: The number of the backbone's layers (345 for ResNet101).
        layers: The number to train, or None.
        fraction: The fraction to train, 0..1, rounded down to whole layers, or None.

    Raises:
        InputError: The backbone has fewer layers.
    """
    if fraction is not None:
        # Rounded first: 0.29 * 100 is 28.999999999999996 in floating point.
        return int(round(backbone_layers * fraction, 6))
    if layers is None:
        return backbone_layers
    if layers > backbone_layers:
        raise InputError(
            f"trainable_layers={layers} is out of range: the backbone has {backbone_layers} layers."
        )
    return layers


def changing_variables(model: keras.Model) -> list[keras.Variable]:
    """The variables that change during training: all but the weights of frozen layers.

    They include Dropout's random state. Checkpoints omit the frozen weights, which come from the start model
    or the seed, and so are much smaller.
    """
    frozen = {id(weight) for layer in leaf_layers(model) if not layer.trainable for weight in layer.weights}
    return [variable for variable in model.variables if id(variable) not in frozen]


def leaf_layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """Yields all layers of a model; nested models are flattened."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from leaf_layers(layer)
        else:
            yield layer
