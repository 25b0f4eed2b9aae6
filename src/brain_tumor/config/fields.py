"""Kinds of values that several schemas share."""

import os
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PlainValidator

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")
Head = Literal["labels", "boxes"]
HEADS: tuple[Head, ...] = ("labels", "boxes")
# What the model that is the result, and the constant answer beside it, are called in tables.
FINAL, CONSTANT = "final", "constant"
TUNED: Literal["tuned"] = "tuned"
DEFAULT_THRESHOLD = 0.5

Count = Annotated[int, Field(ge=1)]
CountOrZero = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Half = Annotated[float, Field(ge=0, le=0.5)]
NotNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
# NumPy and Keras take no larger one.
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]

BUCKET_SCHEMES = ("gs://", "s3://")


def is_bucket(address: str) -> bool:
    """Whether something is an address in a bucket rather than a path of this machine."""
    return address.startswith(BUCKET_SCHEMES)


def absolute(address: str) -> str:
    """A path as an absolute one; an address in a bucket and an empty text stay as they are."""
    return address if not address or is_bucket(address) else os.path.realpath(os.path.expanduser(address))


def _local(address: str) -> str:
    if is_bucket(address):
        raise ValueError(f"is {address!r}; give a folder of this machine (dataset=bucket reads buckets)")
    return absolute(address)


def _in_bucket(address: str) -> str:
    if address and not is_bucket(address):
        raise ValueError(f"is {address!r}; give an address that begins with {' or '.join(BUCKET_SCHEMES)}")
    return address


def _threshold(value: object) -> object:
    if value == TUNED:
        return value
    try:
        # A number in place of a word comes as a text from the command line.
        number = float(value) if isinstance(value, str | float | int) and value is not True else -1.0
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise ValueError(f"is {value!r}; give a number from 0 to 1, or tuned")
    return number


Threshold = Annotated[Share | Literal["tuned"], PlainValidator(_threshold)]
"""A probability, or `tuned`: by label the one that is best on valid."""

# A relative path means the folder that a run is started from, and no step runs there.
Location = Annotated[str, AfterValidator(absolute)]
"""A path of this machine, or an address in a bucket."""
Folder = Annotated[str, AfterValidator(_local)]
"""A folder of this machine."""
BucketAddress = Annotated[str, AfterValidator(_in_bucket)]
"""An address in a bucket."""
