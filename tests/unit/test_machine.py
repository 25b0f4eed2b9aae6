"""The output of `make doctor` and a failing `make setup`, with stand-ins for Python and disk."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BASICS = ("sh", "bash", "awk", "dirname", "env", "mktemp", "rm", "uname", "make")
# A stand-in for Python: it reports the version VERSION, lacks the module or library LACKS, and its pip
# prints PIP and fails; otherwise it is this Python.
PYTHON = """#!/bin/sh
case "$*" in
*version_info*2\\]*not*) case $VERSION in 3.11 | 3.12) exit 0 ;; *) exit 1 ;; esac ;;
*version_info*) echo "$VERSION"; exit ;;
*"pip --version") exit 0 ;;
*"pip "*download*) [ -z "$PIP" ] || { echo "$PIP"; exit 1; }; exit 0 ;;
esac
if [ -n "$LACKS" ]; then case "$*" in *"$LACKS"*) exit 1 ;; esac; fi
exec "$REAL" "$@"
"""
DF = """#!/bin/sh
printf 'Filesystem 1024-blocks Used Available Capacity Mounted\\n/dev/x 1 1 %s 1%% /\\n' "$FREE"
"""


@dataclass
class Machine:
    """A project folder before the setup, and the only available tools."""

    folder: Path
    tools: Path

    def run(self, *command: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        """Runs a command there: `./doctor.sh setup` if none is given."""
        known = {"VERSION": "3.11", "LACKS": "", "PIP": "", "FREE": "50000000", "REAL": sys.executable}
        known |= {"PATH": str(self.tools), "LC_ALL": "C.UTF-8", "TMPDIR": os.environ.get("TMPDIR", "/tmp")}
        return subprocess.run(
            command or ("./doctor.sh", "setup"),
            cwd=self.folder,
            env=known | variables,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def missing(self, **variables: str) -> list[str]:
        """The lines about what is missing."""
        done = self.run(**variables)
        assert done.stderr == ""
        lines = [line for line in done.stdout.splitlines() if line.startswith("MISSING")]
        assert done.returncode == (2 if lines else 0)
        return lines


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine with everything it needs."""
    folder, tools = tmp_path / "project", tmp_path / "tools"
    for path in (folder / "requirements", folder / "kind-cluster", tools):
        path.mkdir(parents=True)
    for name in ("doctor.sh", "Makefile", "pyproject.toml", "requirements/dev.txt"):
        shutil.copy(ROOT / name, folder / name)
    write(folder / "kind-cluster" / "doctor.sh", "#!/bin/sh\necho 'ok       docker'\n")
    for name in BASICS:
        (tools / name).symlink_to(shutil.which(name) or f"/bin/{name}")
    write(tools / "python3", PYTHON)
    write(tools / "df", DF)
    return Machine(folder, tools)


def write(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def test_a_machine_with_everything_lacks_nothing(machine: Machine) -> None:
    assert machine.missing() == []
    whole = machine.run("make", "doctor")
    assert whole.returncode == 0, whole.stdout
    assert "ok       python             3.11" in whole.stdout
    assert whole.stdout.splitlines()[-1] == "ok       docker", (
        "the cluster's requirements are the second part"
    )


@pytest.mark.parametrize(
    ("variables", "name", "advice"),
    [
        ({"VERSION": "3.9"}, "python", "3.9, and 3.11 or 3.12 is needed"),
        ({"VERSION": "3.13"}, "python", "make PYTHON=python3.12 setup"),
        ({"PYTHON": "nowhere/python"}, "python", "no nowhere/python, and 3.11"),
        ({"LACKS": "import venv"}, "module venv", "sudo apt-get install python3.11-venv"),
        ({"LACKS": "import sqlite3"}, "module sqlite3", "built without it"),
        ({"LACKS": "libstdc++"}, "libstdc++", "sudo apt-get install libstdc++6"),
        ({"FREE": "5000000"}, "disk, GB free", "5 in ., and 8 are needed"),
        ({"PIP": "ERROR: No matching distribution"}, "package index", "export HTTPS_PROXY=http://HOST:PORT"),
        ({"PIP": "ProxyError('Cannot connect to proxy.')"}, "package index", "look at HTTPS_PROXY"),
        ({"PIP": "[SSL: CERTIFICATE_VERIFY_FAILED]"}, "package index", "export PIP_CERT="),
        (
            {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
            "locale",
            "export LC_ALL=C.UTF-8",
        ),
    ],
)
def test_missing_requirements_are_named_with_what_to_do(
    machine: Machine, variables: dict[str, str], name: str, advice: str
) -> None:
    [line] = machine.missing(**variables)
    assert line[9:].startswith(f"{name} ")
    assert advice in line


def test_another_suitable_python_is_named(machine: Machine) -> None:
    (machine.tools / "python3.11").symlink_to(sys.executable)
    [line] = machine.missing(VERSION="3.8")
    assert line.endswith("there is one: make PYTHON=python3.11 setup")


def test_a_full_folder_for_temporary_files_is_named(machine: Machine) -> None:
    lines = machine.missing(FREE="1000000")
    assert len(lines) == 2
    assert lines[1].endswith("or set TMPDIR to a folder with more")


def test_an_environment_whose_python_is_missing_is_named(machine: Machine) -> None:
    (machine.folder / ".venv" / "bin").mkdir(parents=True)
    (machine.folder / ".venv" / "bin" / "python").symlink_to("/nowhere/python")
    [line] = machine.missing()
    assert "rm -r .venv" in line


def test_a_failing_setup_says_what_is_missing(machine: Machine) -> None:
    done = machine.run("make", "setup", VERSION="3.9")
    assert done.returncode == 2
    assert "make setup failed." in done.stderr
    assert "3.9, and 3.11 or 3.12 is needed" in done.stderr
    assert not (machine.folder / ".venv").exists()


def test_a_setup_that_fails_later_names_its_cause(machine: Machine) -> None:
    done = machine.run("make", "setup", LACKS="venv")
    assert done.returncode == 2
    assert "MISSING  module venv" in done.stderr
