"""The labels that an export itself names, for `dataset.labels=auto`."""

import re
import shlex
import tempfile
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from brain_tumor.config import AnyDataset, DirectoryDataset
from brain_tumor.config.base import explain
from brain_tumor.config.compose import quote
from brain_tumor.config.dataset import Labels
from brain_tumor.ingest.formats.registry import FORMATS, DeclaresLabels, find_format, read_export
from brain_tumor.runtime.errors import InputError

# So many different names are no labels: another column was exported for them, say.
LISTED_LABELS = 50
# Hydra reads these words as values of other kinds than texts.
HYDRA_WORDS = ("null", "true", "false", "nan", "inf")
_LABELS: TypeAdapter[list[str]] = TypeAdapter(Labels)


def read_labels(config: AnyDataset) -> list[str]:
    """The names of the labels, in the order in which the export's format numbers them.

    Args:
        config: A `DirectoryDataset`. Its own labels do not matter.

    Raises:
        InputError: The export lies elsewhere, cannot be read, or says nothing of an order: then the message
            has the names that are in its annotations. Or a name is none that `DatasetConfig.labels` takes.
    """
    if not isinstance(config, DirectoryDataset):
        raise InputError(
            "dataset.labels=auto reads the labels' names from a folder of this machine, and the source is "
            f"{config.source}; give the names, as in dataset.labels=[label0,label1]."
        )
    folder = Path(config.path)
    labels = _declared_labels(folder)
    if not labels:
        raise InputError(_suggestion(folder))
    try:
        DirectoryDataset.model_validate({**config.model_dump(), "labels": labels})
    except ValidationError as error:
        problem = explain(error, DirectoryDataset, "dataset")
        raise InputError(f"{folder} names labels that are of no use here: {problem}") from None
    return labels


def _declared_labels(folder: Path) -> list[str]:
    """What the export's format says, by number; empty if it says nothing."""
    export_format = FORMATS[find_format(folder)]
    if not isinstance(export_format, DeclaresLabels):
        return []
    names: dict[int, str] = {}
    for number, name in export_format.read_labels(folder):
        known = names.setdefault(number, name)
        if known != name:
            raise InputError(
                f"{folder} gives two labels the number {number}, {known!r} and {name!r}; give their names in "
                "the order that you want instead of dataset.labels=auto."
            )
    return list(dict.fromkeys(names[number] for number in sorted(names)))


def _suggestion(folder: Path) -> str:
    """A sentence with the names that the export's boxes have."""
    with tempfile.TemporaryDirectory() as scratch:
        export = read_export(folder, Path(scratch))
    found: set[str] = set()
    for split in export.splits:
        found.update(split.boxes["label"][split.boxes["filename"].isin(split.images)])
    names = sorted(filter(_is_usable, found))
    start = f"{folder} is a {export.format} export, which says nothing of the labels' order; "
    if not names:
        return f"{start}give the names, as in dataset.labels=[label0,label1]."
    if len(names) > LISTED_LABELS:
        return f"{start}its boxes have {len(names)} different labels, too many to be right: check the export."
    return f"{start}give the names of its boxes, {_as_override(names)} in this order or another."


def _is_usable(name: str) -> bool:
    """Whether a label may be called so."""
    try:
        _LABELS.validate_python([name])
    except ValidationError:
        return False
    return True


def _as_override(names: list[str]) -> str:
    """The names as an override to copy, quoted for Hydra and the shell where they need it."""
    quoted = [_quote_for_hydra(name) for name in names]
    override = f"dataset.labels=[{','.join(quoted)}]"
    return override if quoted == names else shlex.quote(override)


def _quote_for_hydra(name: str) -> str:
    if re.fullmatch(r"[A-Za-z_][\w-]*", name, re.ASCII) and name.lower() not in HYDRA_WORDS:
        return name
    return quote(name)
