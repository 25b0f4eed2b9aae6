"""The configuration's schema: one dataclass a step, and what they share.

The values are in `conf/` (YAML), composed by Hydra. A step gets its own dataclass as canonical JSON, so that
a value that a step does not read cannot invalidate what the step has made.
"""

import json
import math
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, TypeVar

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from brain_tumor.errors import InputError

T = TypeVar("T")

SPLITS = ("train", "valid", "test")
LIMITS = "limits"
# NumPy takes no larger one.
MAX_SEED = 2**32 - 1


def number(
    low: float | None = None, high: float | None = None, *, above: float | None = None, default: Any = MISSING
) -> Any:
    """A field for a finite number from `low` to `high` or greater than `above`; see `from_json`."""
    if above is not None:
        told = f"a number above {above}"
    else:
        told = f"at least {low}" if high is None else f"a number from {low} to {high}"
    return field(default=default, metadata={LIMITS: (low, high, above, told)})


@dataclass
class DatasetConfig:
    """What every source of images has (the ingest step).

    Attributes:
        source: Which source it comes from: `synthetic`, `directory`, `roboflow` or `bucket`.
        labels: Label names in the order of the class slots.
        filename_pattern: A regular expression with the groups `patient` and `slice`, searched in a file's
            name.
        duplicate_boxes: What to do with two boxes of one label in one image: keep the `largest`, take their
            `union`, or count it as an `error` of the image.
        max_bad_fraction: The share of bad images (0..1) past which ingest stops instead of quarantining them.
        split: `provided` keeps the splits as they came; `patient` makes them anew, no patient in two.
        split_fractions: The share of the images that each split should get, by split (for `patient`).
        split_seed: Seed of that choice.
        near_duplicate_distance: Up to how many of 64 bits the perceptual hashes of two slices may differ for
            them to count as near-duplicates.
    """

    source: str = MISSING
    labels: list[str] = MISSING
    filename_pattern: str = MISSING
    duplicate_boxes: str = MISSING
    max_bad_fraction: float = number(0, 1)
    split: str = MISSING
    split_fractions: dict[str, float] = MISSING
    split_seed: int = number(0)
    near_duplicate_distance: int = number(0, 64)


@dataclass
class SyntheticDataset(DatasetConfig):
    """Patients drawn from a seed. See `brain_tumor.data.sources.synthetic`."""

    seed: int = number(0)
    train_patients: int = number(1)
    valid_patients: int = number(1)
    test_patients: int = number(1)
    slices_per_patient: int = number(1)


@dataclass
class DirectoryDataset(DatasetConfig):
    """A folder that holds an export in any of the formats of `brain_tumor.data.formats`.

    Attributes:
        path: The folder.
        fingerprint: A hash of the folder's files. It is filled in when a run is composed, so that other files
            behind the same path are other input.
    """

    path: str = MISSING
    fingerprint: str = ""


@dataclass
class RoboflowDataset(DatasetConfig):
    """A version of a Roboflow project. Its key is no part of it: see `brain_tumor.data.sources.roboflow`.

    Attributes:
        workspace: The workspace's name in the project's address.
        project: The project's name in its address.
        version: The version's number. A version never changes, so it needs no fingerprint.
        format: Roboflow's name of the export format, such as `tensorflow` or `coco`.
        mirror: A gs:// folder that keeps the first download for the next ones; empty for none.
    """

    workspace: str = MISSING
    project: str = MISSING
    version: int = number(1)
    format: str = MISSING
    mirror: str = ""


@dataclass
class BucketDataset(DatasetConfig):
    """An export in a bucket.

    Attributes:
        uri: gs:// address of a zip archive, or of the folder that holds the export.
        fingerprint: A hash of what is there, filled in when a run is composed.
    """

    uri: str = MISSING
    fingerprint: str = ""


