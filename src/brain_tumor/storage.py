"""Artifacts on disk: folders that appear whole or not at all.

An artifact is a folder that a step hands to the next one. It is written under a temporary name, gets its
`manifest.json` last, and is renamed, so that no reader ever sees half of one.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from brain_tumor.errors import InputError

MANIFEST = "manifest.json"


@dataclass
class Draft:
    """An artifact being written.

    Attributes:
        path: The temporary folder to write files into.
        manifest: What the manifest will say besides kind, files and versions. Fill it before the draft ends.
    """

    path: Path
    manifest: dict[str, Any] = field(default_factory=dict)


@contextmanager
def publish(path: str | Path, kind: str) -> Iterator[Draft]:
    """Writes an artifact: yields a draft, and at the end adds the manifest and renames it to `path`.

    On an exception nothing is left under `path`. An artifact that already stands there is replaced.

    Args:
        path: The artifact's folder. Its parent is made if needed.
        kind: What the artifact is, checked by `read_manifest`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    # mkdtemp's folder is private to the user; another user's pod must be able to read an artifact.
    temporary.chmod(0o755)
    replaced = temporary.with_name(f"{temporary.name}-replaced")
    try:
        draft = Draft(temporary)
        yield draft
        manifest = {
            "kind": kind,
            **draft.manifest,
            "files": hash_files(temporary),
            "versions": {"brain-tumor": version("brain-tumor")},
        }
        write_json(temporary / MANIFEST, manifest)
        if path.is_dir():
            # Moved away, not deleted in place: a reader must not see half of the old artifact either.
            os.rename(path, replaced)
        os.rename(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)


def read_manifest(path: str | Path, kind: str) -> dict[str, Any]:
    """Reads an artifact's manifest.

    Raises:
        InputError: There is no whole artifact at `path`, or it is of another kind.
    """
    file = Path(path) / MANIFEST
    if not file.is_file():
        raise InputError(
            f"{path} is no {kind} artifact: it has no {MANIFEST}; run the step that makes it first."
        )
    manifest: dict[str, Any] = json.loads(file.read_text())
    if manifest.get("kind") != kind:
        raise InputError(f"{path} holds a {manifest.get('kind')} artifact where a {kind} artifact is needed.")
    return manifest


def write_json(path: str | Path, content: Any) -> None:
    """Writes readable JSON with sorted keys. NaN is refused, since it is no JSON."""
    write_file(path, json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n")


def write_file(path: str | Path, content: str) -> None:
    """Writes a text file that appears whole or not at all. Its folder is made if needed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(content, encoding="utf-8")
    os.replace(temporary, path)


def hash_files(folder: Path) -> dict[str, str]:
    """The sha256 of each file below a folder, by its path relative to the folder, sorted."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    with ThreadPoolExecutor() as pool:
        digests = pool.map(hash_file, files)
        return {
            file.relative_to(folder).as_posix(): digest for file, digest in zip(files, digests, strict=True)
        }


def hash_file(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(path: str | Path) -> str:
    """A short hash of a file's, or of all a folder's files', names and bytes; empty if nothing is there."""
    path = Path(path)
    if path.is_file():
        return hash_file(path)[:16]
    if not path.is_dir():
        return ""
    lines = (f"{name} {digest}\n" for name, digest in hash_files(path).items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]
