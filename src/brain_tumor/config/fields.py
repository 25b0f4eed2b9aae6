"""Field types that several schemas share."""

import os
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PlainValidator

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")
Head = Literal["labels", "boxes"]
HEADS: tuple[Head, ...] = ("labels", "boxes")
# The final model's and the constant baseline's names in tables.
FINAL, CONSTANT = "final", "constant"
TUNED: Literal["tuned"] = "tuned"
DEFAULT_THRESHOLD = 0.5

Count = Annotated[int, Field(ge=1)]
CountOrZero = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Half = Annotated[float, Field(ge=0, le=0.5)]
NotNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
# The largest seed that NumPy and Keras accept.
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]

BUCKET_SCHEMES = ("gs://", "s3://")


def is_bucket(address: str) -> bool:
    """Whether an address is in a bucket rather than a local path."""
    return address.startswith(BUCKET_SCHEMES)


def absolute(address: str) -> str:
    """Makes a local path absolute; an address in a bucket and an empty string stay unchanged."""
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
        # A number from the command line arrives as a string.
        number = float(value) if isinstance(value, str | float | int) and value is not True else -1.0
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise ValueError(f"is {value!r}; give a number from 0 to 1, or tuned")
    return number


Threshold = Annotated[Fraction | Literal["tuned"], PlainValidator(_threshold)]
"""A probability, or `tuned`: per label the threshold that is best on the valid split."""

# Made absolute, since steps run in another folder than the one that the run is started from.
Location = Annotated[str, AfterValidator(absolute)]
"""A local path, or an address in a bucket."""
Folder = Annotated[str, AfterValidator(_local)]
"""A local folder."""
BucketAddress = Annotated[str, AfterValidator(_in_bucket)]
"""An address in a bucket."""
