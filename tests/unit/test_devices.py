"""Training on several devices (here two logical CPUs)."""

import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf

from brain_tumor.config import to_json
from brain_tumor.runtime.errors import InputError
from brain_tumor.training.devices import choose_jit_compile, choose_precision, out_of_memory_explained
from tests.unit.programs import PROGRAMS
from tests.unit.trainings import make_config

pytestmark = [pytest.mark.slow, pytest.mark.heavy]

# One epoch on one device, and the same on two. Adam normalizes gradients, which turns rounding errors of the
# smallest ones into full steps; a large epsilon keeps them small.


def test_two_devices_train_as_one(tiny_overrides: list[str], tiny_records: Path, tmp_path: Path) -> None:
    # Without dropout, which is random on each device. All steps are clipped to the norm of 0.1.
    changes = {"start": "null", "learning_rate": 0.1, "clip_norm": 0.1}
    config = make_config(tiny_overrides, "phase3_finetune", "model.dropout=0.0", **changes)
    done = subprocess.run(
        [
            sys.executable,
            PROGRAMS / "train_on_two_devices.py",
            to_json(config),
            str(tiny_records),
            str(tmp_path),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    differences = {name: float(value) for name, value in map(str.split, done.stdout.splitlines())}
    assert set(differences) == {"weights", "figures"}
    # A loss divided by each device's own number of boxes would differ by about 4e-3.
    assert all(0 < value < 1e-5 for value in differences.values()), differences
    assert "on 1 device(s)" in done.stderr and "on 2 device(s)" in done.stderr


def test_auto_is_exact_without_a_gpu() -> None:
    if not tf.config.list_physical_devices("GPU"):
        assert choose_precision("auto") == "float32"
    assert choose_precision("bfloat16") == "bfloat16"


def test_xla_compiles_only_for_a_single_gpu() -> None:
    assert [choose_jit_compile(devices) for devices in ([], ["GPU:0"], ["GPU:0", "GPU:1"])] == [
        False,
        "auto",
        False,
    ]


@pytest.mark.parametrize(("batch_size", "advice"), [(64, "try 32"), (1, "try a smaller model.image_size")])
def test_out_of_memory_names_the_batch_size(tiny_overrides: list[str], batch_size: int, advice: str) -> None:
    tuned = make_config(tiny_overrides, "phase3_finetune", f"training.batch_size={batch_size}")
    words = f"phase3_finetune: out of memory with training.batch_size={batch_size} at 32 px; {advice}"
    with pytest.raises(InputError, match=words), out_of_memory_explained(tuned):
        tf.zeros([1 << 50])
