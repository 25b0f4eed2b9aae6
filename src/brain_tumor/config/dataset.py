"""The configuration of ingest: one schema per kind of source, and their common fields."""

import math
import re
import unicodedata
from typing import Annotated, Literal, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from brain_tumor.config.base import Schema, explain
from brain_tumor.config.fields import BucketAddress, Count, Folder, Fraction, Seed
from brain_tumor.runtime.errors import InputError

AUTO = "auto"
LONGEST_LABEL = 100
# The key of figures over all labels, in place of a label's name.
ALL = "all labels"
# Prefixes of the names of figures over all labels, so no label can have them.
AVERAGES = ("macro", "micro", "weighted", "samples")


def _number_as_text(label: object) -> object:
    return str(label) if type(label) in (int, float) else label


def _check_label(label: str) -> str:
    """Rejects a name that could not be shown unchanged in a table, page, file name or metric name.

    Returns:
        The name in Unicode's composed form (NFC), like the names read from exports.
    """
    label = unicodedata.normalize("NFC", label)
    if not label.strip() or label != label.strip():
        raise ValueError(f"is {label!r}; give a name without spaces around it")
    if len(label) > LONGEST_LABEL:
        raise ValueError(f"has {len(label)} characters; give a name of at most {LONGEST_LABEL}")
    odd = [letter for letter in label if unicodedata.category(letter)[0] in "CZ" and letter != " "]
    if odd:
        raise ValueError(f"is {label!r}, which has an invisible character; give another name")
    name = metric_name(label)
    if label == ALL or any(name == average or name.startswith(f"{average}_") for average in AVERAGES):
        raise ValueError(f"is {label!r}, which is reserved for figures over all labels; give another name")
    return label


def metric_name(label: str) -> str:
    """A label as one part of a metric's name, between slashes.

    MLflow allows letters, digits, spaces and `_ - . :`. The name must also be a normalized path, so a part
    must not consist of dots alone.

    >>> metric_name("edema (T2)")
    'edema _T2_'
    """
    name = re.sub(r"[^\w .:-]", "_", label)
    return name if name.strip(".") else "_" * len(name)


def _check_labels(labels: list[str]) -> list[str]:
    if not labels:
        raise ValueError("is empty; give each label's name")
    metrics = [metric_name(label) for label in labels]
    for names, where in ((labels, ""), (metrics, " (as a metric name)")):
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"has {twice[0]!r} twice{where}; give each label its own name")
    return labels


def _check_pattern(pattern: str) -> str:
    try:
        groups = set(re.compile(pattern).groupindex)
    except re.error as error:
        raise ValueError(f"is not a regular expression ({error}): {pattern}") from error
    if not {"patient", "slice"} <= groups:
        raise ValueError(f"needs the groups (?P<patient>...) and (?P<slice>...): {pattern}")
    return pattern


Labels = Annotated[
    list[Annotated[str, BeforeValidator(_number_as_text), AfterValidator(_check_label)]],
    BeforeValidator(lambda value: [AUTO] if value == AUTO else value),
    AfterValidator(_check_labels),
]


SplitFraction = Annotated[float, Field(gt=0, lt=1)]


class SplitFractions(Schema):
    """The fraction of the images that each split should get."""

    # No split can be empty: training needs train and valid, evaluation test.
    train: SplitFraction = 0.7
    """For training."""
    valid: SplitFraction = 0.2
    """For the choice of the best epoch and the thresholds."""
    test: SplitFraction = 0.1
    """For the evaluation."""

    @model_validator(mode="after")
    def _check_sum(self) -> "SplitFractions":
        total = self.train + self.valid + self.test
        if not math.isclose(total, 1, abs_tol=1e-6):
            raise ValueError(f"adds up to {total:g}; give fractions that add up to 1")
        return self


class DatasetConfig(Schema):
    """The fields that every source has."""

    labels: Labels = ["label0", "label1", "label2"]
    """Label names in the order of the class slots; `auto`, the default for folders and buckets, takes them
    from the export."""
    filename_pattern: Annotated[str, AfterValidator(_check_pattern)] = (
        r"volume_(?P<patient>\d+)_slice_(?P<slice>\d+)"
    )
    """A regular expression with the groups `patient` and `slice`, searched for in the file name."""
    duplicate_boxes: Literal["largest", "union", "error"] = "largest"
    """For several boxes of one label in one image: keep the largest, use their union, or quarantine the
    image."""
    max_bad_fraction: Fraction = 0.05
    """The fraction of bad images or annotations above which ingest fails instead of quarantining them."""
    split: Literal["provided", "patient"] = "provided"
    """`provided` keeps the export's splits; `patient` makes new ones, with no patient in two splits."""
    split_fractions: SplitFractions = SplitFractions()
    """The fractions for `split=patient`."""
    split_seed: Seed = 0
    """Seed of the patient split."""
    near_duplicate_distance: Annotated[int, Field(ge=0, le=64)] = 4
    """The largest Hamming distance of near-duplicates' 64-bit perceptual hashes."""


class SyntheticDataset(DatasetConfig):
    """Synthetic patients, generated from a seed. See `brain_tumor.ingest.sources.synthetic`."""

    source: Literal["synthetic"]
    """The kind of source."""
    seed: Seed = 0
    """Seed of the patients."""
    train_patients: Count = 120
    """Number of patients in train."""
    valid_patients: Count = 30
    """Number of patients in valid."""
    test_patients: Count = 60
    """Number of patients in test."""
    slices_per_patient: Count = 4
    """Number of slices per patient."""


class DirectoryDataset(DatasetConfig):
    """A folder with an export in any format of `brain_tumor.ingest.formats`."""

    source: Literal["directory"]
    """The kind of source."""
    labels: Labels = [AUTO]
    path: Folder
    """The folder."""
    fingerprint: str = ""
    """A hash of the folder's files, computed when a run is composed, so that changed files are not served
    from a cache."""


class RoboflowDataset(DatasetConfig):
    """A version of a Roboflow project, without the API key. See `brain_tumor.ingest.sources.roboflow`."""

    source: Literal["roboflow"]
    """The kind of source."""
    workspace: str = "yousef-ghanem-jzj4y"
    """The workspace's name in the project's URL."""
    project: str = "brain-tumor-detection-fpf1f"
    """The project's name in its URL."""
    version: Count = 2
    """The version's number. A version never changes, so it needs no fingerprint."""
    format: str = "tensorflow"
    """Roboflow's name for the export format, such as `tensorflow` or `coco`."""
    mirror: BucketAddress = ""
    """A folder in a bucket that caches the first download for later runs; empty for none."""


class BucketDataset(DatasetConfig):
    """An export in a bucket."""

    source: Literal["bucket"]
    """The kind of source."""
    labels: Labels = [AUTO]
    uri: BucketAddress
    """Address of a zip archive, or of the export's folder."""
    fingerprint: str = ""
    """A hash of the content at the address, computed when a run is composed."""


AnyDataset = Annotated[
    SyntheticDataset | DirectoryDataset | RoboflowDataset | BucketDataset, Field(discriminator="source")
]
_DATASET: TypeAdapter[AnyDataset] = TypeAdapter(AnyDataset)


def parse_dataset(text: str) -> AnyDataset:
    """Parses the config (JSON) of any kind of source.

    Raises:
        InputError: The text is not a JSON object, its source is unknown, or it is not valid for that source.
    """
    try:
        return _DATASET.validate_json(text)
    except ValidationError as error:
        raise InputError(explain(error, get_args(AnyDataset)[0], "dataset")) from None
