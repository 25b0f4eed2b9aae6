"""Reads label names from an export, for `dataset.labels=auto`."""

import re
import tempfile
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from brain_tumor.config import AnyDataset, RoboflowDataset, SyntheticDataset
from brain_tumor.config.base import explain
from brain_tumor.config.dataset import Labels
from brain_tumor.ingest.formats.registry import FORMATS, DeclaresLabels, find_format, read_export
from brain_tumor.ingest.sources.fetch import errors_name_source, fetch
from brain_tumor.runtime.errors import InputError

# More distinct names than this are probably not labels, but another column.
MOST_LABELS = 50
_LABELS: TypeAdapter[list[str]] = TypeAdapter(Labels)


def read_labels(config: AnyDataset) -> list[str]:
    """Reads the label names, in the order of their numbers in the export, or in natural order.

    An export in a bucket is downloaded for this.

    Args:
        config: A data set's config; its `labels` is ignored.

    Raises:
        InputError: The export is at Roboflow or cannot be read, its boxes have no usable names or too many,
            or a declared name is not valid for `DatasetConfig.labels`.
    """
    if isinstance(config, SyntheticDataset):
        return list(SyntheticDataset.model_fields["labels"].default)
    if isinstance(config, RoboflowDataset):
        raise InputError(
            "dataset.labels=auto would query Roboflow each time a run is composed; give the names, as in "
            "dataset.labels=[label0,label1]."
        )
    with tempfile.TemporaryDirectory() as download:
        with errors_name_source(config, Path(download)):
            folder = fetch(config, Path(download))
        with errors_name_source(config, folder):
            labels = _declared_labels(folder) or _used_labels(folder)
            try:
                return type(config).model_validate({**config.model_dump(), "labels": labels}).labels
            except ValidationError as error:
                problem = explain(error, type(config), "dataset")
                raise InputError(f"{folder} declares labels that cannot be used: {problem}") from None


def _declared_labels(folder: Path) -> list[str]:
    """The labels that the export declares, by number; empty if it declares none."""
    export_format = FORMATS[find_format(folder)]
    if not isinstance(export_format, DeclaresLabels):
        return []
    names: dict[int, str] = {}
    for number, name in export_format.read_labels(folder):
        known = names.setdefault(number, name)
        if known != name:
            raise InputError(
                f"{folder} gives two labels the number {number}, {known!r} and {name!r}; give their names in "
                "the desired order instead of dataset.labels=auto."
            )
    return list(dict.fromkeys(names[number] for number in sorted(names)))


def _used_labels(folder: Path) -> list[str]:
    """The labels of the export's boxes, in natural order (label2 before label10)."""
    with tempfile.TemporaryDirectory() as scratch:
        export = read_export(folder, Path(scratch))
    found: set[str] = set()
    for split in export.splits:
        found.update(split.boxes["label"][split.boxes["filename"].isin(split.images)])
    names = sorted(filter(_is_usable, found), key=_natural_order)
    if not names or len(names) > MOST_LABELS:
        why = (
            f"its boxes have {len(names)} different labels"
            if names
            else "none of its boxes has a usable label"
        )
        raise InputError(f"{folder}: {why}; give the names, as in dataset.labels=[label0,label1].")
    return names


def _natural_order(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d{1,9})", name)]


def _is_usable(name: str) -> bool:
    """Whether a name is a valid label."""
    try:
        _LABELS.validate_python([name])
    except ValidationError:
        return False
    return True
