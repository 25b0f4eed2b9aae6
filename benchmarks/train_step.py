"""Times a training's step, its feature cache and its start: `python -m benchmarks.train_step [PART]`.

- `step`: images a second of `fit` with the trainer's callbacks, beside a bare hand-written compiled step of
  the same model, losses and batch, by turns in one process; the ratio is the median of the turns'. Runs on
  either backend (`KERAS_BACKEND=jax`, where no TensorFlow is needed). On a GPU it also says what share of
  the rate of a plain matrix product the step reaches.
- `cache`: an epoch of the quick profile's phase 2, its backbone's features cached, and without the cache.
- `startup`: seconds from a process's start to the end of its first step, by part, beside a bare tf.function.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from brain_tumor.compose import compose, step_configs
from brain_tumor.config import RecordsConfig, TrainConfig, from_json, to_json
from brain_tumor.step import step

LABELS = 3
PHASE = "phase3_finetune"
MATRIX = 8192
Batch = tuple[np.ndarray, dict[str, np.ndarray]]


def main() -> None:
    """Prints the table, row by row as it is known."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("part", nargs="?", default="all", choices=("step", "cache", "startup", "all"))
    parser.add_argument("--backbone", default="resnet101")
    parser.add_argument("--size", type=int, default=64, help="side of the images in pixels")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--fraction", type=float, default=1.0, help="share of the backbone that learns")
    parser.add_argument("--steps", type=int, default=10, help="steps a turn")
    parser.add_argument("--rounds", type=int, default=5, help="turns")
    arguments = parser.parse_args()
    with step():
        config = phase_config(arguments)
        show("machine", f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
        show(
            "model",
            f"{arguments.backbone}, {arguments.size} px, batch {arguments.batch}, {arguments.precision}",
        )
        if arguments.part in ("step", "all"):
            measure_step(config, arguments.precision, arguments.steps, arguments.rounds)
        if arguments.part in ("cache", "all"):
            measure_cache()
        if arguments.part in ("startup", "all"):
            measure_startup(config, arguments.rounds)


def show(name: str, value: str) -> None:
    """Prints a row."""
    print(f"{name:44} {value}", flush=True)


def phase_config(arguments: argparse.Namespace) -> TrainConfig:
    """Both heads and a share of the backbone, without a start model."""
    overrides = [
        f"model={arguments.backbone}",
        f"model.image_size={arguments.size}",
        f"training.batch_size={arguments.batch}",
        f"phases.{PHASE}.start=null",
        f"phases.{PHASE}.trainable_layers=null",
        f"phases.{PHASE}.trainable_fraction={arguments.fraction}",
    ]
    return from_json(TrainConfig, step_configs(compose(overrides))[PHASE])


def build(config: TrainConfig) -> Any:
    """The model that learns, as the trainer builds it."""
    import keras

    from brain_tumor.model.detector import build_detector, count_trainable_layers, freeze
    from brain_tumor.training.learner import select_learner

    keras.utils.set_random_seed(config.seed)
    model = build_detector(config.model, LABELS, config.phase.heads)
    total = len(model.get_layer("backbone").layers)
    freeze(
        model, config.phase.train_heads, count_trainable_layers(total, None, config.phase.trainable_fraction)
    )
    return select_learner(model, config.phase)


def random_batch(config: TrainConfig) -> Batch:
    """A batch of noise with boxes in half of the slots."""
    rng = np.random.default_rng(0)
    size, count = config.model.image_size, config.batch_size
    images = rng.uniform(0, 255, (count, size, size, 3)).astype(np.float32)
    labels = rng.integers(0, 2, (count, LABELS)).astype(np.float32)
    corners = np.sort(rng.random((count, LABELS, 2, 2)), axis=2).reshape(count, LABELS, 4)
    return images, {"labels": labels, "boxes": corners.astype(np.float32) * labels[..., None]}


# The training step.


def measure_step(config: TrainConfig, precision: str, steps: int, rounds: int) -> None:
    """Our steps and bare ones by turns."""
    import keras

    from brain_tumor.training.learner import computing

    on_tensorflow = keras.backend.backend() == "tensorflow"
    on_gpu = has_gpu(on_tensorflow)
    # As the trainer: XLA on a GPU; on a CPU TensorFlow without it, while JAX knows nothing else.
    jit = on_gpu or not on_tensorflow
    if on_tensorflow:
        from brain_tumor.training.startup import start_quickly

        start_quickly()
    learner, batch = build(config), random_batch(config)
    with computing(learner, precision, 1):
        compile_as_trainer(learner, config, steps, jit)
        ours = our_steps(learner, config, batch, steps)
        bare = (
            bare_tensorflow(learner, config, batch, jit)
            if on_tensorflow
            else bare_jax(learner, config, batch)
        )

        def bare_steps() -> float:
            started = time.perf_counter()
            for _ in range(steps):
                loss = bare()
            float(loss)  # waits for the device
            return time.perf_counter() - started

        ours(), bare_steps()  # compile
        turns = [(ours(), bare_steps()) for _ in range(rounds)]
    images = config.batch_size * steps
    mine, others = (
        statistics.median(images / seconds for seconds in column) for column in zip(*turns, strict=True)
    )
    show("backend", keras.backend.backend())
    show("our step", f"{mine:.1f} images/s, {1000 * config.batch_size / mine:.0f} ms")
    show("bare step", f"{others:.1f} images/s, {1000 * config.batch_size / others:.0f} ms")
    show("ours / bare", f"{statistics.median(b / a for a, b in turns):.3f}")
    if on_gpu:
        rate = matrix_rate(on_tensorflow, precision)
        # The backward pass has two products for each of the forward one.
        used = 3 * forward_flops(learner) * mine
        show("matrix product", f"{rate / 1e12:.0f} TFLOP/s")
        show("our step's convolutions", f"{used / 1e12:.0f} TFLOP/s, {used / rate:.1%} of it")


def has_gpu(on_tensorflow: bool) -> bool:
    """Whether the backend computes on a GPU."""
    if on_tensorflow:
        import tensorflow as tf

        return bool(tf.config.list_physical_devices("GPU"))
    import jax

    return bool(jax.default_backend() == "gpu")


def compile_as_trainer(learner: Any, config: TrainConfig, steps: int, jit: bool) -> None:
    """Compiles a learner as the trainer does on one device."""
    import keras

    from brain_tumor.training.learner import compile_learner

    compile_learner(learner, config.phase, [1.0] * LABELS, steps, jit)
    if keras.backend.backend() == "tensorflow" and not jit:
        from brain_tumor.training.startup import flatten_graphs

        flatten_graphs(learner)


def our_steps(learner: Any, config: TrainConfig, batch: Batch, steps: int) -> Callable[[], float]:
    """A function that trains some steps as the trainer does, and gives their seconds."""
    import keras

    from brain_tumor.training.callbacks import FiniteLoss, Preemption

    class Timer(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.started = time.perf_counter()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.seconds = time.perf_counter() - self.started

    def batches() -> Any:
        if keras.backend.backend() != "tensorflow":
            return (batch for _ in range(steps))
        import tensorflow as tf

        return tf.data.Dataset.from_tensors(batch).cache().repeat().prefetch(tf.data.AUTOTUNE)

    def run() -> float:
        timer = Timer()
        callbacks = [Preemption(), FiniteLoss(config.name), timer]
        learner.fit(batches(), steps_per_epoch=steps, epochs=1, shuffle=False, verbose=0, callbacks=callbacks)
        return timer.seconds

    return run


def losses(config: TrainConfig) -> dict[str, Any]:
    """The losses of the heads."""
    from brain_tumor.losses import BOX_LOSSES, WeightedBinaryCrossentropy

    return {
        "labels": WeightedBinaryCrossentropy([1.0] * LABELS),
        "boxes": BOX_LOSSES[config.phase.box_loss](),
    }


def bare_tensorflow(learner: Any, config: TrainConfig, batch: Batch, jit: bool) -> Callable[[], Any]:
    """The least that a training step is in TensorFlow: forward, loss, backward, update."""
    import tensorflow as tf

    from brain_tumor.training.learner import build_optimizer

    optimizer, functions, weights = (
        build_optimizer(config.phase, 1),
        losses(config),
        config.phase.loss_weights,
    )
    optimizer.build(learner.trainable_variables)

    @tf.function(jit_compile=jit, autograph=False)
    def train(images: Any, truth: Any) -> Any:
        with tf.GradientTape() as tape:
            answers = learner(images, training=True)
            loss = sum(weights[head] * functions[head](truth[head], answers[head]) for head in answers)
        gradients = tape.gradient(loss, learner.trainable_variables)
        optimizer.apply(gradients, learner.trainable_variables)
        return loss

    images, truth = tf.nest.map_structure(tf.constant, batch)
    return lambda: train(images, truth)


def bare_jax(learner: Any, config: TrainConfig, batch: Batch) -> Callable[[], Any]:
    """The same in JAX."""
    import jax

    from brain_tumor.training.learner import build_optimizer

    optimizer, functions, weights = (
        build_optimizer(config.phase, 1),
        losses(config),
        config.phase.loss_weights,
    )
    optimizer.build(learner.trainable_variables)

    def loss_of(trainable: Any, rest: Any, images: Any, truth: Any) -> Any:
        answers, rest = learner.stateless_call(trainable, rest, images, training=True)
        loss = sum(weights[head] * functions[head](truth[head], answers[head]) for head in answers)
        return loss, rest

    # The old state's memory is given to the new one, as Keras does: without, a GPU needs it twice. On a CPU
    # XLA's program is a tenth slower for it.
    @partial(jax.jit, donate_argnums=0)
    def train(state: Any, images: Any, truth: Any) -> Any:
        trainable, rest, moments = state
        gradient = jax.value_and_grad(loss_of, has_aux=True)
        (loss, rest), gradients = gradient(trainable, rest, images, truth)
        trainable, moments = optimizer.stateless_apply(moments, gradients, trainable)
        return (trainable, rest, moments), loss

    groups = (learner.trainable_variables, learner.non_trainable_variables, optimizer.variables)
    # Copies: the model's own arrays are given away by `fit`.
    state = [[jax.numpy.array(variable.value, copy=True) for variable in group] for group in groups]
    images, truth = jax.device_put(batch)

    def run() -> Any:
        nonlocal state
        state, loss = train(state, images, truth)
        return loss

    return run


def forward_flops(model: Any) -> float:
    """Multiplications and additions of an image's convolutions, forward."""
    import keras

    from brain_tumor.training.learner import leaf_layers

    total = 0.0
    for layer in leaf_layers(model):
        if isinstance(layer, keras.layers.Conv2D):
            _, rows, columns, _ = layer.output.shape
            total += 2.0 * rows * columns * float(np.prod(layer.kernel.shape))
    return total


def matrix_rate(on_tensorflow: bool, precision: str) -> float:
    """Floating-point operations a second of a large matrix product, ten in a row."""
    from keras import ops

    product: Any = ops.matmul
    if on_tensorflow:
        import tensorflow as tf

        product = tf.function(ops.matmul, jit_compile=True)
    a = ops.ones((MATRIX, MATRIX), precision)
    ops.convert_to_numpy(product(a, a)[0, 0])
    started = time.perf_counter()
    b = a
    for _ in range(10):
        b = product(a, b)
    ops.convert_to_numpy(b[0, 0])
    return 10 * 2.0 * MATRIX**3 / (time.perf_counter() - started)


# The feature cache.


def measure_cache() -> None:
    """Epochs of phase 2 as `quick` has it, and with the images going through the backbone each time."""
    from brain_tumor.data.dataset import ingest
    from brain_tumor.data.records import build_tfrecords
    from brain_tumor.data.sources import parse_dataset_config
    from brain_tumor.model.artifact import load_model, read_description
    from brain_tumor.model.detector import split_at_backbone
    from brain_tumor.storage import read_manifest
    from brain_tumor.training.learner import select_learner
    from brain_tumor.training.trainer import train

    name = "phase2_classification"
    keys = {"start": "null", "early_stopping_patience": 9}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        sections = step_configs(compose([]))
        ingest(parse_dataset_config(sections["dataset"]), folder / "dataset", folder / "report.html")
        build_tfrecords(from_json(RecordsConfig, sections["records"]), folder / "dataset", folder / "records")
        seconds, first = {}, {}
        for augment, epochs in (("false", 6), ("true", 3)):
            changes = {**keys, "augment": augment, "epochs": epochs}
            overrides = [f"phases.{name}.{key}={value}" for key, value in changes.items()]
            config = from_json(TrainConfig, step_configs(compose(overrides))[name])
            train(config, folder / "records", folder / "model")
            history = read_description(folder / "model")["phases"][0]["epochs"]
            # The first epoch makes the graphs and the features.
            seconds[augment] = statistics.median(epoch["seconds"] for epoch in history[1:])
            first[augment] = history[0]["seconds"]
        maps = split_at_backbone(select_learner(load_model(folder / "model"), config.phase))[0].output_shape
        size = 4 * sum(math.prod(shape[1:]) for shape in (maps if isinstance(maps, list) else [maps]))
        splits = read_manifest(folder / "records", "records")["splits"]
        count = splits["train"]["images"] + splits["valid"]["images"]
    show("cached features", f"{count * size / 1e6:.0f} MB, {count} images, {size / 1e3:.0f} kB each")
    for augment, where in (("false", "features cached"), ("true", "through the backbone")):
        show(f"epoch of phase 2, {where}", f"{seconds[augment]:.3f} s, the first {first[augment]:.1f} s")
    show("through the backbone / cached", f"{seconds['true'] / seconds['false']:.1f}")


# The start.

STARTUP = """
import json, os, sys, time
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
from brain_tumor.step import step
with step():
    config = from_json(TrainConfig, config)
    from brain_tumor.training import input_pipeline, startup, trainer
    from benchmarks import train_step
    import tensorflow as tf
    mark("import")
    startup.start_quickly()
    learner = train_step.build(config)
    mark("build")
    batch = train_step.random_batch(config)
    batches = tf.data.Dataset.from_tensors(batch).cache().repeat()
    mark("data")
    if sys.argv[3] == "ours":
        train_step.compile_as_trainer(learner, config, 1, False)
        mark("compile")
        learner.fit(batches, steps_per_epoch=1, epochs=1, verbose=0, shuffle=False)
    else:
        train = train_step.bare_tensorflow(learner, config, batch, False)
        mark("compile")
        float(train())
    mark("first step")
print(json.dumps(marks))
"""


def measure_startup(config: TrainConfig, rounds: int) -> None:
    """New processes by turns, ours and bare ones."""
    found: dict[str, list[dict[str, float]]] = {"ours": [], "bare": []}
    for _ in range(rounds):
        for kind, runs in found.items():
            arguments = [sys.executable, "-c", STARTUP, str(time.time()), to_json(config), kind]
            done = subprocess.run(arguments, check=True, text=True, stdout=subprocess.PIPE)
            runs.append(json.loads(done.stdout.splitlines()[-1]))
    for name in found["ours"][0]:
        seconds = statistics.median(run[name] for run in found["ours"])
        show(f"start: {name}", f"{seconds:.1f} s")
    show("start: all", f"{statistics.median(sum(run.values()) for run in found['ours']):.1f} s")
    pairs = zip(found["ours"], found["bare"], strict=True)
    firsts = [[run["compile"] + run["first step"] for run in pair] for pair in pairs]
    show("bare tf.function: compile and first step", f"{statistics.median(b for _, b in firsts):.1f} s")
    show("ours / bare", f"{statistics.median(a / b for a, b in firsts):.2f}")


if __name__ == "__main__":
    main()
