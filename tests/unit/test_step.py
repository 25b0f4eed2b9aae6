import subprocess
import sys


def run(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)


def test_bad_input_ends_with_one_sentence_and_code_2() -> None:
    result = run(
        "from brain_tumor.runtime.errors import InputError\n"
        "from brain_tumor.runtime.step import step\n"
        "with step():\n"
        "    try:\n"
        "        int('x')\n"
        "    except ValueError as error:\n"
        "        raise InputError('data.csv row 3 is no number; correct it.') from error\n"
    )
    assert result.returncode == 2
    assert result.stderr == "data.csv row 3 is no number; correct it.\n"
    assert result.stdout == ""


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


def test_the_command_line_ends_likewise() -> None:
    result = run("from brain_tumor.cli import main\nmain(['ingest', '--output=a', '--report=b', 'sed=1'])")
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "sed=1" in result.stderr and "seed" in result.stderr
