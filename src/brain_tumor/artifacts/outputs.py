"""Checks before a step runs that its outputs are writable and overwrite nothing else."""

import itertools
import os
import tempfile
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from brain_tumor.artifacts.folder import Manifest, check_replaceable
from brain_tumor.runtime.drafts import SUFFIX, draft_name
from brain_tumor.runtime.errors import InputError, os_errors_explained
from brain_tumor.runtime.text import display_name, is_text
from brain_tumor.stores.files import check_kind


def check_outputs(
    inputs: Iterable[str | Path],
    artifacts: Mapping[str | Path, type[Manifest]],
    files: Collection[str | Path] = (),
    folders: Collection[str | Path] = (),
) -> None:
    """Rejects outputs that would overwrite something else, or that cannot be written.

    Nothing at the outputs' paths is changed.

    Args:
        inputs: The local files and folders that the step reads.
        artifacts: The artifacts' folders, see `check_replaceable`.
        files: The files that it writes; existing ones are replaced.
        folders: Folders that files are added to.

    Raises:
        InputError: An output cannot be written, or would overwrite something else.
    """
    read = [Path(path) for path in inputs]
    for path in (*read, *artifacts, *files, *folders):
        if not is_text(str(path)):
            # Arrow, HDF5 and TensorFlow cannot open such a file.
            raise InputError(f"{display_name(str(path))} has a name that is not UTF-8 text; rename it.")
    written = [Path(path) for path in (*artifacts, *files, *folders)]
    for output, other in (*itertools.product(written, read), *itertools.combinations(written, 2)):
        if _overlap(output, other):
            what = "the input" if other in read else "the output"
            raise InputError(f"The output {output} overlaps {what} {other}; give another path.")
    for path, schema in artifacts.items():
        if Path.cwd().is_relative_to(os.path.realpath(path)):
            raise InputError(f"{path} is the working folder or one above it; give a new folder to write to.")
        check_replaceable(Path(path), schema)
    for path in files:
        check_kind(path, "file")
    for path in folders:
        check_kind(path, "folder")
    for path in written:
        _check_writable(path)


def _overlap(first: Path, second: Path) -> bool:
    """Whether two paths, links resolved, are the same or one is inside the other."""
    a, b = (Path(os.path.realpath(path)) for path in (first, second))
    return a == b or a in b.parents or b in a.parents


def _check_writable(output: Path) -> None:
    place = Path(os.path.realpath(output))
    with os_errors_explained(output):
        parent = next(folder for folder in place.parents if folder.exists())
        draft = place.with_name(draft_name(f".{place.name}")) / "file"
        # Raises for a name that is too long, which shows only in an existing folder.
        for path in (draft, *(parent / name for name in draft.relative_to(parent).parts)):
            with suppress(FileNotFoundError):
                os.lstat(path)
        try:
            with tempfile.TemporaryFile(suffix=SUFFIX, dir=parent) as file:
                file.write(bytes(4096))  # a full disk still takes an empty file
        except FileNotFoundError:  # as below /proc
            raise InputError(
                f"{output} cannot be created: {parent} accepts no new files; give another path."
            ) from None
