"""The detector: backbone and heads, freezing, and the models that a training runs."""

from collections.abc import Iterator
from typing import Any

import keras
from keras import ops

from brain_tumor.config import HEADS, Head, ModelConfig
from brain_tumor.model.backbone import BACKBONES, build_backbone
from brain_tumor.model.dense_head import BestAnswers, dense_box_head, feature_pyramid
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
        InputError: The backbone's initial weights cannot be loaded, or do not fit.
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
        answers = dense_box_head(pyramid, num_classes, config.head_width)
        best = BestAnswers(dtype="float32", name="boxes_best")(answers)
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
    """A model of the same weights with the outputs for a training; other heads are not computed.

    Args:
        model: A detector.
        heads: The heads that learn.

    Returns:
        A model with the outputs `labels`, the logits; `boxes`, (batch, num_classes, 4), or from the dense
        head (batch, num_classes, 5), the fifth number the box's score as a logit; and from the dense head
        `boxes_map`, the predictions at all positions, for its loss.
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


def split_where_learning_begins(model: keras.Model) -> tuple[keras.Model, keras.Model]:
    """Splits a model into a constant part and a learning part.

    Args:
        model: From `training_model`, with all layers frozen that do not learn.

    Returns:
        A model from images to a list of tensors whose values are the same in each epoch, and one from these
        to the model's outputs. Both share the model's weights.
    """
    changing: dict[str, bool] = {}
    border: dict[int, Any] = {}

    def visit(tensor: Any) -> bool:
        """Whether a tensor changes between epochs, for the same image."""
        layer, node_index, _ = tensor._keras_history
        if layer.name not in changing:
            inputs = (
                []
                if isinstance(layer, keras.layers.InputLayer)
                else layer._inbound_nodes[node_index].input_tensors
            )
            moved = [visit(each) for each in inputs]
            changing[layer.name] = _learns(layer) or any(moved)
            if changing[layer.name]:
                border.update(
                    {id(each): each for each, moves in zip(inputs, moved, strict=True) if not moves}
                )
        return changing[layer.name]

    for tensor in model.output.values():
        visit(tensor)
    tensors = list(border.values())
    return keras.Model(model.input, tensors), keras.Model(tensors, model.output)


def _learns(operation: Any) -> bool:
    """Whether the output of an operation for the same input may change."""
    if isinstance(operation, keras.layers.Dropout):
        return bool(operation.rate > 0)
    return isinstance(operation, keras.layers.Layer) and bool(operation.trainable_weights)


def freeze(model: keras.Model, train_heads: list[Head], trainable_layers: int) -> None:
    """Sets which weights learn: the named heads and the top of the backbone.

    A frozen BatchNormalization also stops updating its moving statistics and runs in inference mode (Keras
    does so for a layer with trainable=False), so frozen weights stay bit-identical.

    Args:
        model: A detector.
        train_heads: The heads that learn.
        trainable_layers: The number of the backbone's layers that learn, counted from the top, including
            activations and sums. They may start inside a residual block: the top 150 of ResNet101's 345 start
            after the first normalization of `conv4_block12`.
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
    """Sets the momentum of the moving statistics in backbone and heads."""
    for layer in leaf_layers(model):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = momentum


def count_trainable_layers(backbone_layers: int, layers: int | None, fraction: float | None) -> int:
    """The number of the backbone's layers that learn: all, if neither a number nor a fraction is given.

    Args:
        backbone_layers: The number of its layers (345 for ResNet101).
        layers: The number that learn, or None.
        fraction: The fraction that learn, 0..1, rounded down to whole layers, or None.

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
    """The variables that a training changes: all but the weights of frozen layers.

    They include Dropout's random state. The other weights need not be in a checkpoint, which is much smaller
    without them: they come from the start model, or from the seed.
    """
    frozen = {id(weight) for layer in leaf_layers(model) if not layer.trainable for weight in layer.weights}
    return [variable for variable in model.variables if id(variable) not in frozen]


def leaf_layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """All layers of a model; nested models are flattened."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from leaf_layers(layer)
        else:
            yield layer
