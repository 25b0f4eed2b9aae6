"""What a step asks of its outputs before it works: that nothing is lost by them, that they can be written."""

import itertools
import os
import tempfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from brain_tumor.artifacts.folder import Manifest, check_replaceable
from brain_tumor.runtime.errors import InputError
from brain_tumor.runtime.text import display_name, is_text
from brain_tumor.stores.paths import explain_errors


def check_outputs(
    inputs: Iterable[str | Path],
    artifacts: Mapping[str | Path, type[Manifest]],
    files: Collection[str | Path] = (),
    folders: Collection[str | Path] = (),
) -> None:
    """Refuses outputs that would take the place of something else, or that cannot be written.

    The folders that they are to be in are made.

    Args:
        inputs: The files and folders of this machine that the step reads.
        artifacts: The artifacts' folders, see `check_replaceable`.
        files: The files that it writes; one that is there is replaced.
        folders: Folders that files are added to.

    Raises:
        InputError: One of them cannot be, and why.
    """
    read = [Path(path) for path in inputs]
    for path in (*read, *artifacts, *files, *folders):
        if not is_text(str(path)):
            # Arrow, HDF5 and TensorFlow open no such file.
            raise InputError(f"{display_name(str(path))} has a name that is no UTF-8 text; rename it.")
    written = [Path(path) for path in (*artifacts, *files, *folders)]
    for output, other in (*itertools.product(written, read), *itertools.combinations(written, 2)):
        if _overlap(output, other):
            what = "the input" if other in read else "the output"
            raise InputError(f"The output {output} overlaps {what} {other}; name a place apart from it.")
    for path, schema in artifacts.items():
        check_replaceable(Path(path), schema)
    for path in files:
        if os.path.isdir(path):
            raise InputError(f"{path} is a folder; name a file.")
    for path in written:
        _check_writable(path)


def _overlap(first: Path, second: Path) -> bool:
    """Whether two paths, links followed, are the same or one lies in the other."""
    a, b = (Path(os.path.realpath(path)) for path in (first, second))
    return a == b or a in b.parents or b in a.parents


def _check_writable(output: Path) -> None:
    place = Path(os.path.realpath(output))
    with explain_errors(output):
        place.parent.mkdir(parents=True, exist_ok=True)
        # No draft has a longer name, and a full disk takes an empty file.
        with tempfile.NamedTemporaryFile(
            prefix=f".{place.name}-", suffix="-replaced", dir=place.parent
        ) as file:
            file.write(b"\0")
            file.flush()
