"""Publishes an artifact a hundred times. Argument: its folder."""

import sys

from brain_tumor.artifacts.folder import publish
from brain_tumor.artifacts.model import ModelManifest

for turn in range(100):
    with publish(sys.argv[1], ModelManifest) as draft:
        draft.manifest = ModelManifest()
        (draft.path / f"file-{turn % 2}.txt").write_text("x" * turn)
