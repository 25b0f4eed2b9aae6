"""The rules that the project's design lays down for all of its code."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import brain_tumor

LIBRARY = Path(brain_tumor.__file__).parent
ROOT = Path(__file__).resolve().parents[2]
COMPONENTS = sorted(path for path in (ROOT / "components").glob("*.py") if path.name != "__init__.py")


def run(script: str, **environment: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


# Rule 1: the library knows nothing of KFP, and components have no logic.


def imports(path: Path) -> set[str]:
    """The top-level packages that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add((node.module or "").split(".")[0])
    return found


def test_the_library_never_imports_kfp() -> None:
    files = list(LIBRARY.rglob("*.py"))
    assert len(files) > 20
    everything = {name: path for path in files for name in imports(path)}
    assert "keras" in everything and "mlflow" in everything, "imports inside of functions are seen"
    for name in ("kfp", "components", "pipelines"):
        assert name not in everything, f"{everything.get(name)} imports {name}"


@pytest.mark.parametrize("path", COMPONENTS, ids=lambda path: path.stem)
def test_a_components_body_has_at_most_15_lines(path: Path) -> None:
    [function] = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]
    assert ast.get_docstring(function), "the first statement is the docstring"
    body = function.body[1:]
    lines = path.read_text().splitlines()[body[0].lineno - 1 : function.end_lineno]
    assert len([line for line in lines if line.strip()]) <= 15


def test_there_are_components() -> None:
    assert {path.stem for path in COMPONENTS} >= {
        "ingest",
        "build_tfrecords",
        "train",
        "evaluate",
        "visualize",
    }


# Rule 6: TensorFlow is imported only by what computes with it.

HELP = "import brain_tumor.cli\ntry: brain_tumor.cli.main(['--help'])\nexcept SystemExit: pass"


@pytest.mark.parametrize(
    "script",
    [
        HELP,
        "import brain_tumor.ingest.ingest, brain_tumor.reports.data_report",
        "import brain_tumor.reports.prediction_report",
        "import brain_tumor.evaluation.judge, brain_tumor.reports.evaluation_tables",
        "import brain_tumor.reports.before, brain_tumor.reports.comparison_report",
        "import brain_tumor.steps",
        "import pipelines.compile",
        "import pipelines.run",
        "from brain_tumor.configure import *; configure([])",
    ],
    ids=["help", "ingest", "visualize", "judge", "compare", "steps", "compile", "run", "configure"],
)
def test_what_needs_no_tensorflow_starts_without_it(script: str) -> None:
    loaded = run(f"{script}\nimport sys\nprint('LOADED', *sorted(sys.modules))")
    names = loaded.split("LOADED")[-1].split()
    assert "brain_tumor" in names
    assert not {"tensorflow", "keras"} & set(names)


# Rule 7: the model, its losses and its metrics run on Keras's JAX backend, with no TensorFlow in the process.

JAX = """
import sys

class NoTensorFlow:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "tensorflow":
            raise ModuleNotFoundError("there is no TensorFlow here")

sys.meta_path.insert(0, NoTensorFlow())
import keras
import numpy as np
from brain_tumor.config import ModelConfig, PhaseConfig
from brain_tumor.losses import CIoULoss
from brain_tumor.model.detector import build_detector, freeze, training_model
from brain_tumor.model.heads import pooled_box_head
from brain_tumor.training.compile import compile_model

assert keras.backend.backend() == "jax"
keras.utils.set_random_seed(0)
config = ModelConfig(
    backbone="resnet50", weights="none", image_size=32, batchnorm_momentum=0.9, head_width=16, dropout=0.0
)
model = build_detector(config, 3, ["labels", "boxes"])
freeze(model, ["labels", "boxes"], 0)
frozen = model.get_layer("backbone").get_weights()
trained = training_model(model, ["labels", "boxes"])
compile_model(trained, PhaseConfig(learning_rate=3e-3), {"a": 1.0, "b": 2.0, "c": 3.0}, steps=10)

rng = np.random.default_rng(0)
images = rng.uniform(0, 255, (8, 32, 32, 3)).astype("float32")
labels = rng.integers(0, 2, (8, 3)).astype("float32")
boxes = np.sort(rng.random((8, 3, 2, 2)), axis=2).reshape(8, 3, 4).astype("float32") * labels[..., None]
truth = {"labels": labels, "boxes": boxes, "boxes_map": boxes}
history = trained.fit(images, truth, batch_size=8, epochs=10, verbose=0, shuffle=False).history

losses = history["loss"]
assert np.isfinite(losses).all(), losses
assert losses[-1] < 0.9 * losses[0], losses
for name in ("labels_loss", "boxes_map_loss"):
    assert history[name][-1] < history[name][0], (name, history[name])
assert 0 <= history["boxes_iou"][0] < history["boxes_iou"][-1] <= 1, history["boxes_iou"]
after = model.get_layer("backbone").get_weights()
assert all(np.array_equal(weight, other) for weight, other in zip(frozen, after, strict=True))
for name in ("boxes_mse", "boxes_mae"):
    assert history[name][-1] < history[name][0], (name, history[name])

features = keras.Input((2, 2, 8))
pooled = keras.Model(features, pooled_box_head([features], 3, 16))
pooled.compile(keras.optimizers.Adam(0.01), loss=CIoULoss())
losses = pooled.fit(rng.random((8, 2, 2, 8)), boxes, batch_size=8, epochs=20, verbose=0).history["loss"]
assert losses[-1] < 0.95 * losses[0], losses
assert "brain_tumor.training.optimizer" not in sys.modules
assert "tensorflow" not in sys.modules
assert "jax" in sys.modules
print("trained", *losses)
"""


def test_both_heads_train_on_jax_without_tensorflow() -> None:
    assert run(JAX, KERAS_BACKEND="jax").startswith("trained")
