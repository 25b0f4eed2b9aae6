"""The step as a new process with Roboflow as the source, and its output."""

import subprocess
import sys
from pathlib import Path

from tests.unit import roboflow_service as service
from tests.unit.roboflow_service import KEY, SIGNATURE, Service


def run_step(folder: Path) -> subprocess.CompletedProcess[str]:
    arguments = ["ingest", "--output", str(folder / "dataset"), "--report", str(folder / "report.html")]
    return subprocess.run(
        [sys.executable, "-c", "from brain_tumor.cli import main; main()", *arguments, "dataset=roboflow"],
        capture_output=True,
        text=True,
        cwd=folder / "work",
    )


def said(result: subprocess.CompletedProcess[str]) -> str:
    assert KEY not in result.stdout + result.stderr and SIGNATURE not in result.stdout + result.stderr
    return result.stderr


def test_the_step_downloads(server: Service, tmp_path: Path) -> None:
    server.on_question = [service.status(500), service.link]
    result = run_step(tmp_path)
    assert result.returncode == 0, result.stderr
    assert "Roboflow answered with status 500" in said(result)
    assert (tmp_path / "dataset" / "manifest.json").exists()


def test_the_step_ends_with_code_2_and_one_sentence(server: Service, tmp_path: Path) -> None:
    server.on_question = [service.status(401)]
    result = run_step(tmp_path)
    assert result.returncode == 2
    progress, sentence = said(result).splitlines()
    assert progress.startswith(
        "Downloading Roboflow's yousef-ghanem-jzj4y/brain-tumor-detection-fpf1f version 2"
    )
    assert sentence.startswith("Roboflow refuses the key")
    assert [path.name for path in tmp_path.iterdir()] == ["work"]
