"""Duplicate images in an export."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brain_tumor.ingest.findings import Finding

KEPT = "image kept"


def find_duplicates(images: pd.DataFrame) -> list[Finding]:
    """Finds images with the same bytes as an earlier one, or with the same name in another split.

    Args:
        images: The images: split, filename, sha256.
    """
    findings = []
    same = images[_repeated(images["sha256"])]
    for _, group in same.groupby("sha256", sort=False):
        first_in: dict[str, str] = {}  # by split
        for split, name in zip(group["split"], group["filename"], strict=True):
            if split in first_in:
                kind, other = "duplicate_image", f"{split}/{first_in[split]}"
            elif first_in:
                kind, other = "image_in_two_splits", "/".join(next(iter(first_in.items())))
            else:
                first_in[split] = name
                continue
            first_in.setdefault(split, name)
            message = f"{split}/{name} has the same bytes as {other}."
            findings.append(Finding(split, name, None, kind, message, KEPT))
    same_name = images[_repeated(images["filename"])]
    for filename, group in same_name.groupby("filename", sort=False):
        first = group.iloc[0]
        for split, digest in zip(group["split"].iloc[1:], group["sha256"].iloc[1:], strict=True):
            if digest != first["sha256"]:  # otherwise it is already reported
                message = f"{split}/{filename} has the same name as another image in {first['split']}."
                findings.append(Finding(split, str(filename), None, "name_in_two_splits", message, KEPT))
    return findings


def _repeated(values: pd.Series) -> NDArray[np.bool_]:
    """Which values occur more than once, (values,)."""
    codes, known = pd.factorize(values)
    repeated: NDArray[np.bool_] = (np.bincount(codes, minlength=len(known)) > 1)[codes]
    return repeated
