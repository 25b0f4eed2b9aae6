import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from brain_tumor.runtime import events
from brain_tumor.runtime.environment import EVENTS
from brain_tumor.runtime.errors import InputError
from brain_tumor.runtime.events import Event, EventReader
from brain_tumor.runtime.progress import Progress
from brain_tumor.runtime.step import step


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "events.jsonl"
    monkeypatch.setenv(EVENTS, str(path))
    return path


def kinds(path: Path) -> list[tuple[str, str, str]]:
    return [(event.kind, event.step, event.text) for event in EventReader(path).read()]


def test_a_step_reports_its_begin_messages_and_end(file: Path) -> None:
    with step():
        events.begin("ingest")
        logging.info("%d images", 3)
        logging.debug("not for people")
    logging.warning("after it")
    assert kinds(file) == [("begin", "ingest", ""), ("message", "ingest", "3 images"), ("end", "ingest", "")]


def test_bad_input_reports_its_sentence_once(file: Path) -> None:
    # A command line is a step around the step that it runs.
    with pytest.raises(SystemExit), step(), step():
        events.begin("ingest")
        raise InputError("data.csv row 3 is not a number; correct it.")
    assert kinds(file)[1:] == [("failed", "ingest", "data.csv row 3 is not a number; correct it.")]


def test_bad_input_before_the_begin_is_reported_too(file: Path) -> None:
    with pytest.raises(SystemExit), step():
        raise InputError("training.epochs is not set.")
    assert kinds(file) == [("failed", "", "training.epochs is not set.")]


@pytest.mark.parametrize("error", [ValueError("a secret"), SystemExit(143)], ids=repr)
def test_a_failure_that_the_log_explains_has_no_text(file: Path, error: BaseException) -> None:
    with pytest.raises(type(error)), step():
        events.begin("ingest")
        raise error
    assert kinds(file)[1:] == [("failed", "ingest", "")]


def test_an_interrupt_is_reported_in_one_word(file: Path) -> None:
    with pytest.raises(SystemExit) as end, step():
        events.begin("ingest")
        raise KeyboardInterrupt
    assert end.value.code == 130
    assert kinds(file)[1:] == [("message", "ingest", "Interrupted."), ("failed", "ingest", "")]


def test_without_a_follower_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(EVENTS, raising=False)
    monkeypatch.chdir(tmp_path)
    with step():
        events.begin("ingest")
    assert list(tmp_path.iterdir()) == []


def test_a_reader_returns_complete_lines_as_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    reader = EventReader(path)
    assert reader.read() == []
    whole, half = (json.dumps({"kind": "message", "step": "x", "text": text}) for text in ("één", "zwei"))
    path.write_text(f"{whole}\n{half[:20]}")
    assert reader.read() == [Event("message", "x", "één")]
    with open(path, "a") as file:
        file.write(f"{half[20:]}\n")
    assert reader.read() == [Event("message", "x", "zwei")]
    assert reader.read() == []


def test_events_of_a_killed_process_are_kept(file: Path) -> None:
    script = (
        "import os, signal; from brain_tumor.runtime import events; "
        "events.begin('ingest'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == -9
    assert kinds(file) == [("begin", "ingest", "")]


def test_long_work_reports_its_progress(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("brain_tumor.runtime.progress.UPDATE_INTERVAL", 0.0)
    events.begin("records")
    with Progress("Writing", 2000, "images") as progress:
        for _ in range(2):
            progress.update(1000)
    told = [event for event in EventReader(file).read() if event.kind == "progress"]
    assert (told[-1].step, told[-1].done, told[-1].total) == ("records", 2000, 2000)
    assert str(told[-1]) == "Writing: 2,000 of 2,000 images"
    events.end()


def test_without_a_follower_progress_is_logged_from_time_to_time(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(EVENTS, raising=False)
    caplog.set_level(logging.INFO)
    with Progress("Writing", None, "images") as progress:
        progress.update(1000)
    assert caplog.text == "", "it was short"
    monkeypatch.setattr("brain_tumor.runtime.progress.LOG_INTERVAL", 0.0)
    with Progress("Writing", None, "images") as progress:
        progress.update(1000)
    assert "Writing: 1,000 images" in caplog.text
    assert capsys.readouterr().err == ""
