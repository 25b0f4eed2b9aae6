"""A copy of the scripts in a separate folder, with stand-ins for the tools that need a cluster."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.unit.buckets import free_ports

ROOT = Path(__file__).resolve().parents[2]
STAND_INS = Path(__file__).parent / "stand_ins"
# Other tools that the scripts use. PATH has nothing else, so that tools can be missing.
BASICS = ("bash", "cat", "dirname", "env", "git", "grep", "head", "mkdir", "ps", "rm", "sed", "seq", "sort")


@dataclass
class Scripts:
    """The scripts of kind-cluster/, and their calls to a simulated cluster."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def tools(self) -> Path:
        return self.folder / "tools"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def made(self) -> Path:
        return self.folder / "build" / "kind-cluster"

    def start(self, name: str, **variables: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [self.folder / "kind-cluster" / f"{name}.sh"],
            env={**self.environment, **variables},
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, name: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        process = self.start(name, **variables)
        out, error = process.communicate(timeout=60)
        return subprocess.CompletedProcess(name, process.returncode, out, error)

    def calls(self, start: str = "") -> list[str]:
        """The calls of kind, kubectl and docker that start with this, oldest first."""
        path = self.state / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in lines if line.startswith(start)]

    def forget_calls(self) -> None:
        (self.state / "calls").unlink(missing_ok=True)


@pytest.fixture
def scripts(tmp_path: Path) -> Scripts:
    """The scripts, on a machine with everything they need and no cluster."""
    found = Scripts(tmp_path)
    shutil.copytree(ROOT / "kind-cluster", tmp_path / "kind-cluster")
    # The dashboard's own ports may be taken on this machine.
    ports = iter(free_ports(4))
    settings = tmp_path / "kind-cluster" / "settings.sh"
    line = re.compile(r"^(FORWARDED=')?\d+", re.MULTILINE)
    settings.write_text(line.sub(lambda match: f"{match[1] or ''}{next(ports)}", settings.read_text()))
    found.tools.mkdir()
    found.state.mkdir()
    for name in BASICS:
        (found.tools / name).symlink_to(shutil.which(name) or f"/bin/{name}")
    for name in ("kind", "kubectl", "docker", "sysctl", "python"):
        (found.tools / name).symlink_to(STAND_INS / name)
    (found.tools / "record.sh").symlink_to(STAND_INS / "record.sh")
    (found.tools / "sleep").symlink_to(shutil.which("true") or "/bin/true")  # the scripts' pauses
    found.environment = {
        "PATH": str(found.tools),
        "STAND_INS": str(found.state),
        "PYTHON": str(found.tools / "python"),
        "REAL_PYTHON": sys.executable,
        "HOME": str(tmp_path),
        **{name: os.environ[name] for name in ("TMPDIR", "PYTHONPATH") if name in os.environ},
    }
    return found
