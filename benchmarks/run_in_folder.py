"""One run of the pipeline, which `benchmarks.pipeline` times. Arguments: its folder, and overrides."""

import sys
from pathlib import Path

from brain_tumor.runtime.step import step
from pipelines.run import run
from pipelines.targets.target import load_target

with step():
    run(sys.argv[2:], Path(sys.argv[1]), load_target("local"))
