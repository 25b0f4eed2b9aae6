"""The surroundings of a case: a user's folder tree, and the processes that run steps in it."""

import json
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from tests.unit.roboflow_service import KEY

SERVER = Path(__file__).with_name("server.py")
ROOT = Path(__file__).parents[2]
PROGRAM = "from brain_tumor.cli import main; main()"  # the same as the command `brain-tumor`


@dataclass(frozen=True)
class Ended:
    """How a step ended.

    Attributes:
        code: Its exit code, or minus the signal that ended it.
        said: Its output on stdout and stderr.
        hangs: Whether it was killed after a minute.
    """

    code: int
    said: str
    hangs: bool = False


class Server:
    """The processes from which steps are forked: one without TensorFlow, and one with it if needed.

    Args:
        source: The folder of the `brain_tumor` that they import.
        folder: A folder for caches of Matplotlib and others.
    """

    def __init__(self, source: Path, folder: Path) -> None:
        self._source, self._folder = source, folder
        self._processes: dict[str, subprocess.Popen[str]] = {}

    @property
    def environment(self) -> dict[str, str]:
        """The environment of every step; a case adds to it."""
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "TZ") if name in os.environ}
        caches = {name: str(self._folder) for name in ("HOME", "MPLCONFIGDIR", "XDG_CACHE_HOME")}
        # Cases are too small to use more, and starting more takes most of a case's time on a busy machine.
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        return {**kept, **caches, **threads, "PYTHONPATH": str(self._source), "ROBOFLOW_API_KEY": KEY}

    def run(self, request: dict[str, Any], tensorflow: bool = False) -> Ended:
        """Runs a request, see `server.py`, in a forked process."""
        kind = "tensorflow" if tensorflow else "plain"
        if kind not in self._processes:
            self._processes[kind] = process = subprocess.Popen(
                [sys.executable, str(SERVER), kind],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=self.environment,
                cwd=self._folder,
            )
            assert process.stdout and process.stdout.readline() == "ready\n"
        process = self._processes[kind]
        assert process.stdin and process.stdout
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        return Ended(**json.loads(process.stdout.readline()))

    def close(self) -> None:
        """Ends the processes."""
        for process in self._processes.values():
            process.communicate()


@dataclass
class Workplace:
    """A folder tree: the user's data and documents, an empty folder to work in, one for temporary files.

    Attributes:
        root: The root of the tree.
        server: Runs steps.
        environment: Additional environment variables of a step.
        limits: Additional fields of a request, such as `restricted`.
    """

    root: Path
    server: Server
    environment: dict[str, str] = field(default_factory=dict)
    limits: dict[str, Any] = field(default_factory=dict)

    @property
    def export(self) -> Path:
        """The user's export."""
        return self.root / "data" / "export"

    @property
    def output(self) -> Path:
        """The default path of a step's artifact."""
        return self.root / "out" / "artifact"

    @property
    def report(self) -> Path:
        """The path of its report."""
        return self.root / "out" / "report.html"

    def fill(self, files: dict[str, bytes]) -> None:
        """Creates the tree, with an export of these files."""
        for name in ("data/thesis.txt", "documents/thesis.txt", "documents/2026/notes.txt", "out.txt"):
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"years of work: {name}")
        for name in ("work", "tmp"):
            (self.root / name).mkdir()
        for name, content in files.items():
            path = self.export / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def request(self, **request: Any) -> dict[str, Any]:
        """A request for the server."""
        more = {"TMPDIR": str(self.root / "tmp"), **self.environment}
        return {"folder": str(self.root / "work"), "environment": more, **self.limits, **request}

    def ingest(self, config: dict[str, Any]) -> Ended:
        """Ingests as a component does, with a stand-in for the report."""
        paths = {"output": str(self.output), "report": str(self.report)}
        return self.server.run(self.request(config=json.dumps(config), drawn=False, **paths))

    def step(self, *argv: str, drawn: bool = True, tensorflow: bool = False) -> Ended:
        """Runs a step's command line in a forked process; `drawn=False` skips drawing the data report."""
        return self.server.run(self.request(argv=list(argv), drawn=drawn), tensorflow)

    def start(self, *argv: str) -> "subprocess.Popen[str]":
        """Starts a step's command line as a new process."""
        request = self.request()
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *argv],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="backslashreplace",
            cwd=request["folder"],
            env=self.server.environment | request["environment"],
        )

    def process(self, *argv: str, after: float | None = None, number: int = 0) -> Ended:
        """Runs a step's command line as a new process, and sends it a signal after some seconds."""
        process = self.start(*argv)
        if after is not None:
            time.sleep(after)
            process.send_signal(number)
        said, _ = process.communicate(timeout=120)
        return Ended(process.returncode, said)


@contextmanager
def workplace(parent: Path, server: Server, files: dict[str, bytes]) -> Iterator[Workplace]:
    """A new workplace, deleted at the end."""
    place = Workplace(parent / "workplace", server)
    place.fill(files)
    try:
        yield place
    finally:
        for folder, _, _ in os.walk(place.root):
            os.chmod(folder, 0o700)
        shutil.rmtree(place.root)


def snapshot(folder: Path) -> dict[str, str]:
    """The content of a folder: hashes of files, targets of links, the kind of anything else."""
    found = {}
    for place, folders, names in os.walk(os.fsencode(folder)):
        for name in (*names, *folders):
            path = os.path.join(place, name)
            mode = os.lstat(path).st_mode
            if stat.S_ISLNK(mode):
                what = f"link to {os.fsdecode(os.readlink(path))}"
            elif stat.S_ISREG(mode):
                with open(path, "rb") as file:
                    what = sha256(file.read()).hexdigest()
            elif stat.S_ISDIR(mode):
                continue
            else:
                what = f"kind {stat.S_IFMT(mode)}"
            found[os.path.relpath(os.fsdecode(path), folder)] = what
    return found
