"""What the ingest step needs to know of a data set: a schema for each kind of source, and what they share."""

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
from brain_tumor.config.fields import BucketAddress, Count, Folder, Seed, Share
from brain_tumor.runtime.errors import InputError

AUTO = "auto"
LONGEST_LABEL = 100
# Stands for a label's name where a figure is over all of them.
ALL = "all labels"
# Figures over all labels have these names where a label's own figures have the label's.
AVERAGES = ("macro", "micro", "weighted")


def _number_as_text(label: object) -> object:
    return str(label) if type(label) in (int, float) else label


def _check_label(label: str) -> str:
    """Refuses a name that a table, a page, a file or a metric could not show as it is.

    Returns:
        The name in Unicode's composed form, in which exports are read too.
    """
    label = unicodedata.normalize("NFC", label)
    if not label.strip() or label != label.strip():
        raise ValueError(f"is {label!r}; give a name without spaces around it")
    if len(label) > LONGEST_LABEL:
        raise ValueError(f"has {len(label)} characters; give a name of at most {LONGEST_LABEL}")
    odd = [letter for letter in label if unicodedata.category(letter)[0] in "CZ" and letter != " "]
    if odd:
        raise ValueError(f"is {label!r}, which has a character that cannot be seen; give a plain name")
    name = metric_name(label)
    if label == ALL or any(name == average or name.startswith(f"{average}_") for average in AVERAGES):
        raise ValueError(f"is {label!r}, as figures over all labels are called; give it another name")
    return label


def metric_name(label: str) -> str:
    """A label as a part of a metric's name, between slashes.

    MLflow takes letters, digits, spaces and `_ - . :` in it. The whole must be a path that has no shorter
    form, so a part of dots alone is none.

    >>> metric_name("edema (T2)")
    'edema _T2_'
    """
    name = re.sub(r"[^\w .:-]", "_", label)
    return name if name.strip(".") else "_" * len(name)


def _check_labels(labels: list[str]) -> list[str]:
    if not labels:
        raise ValueError("is empty; give each label's name")
    metrics = [metric_name(label) for label in labels]
    for names, where in ((labels, ""), (metrics, " (where metrics are named)")):
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"has {twice[0]!r} twice{where}; give each label its own name")
    return labels


def _check_pattern(pattern: str) -> str:
    try:
        groups = set(re.compile(pattern).groupindex)
    except re.error as error:
        raise ValueError(f"is no regular expression ({error}): {pattern}") from error
    if not {"patient", "slice"} <= groups:
        raise ValueError(f"needs the groups (?P<patient>...) and (?P<slice>...): {pattern}")
    return pattern


Labels = Annotated[
    list[Annotated[str, BeforeValidator(_number_as_text), AfterValidator(_check_label)]],
    BeforeValidator(lambda value: [AUTO] if value == AUTO else value),
    AfterValidator(_check_labels),
]


ShareOfAll = Annotated[float, Field(gt=0, lt=1)]


class SplitFractions(Schema):
    """The share of the images that each split should get."""

    # No split can be left out: training needs two, judgement the third.
    train: ShareOfAll = 0.7
    valid: ShareOfAll = 0.2
    test: ShareOfAll = 0.1

    @model_validator(mode="after")
    def _check_sum(self) -> "SplitFractions":
        total = self.train + self.valid + self.test
        if not math.isclose(total, 1, abs_tol=1e-6):
            raise ValueError(f"adds up to {total:g}; give train, valid and test shares that add up to 1")
        return self


class DatasetConfig(Schema):
    """What every source of images has."""

    labels: Labels = ["label0", "label1", "label2"]
    """Label names in the order of the class slots; `auto`, the default of folders and buckets, for those that
    the export itself names."""
    filename_pattern: Annotated[str, AfterValidator(_check_pattern)] = (
        r"volume_(?P<patient>\d+)_slice_(?P<slice>\d+)"
    )
    """A regular expression with the groups `patient` and `slice`, searched in a file's name."""
    duplicate_boxes: Literal["largest", "union", "error"] = "largest"
    """Of two boxes of one label in one image: keep the largest, unite them, or take the image for bad."""
    max_bad_fraction: Share = 0.05
    """The share of lost images, or of lost annotations, past which ingest stops instead of setting aside."""
    split: Literal["provided", "patient"] = "provided"
    """`provided` keeps the splits as they came; `patient` makes them anew, no patient in two."""
    split_fractions: SplitFractions = SplitFractions()
    """For `split=patient`."""
    split_seed: Seed = 0
    """Seed of the choice of patients."""
    near_duplicate_distance: Annotated[int, Field(ge=0, le=64)] = 4
    """Up to how many of 64 bits the perceptual hashes of near-duplicates differ."""


class SyntheticDataset(DatasetConfig):
    """Patients drawn from a seed. See `brain_tumor.ingest.sources.synthetic`."""

    source: Literal["synthetic"]
    seed: Seed = 0
    train_patients: Count = 120
    valid_patients: Count = 30
    test_patients: Count = 60
    slices_per_patient: Count = 4


class DirectoryDataset(DatasetConfig):
    """A folder that holds an export in any of the formats of `brain_tumor.ingest.formats`."""

    source: Literal["directory"]
    labels: Labels = [AUTO]
    path: Folder
    """The folder."""
    fingerprint: str = ""
    """A hash of the folder's files, filled in when a run is composed: other files are other input."""


class RoboflowDataset(DatasetConfig):
    """A version of a Roboflow project, without its key: see `brain_tumor.ingest.sources.roboflow`."""

    source: Literal["roboflow"]
    workspace: str = "yousef-ghanem-jzj4y"
    """The workspace's name in the project's address."""
    project: str = "brain-tumor-detection-fpf1f"
    """The project's name in its address."""
    version: Count = 2
    """The version's number. A version never changes, so it needs no fingerprint."""
    format: str = "tensorflow"
    """Roboflow's name of the export format, such as `tensorflow` or `coco`."""
    mirror: BucketAddress = ""
    """A folder in a bucket that keeps the first download for the next ones; empty for none."""


class BucketDataset(DatasetConfig):
    """An export in a bucket."""

    source: Literal["bucket"]
    labels: Labels = [AUTO]
    uri: BucketAddress
    """Address of a zip archive, or of the folder that holds the export."""
    fingerprint: str = ""
    """A hash of what is there, filled in when a run is composed."""


AnyDataset = Annotated[
    SyntheticDataset | DirectoryDataset | RoboflowDataset | BucketDataset, Field(discriminator="source")
]
_DATASET: TypeAdapter[AnyDataset] = TypeAdapter(AnyDataset)


def parse_dataset(text: str) -> AnyDataset:
    """Parses the config of whichever source it names (JSON).

    Raises:
        InputError: The text is no JSON object, its source is unknown, or it is no config of that source.
    """
    try:
        return _DATASET.validate_json(text)
    except ValidationError as error:
        raise InputError(explain(error, get_args(AnyDataset)[0], "dataset")) from None
