"""A first training step, which `benchmarks.training_start` times.

Arguments: the process's start time (seconds since the epoch), the config, and the training loop: `ours` or
`bare`. Imports are part of what is timed.
"""

import json
import sys
import time

born, content, loop = float(sys.argv[1]), sys.argv[2], sys.argv[3]
marks: dict[str, float] = {}
last = born


def mark(name: str) -> None:
    """Ends a part of the start-up, and records its seconds."""
    global last
    now = time.time()
    marks[name] = marks.get(name, 0) + now - last
    last = now


mark("interpreter")
from brain_tumor.config import TrainConfig, from_json  # noqa: E402
from brain_tumor.runtime.step import step  # noqa: E402

with step():
    config = from_json(TrainConfig, content, "training")
    import tensorflow as tf

    import brain_tumor.training.train  # noqa: F401  (a training imports all of it)
    from benchmarks.bare_step import bare_tensorflow, build_model, compile_on_one_device, random_batch
    from brain_tumor.model.graphs import skip_graph_optimizer_on_cpu

    mark("import")
    skip_graph_optimizer_on_cpu()
    model = build_model(config)
    mark("build")
    batch = random_batch(config)
    batches = tf.data.Dataset.from_tensors(batch).cache().repeat()
    mark("data")
    if loop == "ours":
        compile_on_one_device(model, config, 1, False)
        mark("compile")
        model.fit(batches, steps_per_epoch=1, epochs=1, verbose=0, shuffle=False)
    else:
        take_step = bare_tensorflow(model, config, batch, False)
        mark("compile")
        float(take_step())
    mark("first step")
print(json.dumps(marks))
