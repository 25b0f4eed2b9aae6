"""Times a whole pipeline run and an unchanged second one: `python -m benchmarks.pipeline [OVERRIDE ...]`.

The run uses an empty folder, so nothing is cached. Prints the seconds of both runs, of each step of the first
and of the time between the steps, and its disk usage. A step's seconds are those between its begin and end
events; everything else is orchestration: compiling, kfp.local, starting and ending one process per step.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pipelines.image import ROOT


def timed_run(runs: Path, overrides: list[str]) -> tuple[float, str]:
    """Runs the pipeline in its own process; returns its seconds (with interpreter start) and its result."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.run_in_folder", str(runs), *overrides],
        cwd=ROOT,
        check=True,
        text=True,
        stdout=subprocess.PIPE,
    )
    return time.perf_counter() - started, done.stdout


def main() -> None:
    """Prints the table."""
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder)
        first, output = timed_run(runs, sys.argv[1:])
        second, _ = timed_run(runs, sys.argv[1:])
        # Checkpoints and artifacts share files by hard links: count each file once.
        files = {path.stat().st_ino: path.stat().st_size for path in runs.rglob("*") if path.is_file()}
        [record] = (runs / "history").glob("*.json")
        steps: dict[str, float] = json.loads(record.read_text())["executed"]
    between = first - sum(steps.values())
    print(output[output.index("model  ") :])
    for title, seconds in steps.items():
        print(f"{title:40} {seconds:7.1f} s")
    print(
        f"{'orchestration':40} {between:7.1f} s, {between / first:.1%}, {between / len(steps):.2f} s per step"
    )
    print(f"{'first run':40} {first:7.1f} s")
    print(f"{'unchanged second run':40} {second:7.1f} s")
    print(f"{'disk':40} {sum(files.values()) / 1e9:7.2f} GB")
    print(f"{'machine':40} {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
