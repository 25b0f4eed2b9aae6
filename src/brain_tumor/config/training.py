"""The schemas of a training: the detector's architecture, how images change, a phase, and what phases
share."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from brain_tumor.config.base import Schema
from brain_tumor.config.fields import (
    HEADS,
    Count,
    CountOrZero,
    Half,
    Head,
    Location,
    NotNegative,
    Positive,
    Seed,
    Share,
    absolute,
)

# The figure of each head that can choose the best epoch; higher is better.
MONITORS: dict[Head, str] = {"labels": "val_labels_auc", "boxes": "val_boxes_iou"}
WEIGHT_FILES = (".keras", ".h5")


def _check_weights(weights: str) -> str:
    if weights in ("imagenet", "none"):
        return weights
    if not weights.endswith(WEIGHT_FILES):
        raise ValueError(f"is {weights!r}; give imagenet, none or the path of a .keras or .weights.h5 file")
    return absolute(weights)


# Always in one order, so that two ways to write the same heads are the same config.
Heads = Annotated[list[Head], AfterValidator(lambda heads: sorted(heads, key=HEADS.index))]


class ModelConfig(Schema):
    """The detector's architecture."""

    backbone: Literal["resnet50", "resnet101", "resnet152", "resnet101v2"] = "resnet101"
    """A network of keras.applications, see `brain_tumor.model.backbone`."""
    weights: Annotated[str, AfterValidator(_check_weights)] = "imagenet"
    """`imagenet`, `none` or the path of a .keras or .weights.h5 file for the backbone."""
    weights_fingerprint: str = ""
    """A hash of that file, filled in when a run is composed."""
    image_size: Annotated[int, Field(ge=32)] = 240
    """Side of the square that slices are letterboxed to, in pixels."""
    batchnorm_momentum: Share = 0.99
    """Momentum of the backbone's moving statistics; short trainings need a low one."""
    box_head: Literal["spatial", "pooled"] = "spatial"
    """`spatial` reads boxes from feature maps at three strides, `pooled` from the last one's mean."""
    head_width: Annotated[int, Field(ge=8, multiple_of=8)] = 128
    """Channels of the heads' hidden layers; they are normalized in eight groups."""
    dropout: Annotated[float, Field(ge=0, le=0.9)] = 0.2
    """Dropout rate in the class head."""


class AugmentationConfig(Schema):
    """Random changes of a training batch, drawn for each image alone."""

    flip: bool = True
    """Whether to mirror left and right (boxes too) with probability 0.5."""
    shift: Half = 0.05
    """Largest shift in x and in y (boxes too), as a fraction of the image's side."""
    scale: Half = 0.1
    """Largest relative change of size (boxes too)."""
    brightness: Share = 0.1
    """Largest shift of the grey level, as a fraction of 255."""
    contrast: Share = 0.2
    """Largest relative change of the contrast."""
    noise: Share = 0.02
    """Largest standard deviation of Gaussian noise, as a fraction of 255."""
    saturation: Share = 0.0
    """Largest relative change of the saturation; color images only."""
    hue: Half = 0.0
    """Largest shift of the hue, as a fraction of the color circle; color images only."""


class LossWeights(Schema):
    """How much each head's loss counts, where the head learns."""

    labels: NotNegative = 1.0
    boxes: NotNegative = 1.0


class PhaseConfig(Schema):
    """One training."""

    start: str | None = None
    """The phase whose model this one goes on from, or null for a new model."""
    heads: Heads = ["labels", "boxes"]
    """The heads that the model has; those of the start model, if there is one."""
    train_heads: Heads = ["labels", "boxes"]
    """Those of them that learn; the others stay as they are."""
    trainable_layers: CountOrZero | None = None
    """How many of the backbone's layers learn, counted from the top."""
    trainable_fraction: Share | None = None
    """The share of the backbone's layers that learn, from the top, rounded down to whole layers.

    At most one of the two is set; where neither is, the whole backbone learns.
    """
    loss_weights: LossWeights = LossWeights()
    """Weight of each head's loss."""
    box_loss: Literal["iou", "giou", "diou", "ciou"] = "diou"
    """The box head's loss."""
    l1_weight: NotNegative = 0.0
    """Weight of the coordinates' mean absolute error in the box head's loss."""
    learning_rate: Positive = 1e-4
    """AdamW's rate."""
    schedule: Literal["plateau", "cosine"] = "plateau"
    """`plateau` halves the rate when the monitored figure stays, see `reduce_rate_patience`; `cosine` raises
    it in the first twentieth of all steps and lowers it to 0 in the others."""
    weight_decay: NotNegative = 1e-4
    """AdamW's decoupled weight decay."""
    clip_norm: Positive | None = None
    """Largest norm of all gradients together, or null."""
    epochs: Count = 100
    """Epochs at most."""
    monitor: Literal["val_labels_auc", "val_boxes_iou"] = "val_boxes_iou"
    """The figure that early stopping, rate reduction and the choice of the best epoch look at."""
    early_stopping_patience: Count = 10
    """Epochs without improvement before training stops."""
    reduce_rate_patience: Count = 4
    """Epochs without improvement before the rate is halved."""
    augment: bool = True
    """Whether training images are changed at random. Without, and with the whole backbone frozen, the
    backbone's answers are computed once and kept."""
    log_model: bool = False
    """Whether MLflow gets a copy of the model."""
    publish_to: Location = ""
    """A folder or a bucket's address that gets a copy of the model artifact, in a subfolder named by a hash
    of its content; empty for none."""

    @model_validator(mode="after")
    def _check(self) -> "PhaseConfig":
        for name, heads in (("heads", self.heads), ("train_heads", self.train_heads)):
            if not heads or len(set(heads)) < len(heads):
                raise ValueError(f"has {name}={heads}; give labels, boxes or both, each once")
        if missing := sorted(set(self.train_heads) - set(self.heads)):
            raise ValueError(f"has train_heads={self.train_heads}, but heads={self.heads} lack {missing[0]}")
        if not self.learning_heads:
            raise ValueError(
                f"has train_heads={self.train_heads} whose loss_weights are 0: nothing would learn"
            )
        monitors = [MONITORS[head] for head in self.learning_heads]
        if self.monitor not in monitors:
            raise ValueError(
                f"has monitor={self.monitor}, which it does not train; give {' or '.join(monitors)}"
            )
        if self.trainable_layers is not None and self.trainable_fraction is not None:
            raise ValueError("has both trainable_layers and trainable_fraction; set one of them to null")
        return self

    @property
    def learning_heads(self) -> list[Head]:
        """The heads that learn and whose loss counts."""
        return [head for head in self.train_heads if getattr(self.loss_weights, head)]


class TrainingConfig(Schema):
    """What all phases share."""

    augmentation: AugmentationConfig = AugmentationConfig()
    """How training images change, where the phase says that they do."""
    batch_size: Count = 64
    """Images a step, over all GPUs together."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """What the layers compute in; `auto` is bfloat16 on a GPU that has it. Weights are always float32."""
    memory_cache_gb: NotNegative = 4.0
    """Up to how many GB of a split's decoded images (or a frozen backbone's features) are kept in memory;
    more than that goes to a file in the temporary folder."""
    seed: Seed = 0
    """Seed of the new weights, the order, the augmentation and Dropout."""


class TrainConfig(TrainingConfig):
    """One train step: a phase, the architecture, and what all phases share."""

    name: str
    """The phase's name."""
    phase: PhaseConfig = PhaseConfig()
    """The phase."""
    model: ModelConfig = ModelConfig()
    """The architecture."""
