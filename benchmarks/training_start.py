"""Times a training from process start to the end of its first step, see `benchmarks.train_step`."""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

from brain_tumor.config import TrainConfig, to_json


def measure_start(config: TrainConfig, rounds: int) -> Iterator[tuple[str, str]]:
    """Times new processes alternately, ours and bare ones."""
    found: dict[str, list[dict[str, float]]] = {"ours": [], "bare": []}
    for _ in range(rounds):
        for kind, runs in found.items():
            arguments = [
                sys.executable,
                "-m",
                "benchmarks.first_step",
                str(time.time()),
                to_json(config),
                kind,
            ]
            done = subprocess.run(arguments, check=True, text=True, stdout=subprocess.PIPE)
            runs.append(json.loads(done.stdout.splitlines()[-1]))
    for name in found["ours"][0]:
        seconds = statistics.median(run[name] for run in found["ours"])
        yield f"start: {name}", f"{seconds:.1f} s"
    yield "start: all", f"{statistics.median(sum(run.values()) for run in found['ours']):.1f} s"
    pairs = zip(found["ours"], found["bare"], strict=True)
    firsts = [[run["compile"] + run["first step"] for run in pair] for pair in pairs]
    yield "bare tf.function: compile and first step", f"{statistics.median(b for _, b in firsts):.1f} s"
    yield "ours / bare", f"{statistics.median(a / b for a, b in firsts):.2f}"
