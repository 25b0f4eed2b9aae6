"""Times training steps, the feature cache and start-up: `python -m benchmarks.train_step [PART]`.

- `step`: images per second of `fit` with a training's callbacks, compared with a bare hand-written compiled
  step of the same model, losses and batch, alternately in one process; the ratio is the median over the
  rounds. Runs on either backend (`KERAS_BACKEND=jax` needs no TensorFlow). On a GPU it also prints the step's
  share of the throughput of a plain matrix product.
- `cache`: an epoch of the quick profile's phase 2, with and without the feature cache.
- `startup`: seconds from process start to the end of the first step, by part, compared with a bare
  tf.function.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.bare_step import (
    Batch,
    bare_jax,
    bare_tensorflow,
    build_model,
    compile_on_one_device,
    random_batch,
)
from benchmarks.feature_cache import measure_cache
from benchmarks.training_start import measure_start
from brain_tumor.config import TrainConfig
from brain_tumor.config.compose import compose
from brain_tumor.runtime.step import import_tensorflow, step

PHASE = "phase3_finetune"
MATRIX = 8192

Row = tuple[str, str]


def main() -> None:
    """Prints the table, each row as soon as it is measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("part", nargs="?", default="all", choices=("step", "cache", "startup", "all"))
    parser.add_argument("--backbone", default="resnet101")
    parser.add_argument("--size", type=int, default=64, help="side of the images in pixels")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--fraction", type=float, default=1.0, help="trainable fraction of the backbone")
    parser.add_argument("--steps", type=int, default=10, help="steps a turn")
    parser.add_argument("--rounds", type=int, default=5, help="turns")
    with step():
        for name, figure in measure(parser.parse_args()):
            print(f"{name:44} {figure}", flush=True)


def measure(arguments: argparse.Namespace) -> Iterator[Row]:
    """Measures the selected parts; yields names and figures."""
    config = make_config(arguments)
    yield "machine", f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    model = f"{arguments.backbone}, {arguments.size} px"
    yield "model", f"{model}, batch {arguments.batch}, {arguments.precision}"
    if arguments.part in ("step", "all"):
        yield from measure_step(config, arguments.precision, arguments.steps, arguments.rounds)
    if arguments.part in ("cache", "all"):
        yield from measure_cache()
    if arguments.part in ("startup", "all"):
        yield from measure_start(config, arguments.rounds)


def make_config(arguments: argparse.Namespace) -> TrainConfig:
    """A config for both heads and a fraction of the backbone, without a start model."""
    overrides = [
        f"model={arguments.backbone}",
        f"model.image_size={arguments.size}",
        f"training.batch_size={arguments.batch}",
        f"phases.{PHASE}.start=null",
        f"phases.{PHASE}.trainable_layers=null",
        f"phases.{PHASE}.trainable_fraction={arguments.fraction}",
    ]
    return compose(overrides).steps().trainings[PHASE]


def measure_step(config: TrainConfig, precision: Any, steps: int, rounds: int) -> Iterator[Row]:
    """Times our steps and bare ones alternately."""
    if os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow":
        import_tensorflow()
    import keras

    from brain_tumor.training.precision import compute_policy

    on_tensorflow = keras.backend.backend() == "tensorflow"
    on_gpu = has_gpu(on_tensorflow)
    # As in `train`: XLA on a GPU, none for TensorFlow on a CPU; JAX always uses XLA.
    jit = on_gpu or not on_tensorflow
    if on_tensorflow:
        from brain_tumor.model.graphs import skip_graph_optimizer_on_cpu

        skip_graph_optimizer_on_cpu()
    model, batch = build_model(config), random_batch(config)
    with compute_policy(model, precision, 1):
        compile_on_one_device(model, config, steps, jit)
        ours = our_steps(model, config, batch, steps)
        bare = bare_tensorflow(model, config, batch, jit) if on_tensorflow else bare_jax(model, config, batch)

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
    yield "backend", keras.backend.backend()
    yield "our step", f"{mine:.1f} images/s, {1000 * config.batch_size / mine:.0f} ms"
    yield "bare step", f"{others:.1f} images/s, {1000 * config.batch_size / others:.0f} ms"
    yield "ours / bare", f"{statistics.median(b / a for a, b in turns):.3f}"
    if on_gpu:
        rate = matrix_rate(on_tensorflow, precision)
        # The backward pass has two matrix products for each one of the forward pass.
        used = 3 * forward_flops(model) * mine
        yield "matrix product", f"{rate / 1e12:.0f} TFLOP/s"
        yield "our step's convolutions", f"{used / 1e12:.0f} TFLOP/s, {used / rate:.1%} of it"


def has_gpu(on_tensorflow: bool) -> bool:
    """Whether the backend computes on a GPU."""
    if on_tensorflow:
        import tensorflow as tf

        return bool(tf.config.list_physical_devices("GPU"))
    import jax

    return bool(jax.default_backend() == "gpu")


def our_steps(model: Any, config: TrainConfig, batch: Batch, steps: int) -> Callable[[], float]:
    """Makes a function that trains some steps as `train` does, and returns their seconds."""
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
        model.fit(batches(), steps_per_epoch=steps, epochs=1, shuffle=False, verbose=0, callbacks=callbacks)
        return timer.seconds

    return run


def forward_flops(model: Any) -> float:
    """Multiplications and additions of the convolutions in one image's forward pass."""
    import keras

    from brain_tumor.model.detector import leaf_layers

    total = 0.0
    for layer in leaf_layers(model):
        if isinstance(layer, keras.layers.Conv2D):
            _, rows, columns, _ = layer.output.shape
            total += 2.0 * rows * columns * float(np.prod(layer.kernel.shape))
    return total


def matrix_rate(on_tensorflow: bool, precision: str) -> float:
    """Floating-point operations per second of a large matrix product, repeated ten times."""
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


if __name__ == "__main__":
    main()
