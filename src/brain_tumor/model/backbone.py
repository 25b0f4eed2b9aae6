"""The backbone: a ResNet of keras.applications that gives feature maps at three strides."""

from functools import partial
from pathlib import Path

import keras

from brain_tumor.config import ModelConfig
from brain_tumor.errors import InputError

BACKBONES = {
    "resnet50": keras.applications.ResNet50,
    "resnet101": keras.applications.ResNet101,
    "resnet152": keras.applications.ResNet152,
}

# Mean of ImageNet's blue, green and red over 0..255, what these ResNets were trained with ("caffe"
# preprocessing).
IMAGENET_MEAN_BGR = [103.939, 116.779, 123.68]


def build_backbone(config: ModelConfig) -> keras.Model:
    """Builds the backbone with its start weights.

    Returns:
        A model named `backbone` from preprocessed images (batch, size, size, 3) to the last feature maps at
        strides 8, 16 and 32. Its layers are those of keras.applications, in its order.

    Raises:
        InputError: The backbone's name is unknown, or the weights cannot be had or do not fit.
    """
    if config.backbone not in BACKBONES:
        known = ", ".join(BACKBONES)
        raise InputError(f"model.backbone={config.backbone} is not known; choose one of {known}.")
    build = partial(
        BACKBONES[config.backbone],
        include_top=False,
        input_shape=(config.image_size, config.image_size, 3),
    )
    if config.weights == "imagenet":
        try:
            base = build(weights="imagenet")
        except Exception as error:
            # Keras raises a bare Exception where it cannot fetch a file; any other kind is not about that.
            if type(error) is not Exception:
                raise
            raise InputError(
                f"The ImageNet weights could not be fetched ({error}); put the file where model.weights=PATH"
                " names it, or give model.weights=none."
            ) from error
    else:
        base = build(weights=None)
    stages = [
        [
            layer
            for layer in base.layers
            if layer.name.startswith(f"conv{stage}_") and layer.name.endswith("_out")
        ][-1]
        for stage in (3, 4, 5)
    ]
    backbone = keras.Model(base.input, [stage.output for stage in stages], name="backbone")
    if config.weights not in ("imagenet", "none"):
        load_weights(backbone, Path(config.weights))
    set_batchnorm_momentum(backbone, config.batchnorm_momentum)
    return backbone


def set_batchnorm_momentum(backbone: keras.Model, momentum: float) -> None:
    """Sets how slowly the moving statistics follow; keras.applications has no argument for it."""
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = momentum


def load_weights(backbone: keras.Model, path: Path) -> None:
    """Loads weights from a detector (.keras), whose backbone is taken, or from a backbone's own .h5 file."""
    if not path.is_file():
        raise InputError(
            f"model.weights={path} is not there; give imagenet, none or the path of a .keras or .h5 file."
        )
    try:
        if path.suffix == ".keras":
            backbone.set_weights(
                keras.saving.load_model(path, compile=False).get_layer("backbone").get_weights()
            )
        else:
            backbone.load_weights(path)
    except (ValueError, OSError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{path} does not fit the {backbone.count_params():,}-weight backbone: {reason}"
        ) from error
