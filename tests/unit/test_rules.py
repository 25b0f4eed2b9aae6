"""The design rules for all of the project's code."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import brain_tumor
from tests.unit.programs import PROGRAMS

pytestmark = pytest.mark.slow

LIBRARY = Path(brain_tumor.__file__).parent
ROOT = Path(__file__).resolve().parents[2]
COMPONENTS = sorted(path for path in (ROOT / "components").glob("*.py") if path.name != "__init__.py")


def run(script: str | Path, **environment: str) -> str:
    """Runs a line of Python, or a file."""
    program = [script] if isinstance(script, Path) else ["-c", script]
    result = subprocess.run(
        [sys.executable, *program],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


# Rule 1: the library is independent of KFP, and components have no logic.


def imports(path: Path) -> set[str]:
    """The top-level packages that a file imports anywhere."""
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
    assert "keras" in everything and "mlflow" in everything, "imports inside functions are found"
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


# Rule 6: TensorFlow is imported only by code that computes with it.

HELP = "import brain_tumor.cli\ntry: brain_tumor.cli.main(['--help'])\nexcept SystemExit: pass"


@pytest.mark.parametrize(
    "script",
    [
        HELP,
        "import brain_tumor.ingest.ingest, brain_tumor.reports.data_report",
        "import brain_tumor.reports.prediction_report",
        "import brain_tumor.evaluation.evaluate, brain_tumor.reports.evaluation_tables",
        "import brain_tumor.reports.before, brain_tumor.reports.comparison_report",
        "import brain_tumor.steps",
        "import pipelines.compile",
        "import pipelines.run",
        "from brain_tumor.configure import *; configure([])",
    ],
    ids=["help", "ingest", "visualize", "judge", "compare", "steps", "compile", "run", "configure"],
)
def test_programs_that_do_not_need_tensorflow_do_not_import_it(script: str) -> None:
    loaded = run(f"{script}\nimport sys\nprint('LOADED', *sorted(sys.modules))")
    names = loaded.split("LOADED")[-1].split()
    assert "brain_tumor" in names
    assert not {"tensorflow", "keras"} & set(names)


# Rule 7: the model, its losses and its metrics run on Keras's JAX backend, without TensorFlow in the process.


@pytest.mark.heavy
def test_both_heads_train_on_jax_without_tensorflow() -> None:
    assert run(PROGRAMS / "train_on_jax.py", KERAS_BACKEND="jax").startswith("trained")
