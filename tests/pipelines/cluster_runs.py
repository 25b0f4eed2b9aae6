"""Starts runs on a cluster, in this process or in a new one."""

import re
import subprocess
import sys
from pathlib import Path

from pipelines.image import ROOT
from pipelines.run import run
from pipelines.targets.target import load_target

FINETUNE = "phases.phase3_finetune.learning_rate=1e-4"


def start(runs: Path, *overrides: str) -> dict[str, Path]:
    """Runs the pipeline on the target `kind`."""
    return run(list(overrides), runs, load_target("kind"))


def command(module: str, root: Path, *arguments: str) -> subprocess.Popen[str]:
    """Starts a module of `pipelines` for the target `kind`, with its `runs` in a folder."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.programs.in_folder", module, str(root), "--target", "kind", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def begun(stderr: str) -> list[str]:
    """The titles of the steps that a run has displayed."""
    return re.findall(r"^\[ ?\d+/\d+\] (.+)$", stderr, re.MULTILINE)
