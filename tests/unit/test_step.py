import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from brain_tumor.runtime.errors import InputError
from brain_tumor.runtime.signals import INTERRUPTED, TERMINATED
from tests.unit.programs import PROGRAMS

TEMPORARY = PROGRAMS / "temporary_files.py"


def run(script: str | Path, *arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs a line of Python, or a file."""
    program = [script] if isinstance(script, Path) else ["-c", script]
    command = [sys.executable, *program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **variables})


def test_bad_input_ends_with_one_sentence_and_code_2() -> None:
    result = run(PROGRAMS / "bad_input.py", "/nowhere", "bad")
    assert result.returncode == 2
    assert result.stderr == "data.csv row 3 is not a number; correct it.\n"
    assert result.stdout == ""


def test_bad_input_is_written_to_the_termination_log_of_a_pod(tmp_path: Path) -> None:
    script = PROGRAMS / "bad_input.py"
    log = tmp_path / "termination-log"
    assert run(script, log, "bad").returncode == 2
    assert not log.exists()
    log.touch()
    assert run(script, log, "bug").returncode == 1
    assert log.read_text() == ""
    assert run(script, log, "bad").returncode == 2
    assert log.read_text() == "Bad input: data.csv row 3 is not a number; correct it.\n"
    # A cluster repeats a step without the mark.
    assert run(script, log, "away").returncode == 2
    assert log.read_text() == "The store is away; try again.\n"
    log.chmod(0o400)
    assert run(script, log, "bad").returncode == 2


def test_a_bug_keeps_its_traceback() -> None:
    result = run("from brain_tumor.runtime.step import step\nwith step():\n    1 / 0\n")
    assert result.returncode == 1
    assert "ZeroDivisionError" in result.stderr


def test_logs_go_to_stderr_and_results_to_stdout() -> None:
    result = run(
        "import logging\n"
        "from brain_tumor.runtime.step import step\n"
        "with step():\n"
        "    logging.info('%d images', 3)\n"
        "    print('result')\n"
    )
    assert result.returncode == 0
    assert result.stderr == "3 images\n"
    assert result.stdout == "result\n"


def test_the_command_line_ends_the_same_way() -> None:
    result = run("from brain_tumor.cli import main\nmain(['ingest', '--output=a', '--report=b', 'sed=1'])")
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "sed=1" in result.stderr and "seed" in result.stderr

    result = run("from brain_tumor.cli import main\nmain(['ingest', '--output=a', '--report=b', '--sed'])")
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1] == "brain-tumor: error: unrecognized arguments: --sed"


def test_a_message_with_a_long_value_is_shortened_in_the_middle() -> None:
    said = str(InputError(f"labels is {'9' * 5000}; give a name."))
    assert len(said) <= 900
    assert said.startswith("labels is 999")
    assert said.endswith("999; give a name.")


def test_a_message_shows_invisible_characters_escaped() -> None:
    result = run(
        "from brain_tumor.runtime.errors import InputError\n"
        "from brain_tumor.runtime.step import step\n"
        "with step():\n"
        "    raise InputError('a\\nb\\u202ec\\udcff is not a folder.')\n"
    )
    assert result.stderr == "a\\nb\\u202ec\\udcff is not a folder.\n"


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("succeeds", 0),
        ("fails", 1),
        ("terminated", TERMINATED),
        ("interrupted", INTERRUPTED),
        ("killed", -signal.SIGKILL),
    ],
)
def test_nothing_stays_in_the_temporary_folder(end: str, code: int, tmp_path: Path) -> None:
    """Files left by a killed process are deleted by the next one."""
    variables = {"TMPDIR": str(tmp_path)}
    (tmp_path / "another's").mkdir()
    assert run(TEMPORARY, end, **variables).returncode == code
    if code == -signal.SIGKILL:
        assert len(list(tmp_path.iterdir())) == 2
        assert run(TEMPORARY, "succeeds", **variables).returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["another's"]


def test_steps_at_the_same_time_keep_their_temporary_files(tmp_path: Path) -> None:
    start = [sys.executable, str(TEMPORARY), "waits"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(start, env={**os.environ, "TMPDIR": str(tmp_path)}, **pipes) as first:
        while not list(tmp_path.glob("*/tmp*/cache")):
            assert first.poll() is None, first.communicate()
            time.sleep(0.01)
        assert run(TEMPORARY, "succeeds", TMPDIR=str(tmp_path)).returncode == 0
        assert list(tmp_path.glob("*/tmp*/cache"))
        first.communicate("\n")
        assert first.returncode == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            "OSError(errno.ENOSPC, 'x')",
            "The disk of the output or of {tmp}: No space left on device; free some",
        ),
        (
            "PermissionError(errno.EACCES, 'x', '/data/a')",
            "/data/a: Permission denied; give this user permission",
        ),
        ("OSError(errno.EROFS, 'x', b'/data/a')", "/data/a: Read-only file system; name a folder on a disk"),
        ("OSError(errno.ENAMETOOLONG, 'x', '/a')", "/a: File name too long; give a shorter name."),
    ],
)
def test_errors_of_the_operating_system_are_one_sentence(error: str, sentence: str, tmp_path: Path) -> None:
    script = f"import errno\nfrom brain_tumor.runtime.step import step\nwith step():\n    raise {error}\n"
    result = run(script, TMPDIR=str(tmp_path))
    assert result.returncode == 2
    assert result.stderr.startswith(sentence.format(tmp=tmp_path)) and result.stderr.count("\n") == 1


def test_a_missing_file_may_be_a_bug_and_keeps_its_traceback() -> None:
    result = run("from brain_tumor.runtime.step import step\nwith step():\n    open('/nowhere/file')\n")
    assert result.returncode == 1 and "FileNotFoundError" in result.stderr
