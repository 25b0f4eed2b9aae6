"""Regenerates the golden files after an intended change: `python -m tests.pipelines.renew_golden`."""

import os
from pathlib import Path
from unittest import mock

from brain_tumor.configure import configure
from pipelines.compile import compile_pipeline
from pipelines.targets.target import TARGETS, load_target

FOLDER = Path(__file__).parent / "golden"
# The environment variables that targets of external clusters need.
GIVEN = {
    "kubeflow": {"REGISTRY": "registry.example/team"},
    "vertex": {
        "REGISTRY": "registry.example/team",
        "BUCKET": "gs://bucket.example",
        "GOOGLE_CLOUD_PROJECT": "project-example",
    },
}
NAMES = sorted(file.stem for file in TARGETS.glob("*.yaml"))


def golden(target: str) -> Path:
    """A target's golden file."""
    return FOLDER / f"{target}.yaml"


def compile_golden(target: str, path: Path) -> None:
    """Compiles for a target, with a tag that does not depend on the library's content."""
    with mock.patch.dict(os.environ, GIVEN.get(target, {})):
        compile_pipeline(load_target(target), "golden", configure([]), path)


if __name__ == "__main__":
    for name in NAMES:
        compile_golden(name, golden(name))
        print(golden(name))
