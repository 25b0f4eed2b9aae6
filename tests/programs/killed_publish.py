"""Is killed while it publishes an artifact. Arguments: its folder, and `writing`, `rename` or `deletion`."""

import os
import signal
import sys
from pathlib import Path

from brain_tumor.artifacts.folder import publish
from brain_tumor.artifacts.model import ModelManifest
from brain_tumor.stores import folders


def die(*arguments: object, **options: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def delete(path: str, **options: object) -> None:
    file = Path(path, "file.txt")
    if file.exists():
        file.unlink()
        die()


with publish(sys.argv[1]) as draft:
    draft.manifest = ModelManifest()
    (draft.path / "file.txt").write_text("new")
    if sys.argv[2] == "writing":
        (draft.path / "second.txt").write_text("half")
        die()
    elif sys.argv[2] == "rename":
        folders.os.rename = die
    else:
        folders.shutil.rmtree = delete
