"""The notebooks: as stored in git, and executed on small data with a changed first cell.

One kernel executes them all, since importing TensorFlow takes as long as a notebook. Its names are cleared in
between, and ruff finds names that a notebook uses without defining them.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient

from brain_tumor.config import SyntheticDataset
from brain_tumor.configure import configure
from brain_tumor.ingest.sources.synthetic import write_export
from pipelines.image import ROOT
from tests.conftest import TINY

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
JOINT = [
    "phases=joint",
    "~phases.baseline_box",
    "~phases.baseline_classification",
    "phases.joint.epochs=1",
    "phases.joint.trainable_layers=20",
]
QUICK = ["model.backbone=resnet50", "model.image_size=32", "model.head_width=16", "training.batch_size=8"]
# For each notebook, the first cell's settings besides the data, and the minimum number of pictures.
CASES = {
    "01_exploratory_data_analysis": ("SETTINGS = []", 7),
    "02_classifier_building": (f"SETTINGS = {[*QUICK, 'phases.baseline_classification.epochs=2']}", 6),
    "03_regression_building": (f"SETTINGS = {[*QUICK, 'phases.baseline_box.epochs=2']}", 8),
    "04_model_building_training": (f"SETTINGS = {[each for each in TINY if 'dataset.' not in each]}", 1),
    "05_model_evaluation": (f"SETTINGS = {QUICK + JOINT}; MODEL = None", 7),
    "06_pipeline_and_run_comparison": (
        f"SETTINGS = {QUICK + JOINT}; CHANGE = ['phases.joint.learning_rate=1e-2']; RUNS = FOLDER",
        2,
    ),
}
# These train five times, or run the pipeline twice.
LONG = ("04_model_building_training", "06_pipeline_and_run_comparison")
TIMEOUT = 1800  # seconds per cell


def test_every_notebook_is_executed() -> None:
    assert [path.stem for path in NOTEBOOKS] == list(CASES)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_git_has_a_valid_notebook_without_outputs(path: Path) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    nbformat.validate(content)
    assert (content["nbformat"], content["nbformat_minor"]) == (4, 5)
    assert content["metadata"]["kernelspec"]["name"] == "python3"
    ids = [cell["id"] for cell in content["cells"]]
    assert len(set(ids)) == len(ids)
    code = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    about = "".join(content["cells"][0]["source"])
    assert all(f"- **{what}**: " in about for what in ("Time", "Needs", "Your own data"))


def test_the_cells_are_linted() -> None:
    ruff = [sys.executable, "-m", "ruff", "check", "--quiet", "--isolated", "--select", "E7,F", "notebooks"]
    found = subprocess.run(ruff, cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's own export."""
    folder = tmp_path_factory.mktemp("notebooks") / "my export"
    config = configure(TINY).dataset
    assert isinstance(config, SyntheticDataset)
    write_export(folder, config)
    return folder


@pytest.fixture(scope="module")
def kernel() -> Iterator[KernelManager]:
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(cwd=str(ROOT / "notebooks"), env={**os.environ, "PYTHONPATH": str(ROOT / "src")})
    yield manager
    manager.shutdown_kernel()


@pytest.mark.heavy
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.campaign if name in LONG else ()) for name in CASES]
)
def test_a_notebook_runs_on_ones_own_export(
    name: str, kernel: KernelManager, export: Path, tmp_path: Path
) -> None:
    settings, pictures = CASES[name]
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    data = ["dataset=directory", f"dataset.path={export}"]
    first.source = f"%reset -f\nDATA = {data}; FOLDER = {str(tmp_path)!r}; {settings}"
    client = NotebookClient(notebook, km=kernel, timeout=TIMEOUT, startup_timeout=TIMEOUT)
    client.execute()
    client.kc.stop_channels()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    shown = [output.data for output in outputs if output.output_type in ("display_data", "execute_result")]
    drawn = [data for data in shown if "image/png" in data or "<iframe" in data.get("text/html", "")]
    assert len(drawn) >= pictures
    assert not any("Not in this data" in data.get("text/html", "") for data in shown)
    printed = "".join(output.text for output in outputs if output.output_type == "stream")
    assert "Traceback" not in printed
    assert any(tmp_path.iterdir())