@dataclass
class RecordsConfig:
    """The build_tfrecords step.

    Attributes:
        images_per_shard: How many images a TFRecord file holds at most.
        max_class_weight: Upper limit of a label's weight in the weighted loss.
    """

    images_per_shard: int = number(1)
    max_class_weight: float = number(1)


@dataclass
class ModelConfig:
    """The detector's architecture (the train steps).

    Attributes:
        backbone: A name in `brain_tumor.model.backbone.BACKBONES`.
        weights: `imagenet`, `none` or the path of a .keras or .weights.h5 file for the backbone.
        weights_fingerprint: A hash of that file, filled in when a run is composed.
        image_size: Side of the square that slices are letterboxed to, in pixels.
        batchnorm_momentum: Momentum of the backbone's moving statistics; short trainings need a low one.
        box_head: `spatial` reads boxes from feature maps at three strides, `pooled` from the last one's mean.
        head_width: Channels of the heads' hidden layers.
        dropout: Dropout rate in the class head.
    """

    backbone: str = MISSING
    weights: str = MISSING
    weights_fingerprint: str = ""
    image_size: int = number(32)
    batchnorm_momentum: float = number(0, 1)
    box_head: str = MISSING
    head_width: int = number(8)
    dropout: float = number(0, 0.9)


@dataclass
class AugmentationConfig:
    """Random changes of a training batch, drawn for each image alone.

    Attributes:
        flip: Whether to mirror left and right (boxes too) with probability 0.5.
        shift: Largest shift in x and in y (boxes too), as a fraction of the image's side.
        scale: Largest relative change of size (boxes too).
        brightness: Largest shift of the grey level, as a fraction of 255.
        contrast: Largest relative change of the contrast.
        noise: Largest standard deviation of Gaussian noise, as a fraction of 255.
        saturation: Largest relative change of the saturation; colour images only.
        hue: Largest shift of the hue, as a fraction of the colour circle; colour images only.
    """

    flip: bool = MISSING
    shift: float = number(0, 0.5)
    scale: float = number(0, 0.5)
    brightness: float = number(0, 1)
    contrast: float = number(0, 1)
    noise: float = number(0, 1)
    saturation: float = number(0, 1)
    hue: float = number(0, 0.5)


@dataclass
class PhaseConfig:
    """One training.

    Attributes:
        start: The name of the phase whose model this one goes on from, or null for a new model.
        heads: The heads that the model has: `labels`, `boxes` or both.
        train_heads: Those of them that learn; the others stay as they are.
        trainable_layers: How many of the backbone's layers learn, counted from the top; or null.
        trainable_fraction: The share of the backbone's layers that learn, from the top, rounded down to whole
            layers; or null. Exactly one of the two is set.
        loss_weights: Weight of each head's loss.
        box_loss: The box head's loss: `iou`, `giou`, `diou` or `ciou`.
        l1_weight: Weight of the coordinates' mean absolute error in the box head's loss.
        learning_rate: AdamW's rate.
        schedule: `plateau` halves the rate when the monitored figure stays, see `reduce_rate_patience`;
            `cosine` raises it in the first twentieth of all steps and lowers it to 0 in the others.
        weight_decay: AdamW's decoupled weight decay.
        clip_norm: Largest norm of all gradients together, or null.
        epochs: Epochs at most.
        monitor: The metric that early stopping, rate reduction and the choice of the best epoch look at;
            higher is better.
        early_stopping_patience: Epochs without improvement before training stops.
        reduce_rate_patience: Epochs without improvement before the rate is halved.
        augment: Whether training images are changed at random. Without, and with the whole backbone frozen,
            the backbone's answers are computed once and kept in memory.
        log_model: Whether MLflow gets a copy of the model.
        publish_to: A gs:// address or a folder that gets a copy of the model artifact, in a subfolder named
            by a hash of its content; empty for none.
    """

    start: str | None = None
    heads: list[str] = MISSING
    train_heads: list[str] = MISSING
    trainable_layers: int | None = number(0, default=None)
    trainable_fraction: float | None = number(0, 1, default=None)
    loss_weights: dict[str, float] = MISSING
    box_loss: str = "diou"
    l1_weight: float = number(0, default=0.0)
    learning_rate: float = number(above=0)
    schedule: str = "plateau"
    weight_decay: float = number(0)
    clip_norm: float | None = number(above=0, default=None)
    epochs: int = number(1)
    monitor: str = MISSING
    early_stopping_patience: int = number(1)
    reduce_rate_patience: int = number(1)
    augment: bool = MISSING
    log_model: bool = False
    publish_to: str = ""


