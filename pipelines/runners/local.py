"""Runs the compiled pipeline on this machine: kfp.local in its own process, with one child process per step.

kfp.local's process reads its instructions from a file and writes its result to another; its output and the
steps' is the run's log. It holds one end of a pipe whose other end is the runner's: when the runner ends for
any reason, the pipe is closed, and the process ends its steps and itself.

A run in progress has a folder below `runs/running/`, with a lock of the runner and one of kfp.local's
process. A folder without a runner belongs to a killed run: the next run waits for the rest of its processes,
and deletes what it left.
"""

import fcntl
import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from brain_tumor.runtime import environment, tracking
from brain_tumor.runtime.errors import InputError
from brain_tumor.runtime.events import Event, EventReader
from brain_tumor.stores.files import write_json
from pipelines.runners import kfp_process
from pipelines.runners.kfp_process import ANSWER, ORDER, POLL, end_containers, end_group
from pipelines.runners.runner import Job, Result

RUNNING = "running"
RUNNER_LOCK, STEPS_LOCK = "runner.lock", "steps.lock"


class LocalRunner:
    """See the module."""

    def __init__(self) -> None:
        self._locks: list[int] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._succeeded = self._bad_input = False

    def submit(self, job: Job) -> None:
        """Starts kfp.local's process."""
        self._job = job
        self._folder = job.runs / RUNNING / job.name
        with _alone(job.runs):
            _put_away_killed_runs(job.runs)
            if self._folder.exists():
                raise InputError(f"A run called {job.name} is already in progress; start again in a second.")
            self._folder.mkdir()
            self._locks = [_open_lock(self._folder / name) for name in (RUNNER_LOCK, STEPS_LOCK)]
            for lock in self._locks:
                fcntl.flock(lock, fcntl.LOCK_EX)
        scratch(self._folder).mkdir()
        write_json(self._folder / ORDER, self._order(job))
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with open(job.log, "wb") as log:
            # In its own session, so that only the runner gets a Ctrl-C, and all steps can be ended.
            self._process = subprocess.Popen(
                [sys.executable, "-m", kfp_process.__name__, str(self._folder)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self._variables(job)},
                start_new_session=True,
                pass_fds=self._locks[1:],
            )

    def _order(self, job: Job) -> dict[str, Any]:
        """The instructions for kfp.local's process."""
        return {
            "compiled": str(job.compiled),
            "parameters": job.parameters,
            "pipeline_root": str(_artifacts(job.runs, job.name)),
            "cache_root": str(job.runs / "cache"),
            "enable_caching": job.target.caching,
            "containers": None,
        }

    def follow(self) -> Iterator[Event]:
        """The steps' events."""
        assert self._process, "submitted"
        reader = EventReader(self._job.events)
        while True:
            ended = self._process.poll() is not None
            for event in reader.read():
                # A step that failed for another reason has a traceback in its log, and no sentence.
                self._bad_input |= event.kind == "failed" and bool(event.text)
                yield event
            if ended:
                return
            time.sleep(POLL)

    def result(self) -> Result:
        """The result of kfp.local's process."""
        assert self._process, "submitted"
        answer = self._folder / ANSWER
        if not answer.is_file():
            return Result({}, killed=self._process.wait() < 0)
        content = json.loads(answer.read_text())
        self._succeeded = not content["failure"]
        artifacts = {name: Path(path) for name, path in content["artifacts"].items()}
        return Result(artifacts, content["failure"], bad_input=self._bad_input)

    def interrupted(self) -> str:
        """What happens to the run."""
        return "the same command resumes the run"

    def close(self) -> None:
        """Ends running processes, and deletes the folders of unfinished steps."""
        if not self._locks:
            return
        if self._process:
            assert self._process.stdin, "a pipe"
            self._process.stdin.close()
            end_group(self._process.pid, self._process)
            end_containers(self._folder)
        if not self._succeeded:
            _end_tracked(self._job.runs, self._job.name, "FAILED")
        _delete_unfinished(self._job.runs, self._job.name)
        for lock in self._locks:
            os.close(lock)

    def _variables(self, job: Job) -> dict[str, str]:
        """The steps' environment; the pipeline does not declare it, so it is not in cache keys."""
        return {
            environment.EVENTS: str(job.events),
            environment.RUN: job.name,
            environment.OVERRIDES: " ".join(job.overrides),
            environment.MLFLOW: str(job.runs),
            environment.IMAGE: job.tag,
            environment.CHECKPOINTS: os.environ.get(environment.CHECKPOINTS) or str(job.runs / "checkpoints"),
            # A step's shell leaves its program in the temporary folder.
            "TMPDIR": str(scratch(self._folder)),
        }


@contextmanager
def _alone(runs: Path) -> Iterator[None]:
    """Prevents other runs from starting, and from deleting what they consider a killed run's."""
    (runs / RUNNING).mkdir(parents=True, exist_ok=True)
    lock = os.open(runs / RUNNING, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _put_away_killed_runs(runs: Path) -> None:
    """Deletes unfinished results of killed runs, and ends these runs in MLflow."""
    for folder in sorted((runs / RUNNING).iterdir()):
        locks = [_open_lock(folder / name) for name in (RUNNER_LOCK, STEPS_LOCK)]
        try:
            if not _take(locks[0]):
                continue  # still in progress
            if not _take(locks[1]):
                logging.info("Waiting for the processes of %s, which was killed, to end.", folder.name)
                fcntl.flock(locks[1], fcntl.LOCK_EX)
            end_containers(folder)
            _end_tracked(runs, folder.name, "KILLED")
            _delete_unfinished(runs, folder.name)
            logging.info("The run %s was killed; this one resumes from what it has done.", folder.name)
        finally:
            for lock in locks:
                os.close(lock)


def _end_tracked(runs: Path, name: str, status: str) -> None:
    """Ends a run in MLflow, if its events mention one."""
    events = EventReader(runs / "logs" / f"{name}.jsonl").read()
    tracked = [event.text for event in events if event.kind == "tracked"]
    if tracked:
        os.environ.setdefault(environment.MLFLOW, str(runs))
        tracking.end_unfinished(tracked[-1], status)


def _artifacts(runs: Path, name: str) -> Path:
    return runs / "artifacts" / name


def scratch(folder: Path) -> Path:
    """The folder of a run's temporary files. Its path is short, as sockets require."""
    name = hashlib.sha256(str(folder).encode()).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"brain-tumor-{name}"


def _open_lock(path: Path) -> int:
    return os.open(path, os.O_CREAT | os.O_RDWR)


def _take(lock: int) -> bool:
    """Takes a lock; False if a process holds it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _delete_unfinished(runs: Path, name: str) -> None:
    """Deletes the folder of an ended run, and those of its unfinished steps."""
    for step in _artifacts(runs, name).glob("*/*"):
        # kfp's executor writes it last.
        if not (step / "executor_output.json").is_file():
            shutil.rmtree(step)
    for folder in (*_artifacts(runs, name).glob("*"), _artifacts(runs, name)):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    shutil.rmtree(scratch(runs / RUNNING / name), ignore_errors=True)
    shutil.rmtree(runs / RUNNING / name)
