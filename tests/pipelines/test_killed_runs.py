"""Runs whose processes are killed: the next start resumes, and nothing is left behind."""

import os
import random
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from brain_tumor.runtime.events import EventReader
from tests.pipelines.local_run import GATE, JOINT, JUDGEMENT, Outcome, finish, run, start_run

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc to find processes")

STEPS = {"ingest", "build TFRecords", "train: joint"} | JUDGEMENT | GATE


def parent_of(pid: int) -> int:
    """A process's parent; 0 if the process has ended."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def find_kfp(runner: int) -> int | None:
    """The process of kfp.local started by a runner."""
    found = [pid for pid in processes() if parent_of(pid) == runner and "kfp_process" in command(pid)]
    return found[0] if found else None


def find_step(runner: int) -> int | None:
    """The running step's Python process."""
    kfp = find_kfp(runner)
    steps = [pid for pid in processes() if "kfp.dsl.executor_main --component" in command(pid)]
    below = [pid for pid in steps if kfp and parent_of(parent_of(pid)) == kfp]
    return below[0] if below else None


VICTIMS: dict[str, Callable[[int], int | None]] = {
    "runner": lambda runner: runner,
    "kfp.local": find_kfp,
    "step": find_step,
}


def kill(victim: str, process: subprocess.Popen[str]) -> bool:
    """Kills one of a run's processes; False if the run ends before it has such a process."""
    while process.poll() is None:
        pid = VICTIMS[victim](process.pid)
        if pid:
            os.kill(pid, signal.SIGKILL)
            return True
        time.sleep(0.02)
    return False


def start_and_wait(root: Path, kind: str, step: str, count: int = 1) -> subprocess.Popen[str]:
    """Starts a run, and waits until a step has reported a kind of event `count` times."""
    before = set((root / "runs" / "logs").glob("*.jsonl"))
    process = start_run(root, *JOINT)
    while process.poll() is None:
        files = set((root / "runs" / "logs").glob("*.jsonl")) - before
        events = [event for file in files for event in EventReader(file).read()]
        if len([event for event in events if (event.kind, event.step) == (kind, step)]) >= count:
            return process
        time.sleep(0.05)
    raise AssertionError(process.communicate())


def belongings(root: Path) -> list[str]:
    """Processes of runs in a folder, found by their environment."""
    found = []
    for pid in processes():
        try:
            if os.fsencode(root) in Path(f"/proc/{pid}/environ").read_bytes():
                found.append(command(pid))
        except (FileNotFoundError, PermissionError, ProcessLookupError):
            continue
    return found


def check_nothing_is_left(root: Path, outcome: Outcome) -> None:
    runs = root / "runs"
    deadline = time.monotonic() + 15
    while (left := belongings(root)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == []
    assert list((runs / "running").iterdir()) == []
    assert list(Path(tempfile.gettempdir()).glob("brain-tumor-*")) == []
    assert list((runs / "artifacts").rglob(".*")) + list((runs / "checkpoints").rglob(".*")) == []
    for step in (runs / "artifacts").glob("*/*/*"):
        assert (step / "executor_output.json").is_file(), f"{step} is not finished"
    assert "RUNNING" not in {found.info.status for found in outcome.mlflow_runs}


GO_ON = "; the same command resumes the run."
SENTENCES = (
    r"The run was killed( at the step '[\w: ]+')?" + GO_ON,
    r"The step '[\w: ]+' was killed, by a signal or out of memory" + GO_ON,
    r"A step ended before it reported anything \(.*\)\. The end of its log \(.*\):",
)


def check_message(stderr: str) -> None:
    """Checks that a run whose step or kfp.local was killed reports it in one sentence."""
    *_, last = [line for line in stderr.splitlines() if not line.startswith(("    ", "Log: "))]
    assert any(re.fullmatch(sentence, last) for sentence in SENTENCES), last
    assert "Traceback" not in stderr


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))


@pytest.mark.heavy
def test_a_killed_run_resumes_and_leaves_nothing(tmp_path: Path) -> None:
    begun = []
    for victim in ("runner", "kfp.local", "step"):
        process = start_and_wait(tmp_path, "message", "train: joint")
        assert kill(victim, process)
        stopped = finish(process, tmp_path)
        assert stopped.code != 0
        if victim != "runner":
            check_message(stopped.stderr)
        begun.append(stopped.executed)
        assert stopped.stdout == ""
    # Finished steps do not run again.
    assert begun == [["ingest", "build TFRecords", "train: joint"], *[["train: joint"]] * 2]

    process = start_and_wait(tmp_path, "message", "train: joint", count=2)
    assert kill("runner", process)
    finish(process, tmp_path)
    last = run(tmp_path, *JOINT)
    assert last.code == 0, last.stderr
    assert re.search(r"^The run \S+ was killed; this one resumes from what it has done\.$", last.stderr, re.M)
    assert re.search(r"Resumes after epoch [12] from", last.stderr)
    assert set(last.executed) | set(last.cached) == STEPS
    check_nothing_is_left(tmp_path, last)


def test_an_interrupt_ends_the_steps_with_the_run(tmp_path: Path) -> None:
    process = start_and_wait(tmp_path, "begin", "ingest")
    process.send_signal(signal.SIGINT)
    outcome = finish(process, tmp_path)
    assert outcome.code == 130
    assert outcome.stderr.splitlines()[-1] == "Interrupted; the same command resumes the run."
    check_nothing_is_left(tmp_path, outcome)


@pytest.mark.campaign
@pytest.mark.parametrize("number", range(10))
@pytest.mark.parametrize("victim", VICTIMS)
def test_a_kill_at_any_moment(
    victim: str, number: int, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    moment = random.Random(f"{victim} {number}").uniform(0.5, 50)
    process = start_run(tmp_path, *JOINT)
    time.sleep(moment)
    killed = kill(victim, process)
    stopped = finish(process, tmp_path)
    doing = stopped.executed[-1] if stopped.executed else "start"
    record_property("killed", f"{victim} after {moment:.1f} s, at {doing}")
    if killed and victim != "runner":
        check_message(stopped.stderr)
    last = run(tmp_path, *JOINT)
    assert last.code == 0, last.stderr
    assert set(last.executed) | set(last.cached) == STEPS
    ended = set(stopped.executed[:-1])
    assert not ended & set(last.executed), "a finished step does not run again"
    check_nothing_is_left(tmp_path, last)
