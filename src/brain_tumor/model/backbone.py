"""The backbone: a ResNet of keras.applications with feature maps at four strides."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import keras
from keras import ops

from brain_tumor.config import ModelConfig
from brain_tumor.runtime.errors import InputError
from brain_tumor.stores.folders import download_file
from brain_tumor.stores.paths import open_path

# ImageNet's mean blue, green and red, 0..255.
IMAGENET_MEAN_BGR = [103.939, 116.779, 123.68]


def _centered_bgr(image: Any) -> Any:
    """Keras's "caffe" preprocessing, used for the ImageNet weights of ResNet (v1)."""
    x = ops.flip(image, axis=-1)
    return keras.layers.Normalization(mean=IMAGENET_MEAN_BGR, variance=[1.0] * 3, name="preprocessing")(x)


def _minus_one_to_one(image: Any) -> Any:
    """Keras's "tf" preprocessing, used for the ImageNet weights of ResNetV2."""
    return keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="preprocessing")(image)


@dataclass(frozen=True)
class Architecture:
    """A backbone of keras.applications.

    Attributes:
        build: The constructor in keras.applications.
        features: Names of the layers with the last activations at strides 4, 8, 16 and 32.
        preprocess: Maps RGB images, 0..255, to the inputs that the ImageNet weights expect.
    """

    build: Callable[..., keras.Model]
    features: tuple[str, str, str, str]
    preprocess: Callable[[Any], Any] = _centered_bgr


BACKBONES = {
    "resnet50": Architecture(
        keras.applications.ResNet50,
        ("conv2_block3_out", "conv3_block4_out", "conv4_block6_out", "conv5_block3_out"),
    ),
    "resnet101": Architecture(
        keras.applications.ResNet101,
        ("conv2_block3_out", "conv3_block4_out", "conv4_block23_out", "conv5_block3_out"),
    ),
    "resnet152": Architecture(
        keras.applications.ResNet152,
        ("conv2_block3_out", "conv3_block8_out", "conv4_block36_out", "conv5_block3_out"),
    ),
    # In ResNetV2 a block's activation is in the next block, and the last block of a stage halves the
    # resolution.
    "resnet101v2": Architecture(
        keras.applications.ResNet101V2,
        ("conv2_block3_preact_relu", "conv3_block4_preact_relu", "conv4_block23_preact_relu", "post_relu"),
        _minus_one_to_one,
    ),
}


def build_backbone(config: ModelConfig) -> keras.Model:
    """Builds the backbone with its initial weights.

    Returns:
        A model named `backbone` from preprocessed images (batch, size, size, 3) to the last feature maps at
        strides 4, 8, 16 and 32. Its layers are those of keras.applications, in the same order.

    Raises:
        InputError: The weights cannot be loaded, or do not fit the backbone.
    """
    architecture = BACKBONES[config.backbone]
    build = partial(
        architecture.build, include_top=False, input_shape=(config.image_size, config.image_size, 3)
    )
    if config.weights == "imagenet":
        try:
            base = build(weights="imagenet")
        except Exception as error:
            # Keras raises a plain Exception, not a subclass, if a download fails.
            if type(error) is not Exception:
                raise
            raise InputError(
                f"The ImageNet weights could not be downloaded ({error}); set model.weights to a "
                "file's path or to none."
            ) from error
    else:
        base = build(weights=None)
    features = [base.get_layer(name).output for name in architecture.features]
    backbone = keras.Model(base.input, features, name="backbone")
    if config.weights not in ("imagenet", "none"):
        load_weights(backbone, config.weights)
    return backbone


def load_weights(backbone: keras.Model, address: str) -> None:
    """Loads weights from a detector's .keras file or from a backbone's .h5 file.

    Args:
        backbone: The model to load them into.
        address: The file's path or bucket address.

    Raises:
        InputError: The file does not exist, cannot be read, or does not fit the backbone.
    """
    source = open_path(address)
    with tempfile.TemporaryDirectory() as scratch:
        path = source if isinstance(source, Path) else Path(scratch) / source.name
        if path is not source:
            download_file(source, path)
        if not path.is_file():
            raise InputError(
                f"model.weights={address} does not exist; give imagenet, none or the path (or a bucket's "
                "address) of a .keras or .h5 file."
            )
        _load_file(backbone, path, address)


def _load_file(backbone: keras.Model, path: Path, address: str) -> None:
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
            f"{address} does not fit the {backbone.count_params():,}-weight backbone: {reason}"
        ) from error
