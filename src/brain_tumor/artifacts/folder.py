"""What all artifacts share: a folder with a typed manifest that is published atomically.

An artifact is written to a temporary folder, its `manifest.json` last, which is then renamed or, in a bucket,
uploaded with the manifest last, so that readers never see an incomplete artifact.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeVar

from pydantic import ConfigDict

from brain_tumor.config.base import Schema, from_json
from brain_tumor.runtime.errors import DamagedError, InputError, os_errors_explained
from brain_tumor.runtime.text import display_name
from brain_tumor.runtime.versions import installed_versions
from brain_tumor.stores.files import (
    check_kind,
    find_special_file,
    hash_file,
    hash_files,
    walk_files,
    write_json,
)
from brain_tumor.stores.folders import replace_folder
from brain_tumor.stores.paths import AnyPath

MANIFEST = "manifest.json"


class Manifest(Schema):
    """The fields of every artifact's manifest."""

    indexed: ClassVar[tuple[str, ...]] = ()
    """Folders that are not in `files`, which would otherwise grow with the data set. The sha256 of their
    files are in another file of the artifact."""

    kind: str
    """The kind of artifact, fixed by each subclass."""
    files: dict[str, str] = {}
    """The sha256 of the files, by path below the folder."""
    versions: dict[str, str] = {}
    """The versions of the library, of Python and of the packages that wrote it."""


class AnyManifest(Manifest):
    """A manifest of any kind; further fields are ignored."""

    model_config = ConfigDict(extra="ignore")


M = TypeVar("M", bound=Manifest)
S = TypeVar("S", bound=Schema)


@dataclass
class Draft:
    """An artifact being written.

    Attributes:
        path: The temporary folder to write files into.
        manifest: Must be set before the context ends; `files` and `versions` are filled in.
    """

    path: Path
    manifest: Manifest | None = None


@contextmanager
def publish(path: str | AnyPath, schema: type[Manifest] | None = None) -> Iterator[Draft]:
    """Writes an artifact: yields a draft, and at the end adds the manifest and moves it to `path`.

    On an exception nothing is written to `path`. An existing artifact there is replaced.

    Args:
        path: The artifact's folder. Its parent is made if needed.
        schema: The schema of its manifest, for a folder that a user named: see `check_replaceable`. By
            default any folder there is replaced.

    Raises:
        InputError: `path` holds something other than such an artifact, the disk is full, or a permission is
            missing.
    """
    folder = Path(path) if isinstance(path, str) else path

    def check() -> None:
        if schema and isinstance(folder, Path):
            check_replaceable(folder, schema)

    check()
    with os_errors_explained(folder), replace_folder(folder, MANIFEST) as temporary:
        draft = Draft(temporary)
        yield draft
        check()  # hours may have passed since the first check
        assert draft.manifest, "a draft ends with its manifest"
        files = hash_files(temporary, draft.manifest.indexed)
        update = {"files": files, "versions": installed_versions()}
        write_json(temporary / MANIFEST, draft.manifest.model_copy(update=update).model_dump(mode="json"))


def check_replaceable(path: Path, schema: type[Manifest]) -> None:
    """Checks that an artifact would overwrite at most an artifact of its kind.

    Args:
        path: The artifact's folder. It may be missing, be empty, or hold an artifact of the same kind, of any
            version, and no other files.
        schema: The schema of its manifest.

    Raises:
        InputError: There is something else at `path`.
    """
    while True:
        before = _identity(path)
        try:
            with os_errors_explained(path):
                _check_content(path, schema)
            return
        except (InputError, FileNotFoundError):
            # Another process may replace it in the meantime.
            if _identity(path) == before:
                raise


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _check_content(path: Path, schema: type[Manifest]) -> None:
    kind = schema.model_fields["kind"].default
    check_kind(path, "folder")
    content = sorted(os.listdir(path)) if path.is_dir() else []
    if not content:
        return
    try:
        manifest = from_json(AnyManifest, (path / MANIFEST).read_bytes(), MANIFEST)
    except (InputError, OSError):
        raise InputError(
            f"{path} is not empty and holds no {kind} artifact, so it is not replaced; give another folder."
        ) from None
    if manifest.kind != kind:
        raise InputError(
            f"{path} holds a {manifest.kind} artifact, so it is not replaced by a {kind} artifact; give "
            "another folder."
        )
    own = {name.split("/")[0] for name in manifest.files} | {MANIFEST, *schema.indexed}
    for name in content:
        if name not in own and (not (path / name).is_dir() or any(walk_files(path / name))):
            raise InputError(
                f"{path} holds {display_name(name)}, which is not one of the artifact's files, so it is not "
                "replaced; move it away or give another folder."
            )


def read_manifest(path: str | Path, schema: type[M], origin: str = "") -> M:
    """Reads an artifact's manifest.

    Args:
        path: The artifact's folder.
        schema: The schema of its manifest.
        origin: The folder's name in messages, if `path` is a copy.

    Raises:
        DamagedError: There is no complete artifact at `path`, or it is of another kind.
    """
    kind = schema.model_fields["kind"].default
    file = Path(path) / MANIFEST
    with os_errors_explained(origin or path):
        content = file.read_bytes() if file.is_file() else None
        special = find_special_file(path) if content else ""
    if content is None:
        raise DamagedError(
            f"{origin or path} holds no {kind} artifact: no {MANIFEST}; run the step that makes it first."
        )
    if special:
        raise DamagedError(f"{special} is a pipe or a device, not a file; run the step that makes it again.")
    name = f"{origin or path}/{MANIFEST}"
    found = _parse(AnyManifest, content, name).kind
    if found != kind:
        raise DamagedError(f"{origin or path} holds a {found} artifact where a {kind} artifact is needed.")
    return _parse(schema, content, name)


def read_json(schema: type[S], file: Path) -> S:
    """Reads one of an artifact's JSON files.

    Raises:
        DamagedError: It is missing, truncated, or not valid for the schema.
    """
    with os_errors_explained():
        content = file.read_bytes() if file.is_file() else b""
    return _parse(schema, content, str(file))


def _parse(schema: type[S], content: bytes, file: str) -> S:
    try:
        return from_json(schema, content, Path(file).name)
    except InputError as error:
        raise DamagedError(
            f"{file} is damaged, or another version wrote it; run the step that makes it again."
        ) from error


def check_files(path: str | Path, manifest: Manifest, origin: str = "") -> None:
    """Compares an artifact's files with its manifest.

    Args:
        path: The artifact's folder.
        manifest: Its manifest.
        origin: The folder's name in messages, if `path` is a copy.

    Raises:
        DamagedError: A file is missing or has changed.
    """
    for name, digest in manifest.files.items():
        file = Path(path) / name
        if not file.is_file() or hash_file(file) != digest:
            raise DamagedError(f"{origin or path}/{name} is missing or not what {MANIFEST} says.")


def artifact_id(path: str | Path) -> str:
    """A hash of an artifact's content: of its manifest, which has the hashes of its files."""
    return hash_file(Path(path) / MANIFEST)
