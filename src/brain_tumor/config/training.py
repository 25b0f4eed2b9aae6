"""The schemas of a training: architecture, augmentation, a phase, and the settings that all phases share."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from brain_tumor.config.base import Schema
from brain_tumor.config.fields import (
    HEADS,
    Count,
    CountOrZero,
    Fraction,
    Half,
    Head,
    Location,
    NotNegative,
    Positive,
    Seed,
    absolute,
)

# The figure of each head that can select the best epoch; higher is better.
MONITORS: dict[Head, str] = {"labels": "val_labels_auc", "boxes": "val_boxes_iou"}
# The mean of both.
BOTH = "val_both"
WEIGHT_FILES = (".keras", ".h5")


def _check_weights(weights: str) -> str:
    if weights in ("imagenet", "none"):
        return weights
    if not weights.endswith(WEIGHT_FILES):
        raise ValueError(
            f"is {weights!r}; give imagenet, none or the path (or a bucket's address) of a "
            ".keras or .weights.h5 file"
        )
    return absolute(weights)


# Always in the same order, so that the same heads always give the same config.
Heads = Annotated[list[Head], AfterValidator(lambda heads: sorted(heads, key=HEADS.index))]


class ModelConfig(Schema):
    """The detector's architecture."""

    backbone: Literal["resnet50", "resnet101", "resnet152", "resnet101v2"] = "resnet101"
    """A network of keras.applications, see `brain_tumor.model.backbone`."""
    weights: Annotated[str, AfterValidator(_check_weights)] = "imagenet"
    """`imagenet`, `none` or the path (or a bucket's address) of a .keras or .weights.h5 file for the
    backbone."""
    weights_fingerprint: str = ""
    """A hash of that file, computed when a run is composed."""
    image_size: Annotated[int, Field(ge=32)] = 240
    """Side in pixels of the square that slices are letterboxed to."""
    batchnorm_momentum: Fraction = 0.99
    """Momentum of BatchNorm's moving statistics in backbone and heads; short trainings need a low one."""
    box_head: Literal["dense", "pooled"] = "dense"
    """`dense` finds boxes by a score per position of a fine feature map, `pooled` regresses them from the
    mean of the coarsest one."""
    head_width: Annotated[int, Field(ge=8)] = 64
    """Channels of the box head's hidden layers."""
    dropout: Annotated[float, Field(ge=0, le=0.9)] = 0.2
    """Dropout rate in the class head."""


class AugmentationConfig(Schema):
    """Random augmentation of training images, drawn independently per image."""

    flip: bool = True
    """Whether to mirror left and right (boxes too) with probability 0.5."""
    flip_vertical: bool = False
    """The same for up and down."""
    shift: Half = 0.1
    """Largest shift in x and in y (boxes too), as a fraction of the image's side."""
    scale: Half = 0.25
    """Largest relative change of size (boxes too)."""
    rotation: Annotated[float, Field(ge=0, le=45)] = 0.0
    """Largest rotation in degrees (boxes too: the bounding boxes of the rotated corners)."""
    brightness: Fraction = 0.1
    """Largest shift of the grey level, as a fraction of 255."""
    contrast: Fraction = 0.2
    """Largest relative change of the contrast."""
    gamma: Fraction = 0.0
    """Largest absolute logarithm of the gamma exponent."""


class LossWeights(Schema):
    """Weights of the losses of the trained heads."""

    labels: NotNegative = 0.5
    """Weight of the labels' weighted binary cross-entropy."""
    boxes: NotNegative = 4.0
    """Weight of the box loss."""
    scores: NotNegative = 2.0
    """Weight of the loss of the dense box head's scores, which are trained together with its boxes."""


