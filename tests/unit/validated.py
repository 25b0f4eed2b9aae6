"""Validation of a small export, for its tests, and what they ask of the result."""

import shutil
from pathlib import Path
from typing import Any

from brain_tumor.artifacts.dataset import DatasetDraft
from brain_tumor.artifacts.folder import Draft
from brain_tumor.artifacts.tables import COORDINATES
from brain_tumor.ingest.formats.registry import read_export
from brain_tumor.ingest.validation import Validation, validate
from tests.unit.exports import directory_config

BAD = "volume_1_slice_2.jpg"
SHAPE = ["filename", "label", *COORDINATES]


def check(folder: Path, **config: Any) -> Validation:
    """Validates an export; its images go to `copied` beside it."""
    scratch, copied = folder.with_name("scratch"), folder.with_name("copied")
    for path in (scratch, copied):
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
    draft = DatasetDraft(Draft(copied))
    return validate(read_export(folder, scratch), directory_config(folder, **config), draft)


def boxes_of(result: Validation) -> list[list[Any]]:
    """File name, label and coordinates of each box."""
    names = result.images["filename"].to_numpy()[result.boxes["image"]]
    return result.boxes.assign(filename=names)[SHAPE].to_numpy().tolist()


def quarantined(result: Validation) -> list[tuple[str, str]]:
    """Split and file name of each bad image."""
    return list(result.quarantined.itertuples(index=False, name=None))
