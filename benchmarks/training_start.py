"""Times a training from its process's start to the end of its first step, see `benchmarks.train_step`."""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

from brain_tumor.config import TrainConfig, to_json

PROGRAM = """
import json, sys, time
born, config = float(sys.argv[1]), sys.argv[2]
marks = {}

def mark(name):
    global last
    now = time.time()
    marks[name] = marks.get(name, 0) + now - last
    last = now

last = born
mark("interpreter")
from brain_tumor.config import TrainConfig, from_json
from brain_tumor.runtime.step import step
with step():
    config = from_json(TrainConfig, config, "training")
    from brain_tumor.training import train
    from brain_tumor.model.graphs import skip_graph_optimizer_on_cpu
    from benchmarks.bare_step import bare_tensorflow, build_model, compile_on_one_device, random_batch
    import tensorflow as tf
    mark("import")
    skip_graph_optimizer_on_cpu()
    model = build_model(config)
    mark("build")
    batch = random_batch(config)
    batches = tf.data.Dataset.from_tensors(batch).cache().repeat()
    mark("data")
    if sys.argv[3] == "ours":
        compile_on_one_device(model, config, 1, False)
        mark("compile")
        model.fit(batches, steps_per_epoch=1, epochs=1, verbose=0, shuffle=False)
    else:
        take_step = bare_tensorflow(model, config, batch, False)
        mark("compile")
        float(take_step())
    mark("first step")
print(json.dumps(marks))
"""


def measure_start(config: TrainConfig, rounds: int) -> Iterator[tuple[str, str]]:
    """New processes by turns, ours and bare ones."""
    found: dict[str, list[dict[str, float]]] = {"ours": [], "bare": []}
    for _ in range(rounds):
        for kind, runs in found.items():
            arguments = [sys.executable, "-c", PROGRAM, str(time.time()), to_json(config), kind]
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