class PhaseConfig(Schema):
    """One training."""

    start: str | None = None
    """The phase whose model this one starts from, or null for a new model."""
    heads: Heads = ["labels", "boxes"]
    """The model's heads; the same as the start model's, if there is one."""
    train_heads: Heads = ["labels", "boxes"]
    """The heads that are trained; the others are frozen."""
    trainable_layers: CountOrZero | None = None
    """Number of backbone layers that are trained, counted from the top (the output)."""
    trainable_fraction: Fraction | None = None
    """Fraction of backbone layers that are trained, from the top, rounded down to whole layers.

    At most one of `trainable_layers` and this is set; with neither, the whole backbone is trained.
    """
    loss_weights: LossWeights = LossWeights()
    """Weight of each head's loss."""
    box_loss: Literal["iou", "giou", "diou", "ciou"] = "ciou"
    """The box loss."""
    learning_rate: Positive = 1e-4
    """AdamW's learning rate."""
    schedule: Literal["plateau", "cosine"] = "plateau"
    """`plateau` halves the rate when the monitored figure stops improving, see `reduce_rate_patience`;
    `cosine` warms up over the first 5 % of all steps, then decays to 0."""
    weight_decay: NotNegative = 1e-4
    """AdamW's decoupled weight decay."""
    clip_norm: Positive | None = None
    """Global norm that gradients are clipped to, or null for no clipping."""
    epochs: Count = 100
    """Maximum number of epochs."""
    monitor: Literal["val_labels_auc", "val_boxes_iou", "val_both"] = "val_boxes_iou"
    """The figure monitored by early stopping, rate reduction and the selection of the best epoch; `val_both`
    is the mean of the two others. A phase that starts from a model returns that model if no epoch is
    better."""
    early_stopping_patience: Count = 10
    """Epochs without improvement before training stops."""
    reduce_rate_patience: Count = 4
    """Epochs without improvement before the rate is halved."""
    augment: bool = True
    """Whether training images are augmented. Without augmentation and with a frozen backbone, the backbone's
    features are computed once and cached."""
    log_model: bool = False
    """Whether the model is logged to MLflow."""
    publish_to: Location = ""
    """A folder or bucket address to copy the model artifact to, in a subfolder named by a hash of its
    content; empty for none."""

    @model_validator(mode="after")
    def _check(self) -> "PhaseConfig":
        for name, heads in (("heads", self.heads), ("train_heads", self.train_heads)):
            if not heads or len(set(heads)) < len(heads):
                raise ValueError(f"has {name}={heads}; give labels, boxes or both, each once")
        if missing := sorted(set(self.train_heads) - set(self.heads)):
            raise ValueError(f"has train_heads={self.train_heads}, but heads={self.heads} lack {missing[0]}")
        if not self.trained_heads:
            raise ValueError(
                f"has train_heads={self.train_heads} whose loss_weights are 0: nothing would be trained"
            )
        monitors = [MONITORS[head] for head in self.trained_heads]
        if len(monitors) == len(MONITORS):
            monitors.append(BOTH)
        if self.monitor not in monitors:
            raise ValueError(
                f"has monitor={self.monitor}, which the phase does not train; give {' or '.join(monitors)}"
            )
        if self.trainable_layers is not None and self.trainable_fraction is not None:
            raise ValueError("has both trainable_layers and trainable_fraction; set one of them to null")
        return self

    @property
    def trained_heads(self) -> list[Head]:
        """The trained heads whose loss weight is not 0."""
        return [head for head in self.train_heads if getattr(self.loss_weights, head)]

    def monitored_value(self, figures: Mapping[str, float]) -> float:
        """The value of the monitored figure, from an epoch's figures by name."""
        names = list(MONITORS.values()) if self.monitor == BOTH else [self.monitor]
        return sum(figures[name] for name in names) / len(names)


class TrainingConfig(Schema):
    """The settings that all phases share."""

    augmentation: AugmentationConfig = AugmentationConfig()
    """The augmentation, in phases that use it."""
    batch_size: Count = 64
    """Images per training step, over all GPUs together."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """The layers' compute dtype; `auto` is bfloat16 on a GPU that supports it. Weights are always float32."""
    memory_cache_gb: NotNegative = 4.0
    """The largest cache of a split's decoded images (or a frozen backbone's features) in memory, in GB; a
    larger one is a file in the temporary folder."""
    seed: Seed = 0
    """Seed of weight initialization, shuffling, augmentation and Dropout."""


class TrainConfig(TrainingConfig):
    """One train step: a phase, the architecture, and the settings that all phases share."""

    name: str
    """The phase's name."""
    phase: PhaseConfig = PhaseConfig()
    """The phase."""
    model: ModelConfig = ModelConfig()
    """The architecture."""