@dataclass
class TrainConfig:
    """One train step: a phase and what all phases share.

    Attributes:
        name: The phase's name.
        phase: The phase.
        model: The architecture.
        augmentation: How training images change, where the phase says that they do.
        batch_size: Images a step, over all GPUs together.
        precision: What the layers compute in: `float32`, `bfloat16`, or `auto`, which is bfloat16 on a GPU
            that has it. Weights are float32 in any case.
        memory_cache_gb: Up to how many GB a split's decoded images (or a frozen backbone's features) are kept
            in memory; more than that goes to a file in the temporary folder.
        seed: Seed of the new weights, the order, the augmentation and Dropout.
    """

    name: str = MISSING
    phase: PhaseConfig = field(default_factory=PhaseConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    batch_size: int = number(1)
    precision: str = MISSING
    memory_cache_gb: float = number(0)
    seed: int = number(0, MAX_SEED)


@dataclass
class EvaluateConfig:
    """The evaluate step.

    Attributes:
        split: The split to judge on.
        threshold: Probability from which a label counts as predicted.
        bootstrap_samples: Resamples of the patients behind an interval.
        seed: Seed of the resampling.
        batch_size: Images a forward pass.
    """

    split: str = MISSING
    threshold: float = number(0, 1)
    bootstrap_samples: int = number(1)
    seed: int = number(0)
    batch_size: int = number(1)


@dataclass
class VisualizeConfig:
    """The visualize step.

    Attributes:
        gallery_images: Slices in the gallery of true and predicted boxes.
        seed: Seed of their choice.
    """

    gallery_images: int = number(0)
    seed: int = number(0)


def to_json(config: Any) -> str:
    """A step's config as canonical JSON: sorted keys, no spaces, so that equal configs are equal texts."""
    container = OmegaConf.to_container(
        config if isinstance(config, DictConfig) else OmegaConf.structured(config),
        resolve=True,
        throw_on_missing=True,
    )
    return json.dumps(container, sort_keys=True, separators=(",", ":"))


def from_json(cls: type[T], text: str, name: str = "") -> T:
    """Parses a step's config.

    Args:
        cls: The step's dataclass.
        text: JSON.
        name: What an error calls the config; otherwise its class's name.

    Raises:
        InputError: The text is no JSON object, has a key that `cls` lacks, a value of another type, or a
            number that is out of range.
    """
    name = name or cls.__name__
    try:
        merged = OmegaConf.merge(OmegaConf.structured(cls), json.loads(text))
        config = OmegaConf.to_object(merged)
    except (json.JSONDecodeError, OmegaConfBaseException, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        key = getattr(error, "full_key", None)  # OmegaConf's errors know it; their first line does not say it
        where = f" at {key}" if key else ""
        raise InputError(f"The config of {name} is not usable{where}: {reason}") from error
    assert isinstance(config, cls)
    _check_numbers(config, name)
    return config


def _check_numbers(config: Any, name: str) -> None:
    for known in fields(config):
        value = getattr(config, known.name)
        if is_dataclass(value):
            _check_numbers(value, f"{name}.{known.name}")
        elif LIMITS in known.metadata and value is not None:
            low, high, above, told = known.metadata[LIMITS]
            inside = (low is None or value >= low) and (high is None or value <= high)
            if not (math.isfinite(value) and inside and (above is None or value > above)):
                raise InputError(f"{name}.{known.name} is {value}; give {told}.")
