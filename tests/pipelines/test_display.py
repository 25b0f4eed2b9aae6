import sys
from pathlib import Path

import pytest

from brain_tumor.runtime.events import Event, Kind
from pipelines.display import PROGRESS_INTERVAL, Display, Task
from pipelines.runners.runner import Result

TASKS = {
    "ingest": Task("ingest", []),
    "build": Task("build TFRecords", ["ingest"]),
    "train": Task("train: joint", ["build"]),
    "evaluate": Task("evaluate", ["train", "build"]),
}


def feed(display: Display, *events: tuple[Kind, str, str, float]) -> None:
    for kind, step, text, time in events:
        display.show(Event(kind, step, text, done=3, total=12, unit="batches", time=time))


def test_steps_that_did_not_run_are_shown_as_cached(capsys: pytest.CaptureFixture[str]) -> None:
    display = Display(TASKS)
    feed(display, ("begin", "train: joint", "", 10), ("message", "train: joint", "a\nb", 11))
    feed(display, ("end", "train: joint", "", 12.5), ("tracked", "train: joint", "0123", 13))
    display.finish()
    assert capsys.readouterr().err.splitlines() == [
        "[ 1/4] ingest: cached",
        "[ 2/4] build TFRecords: cached",
        "[ 3/4] train: joint",
        "        a",
        "        b",
        "        2.5 s",
        "[ 4/4] evaluate: cached",
    ]
    assert display.executed == ["train: joint"]
    assert display.cached == ["ingest", "build TFRecords", "evaluate"]
    assert (display.seconds, display.tracked) == ({"train: joint": 2.5}, "0123")


def test_progress_is_printed_from_time_to_time(capsys: pytest.CaptureFixture[str]) -> None:
    display = Display(TASKS)
    feed(display, ("begin", "ingest", "", 0))
    feed(
        display,
        *(("progress", "ingest", "epoch 1/5", second) for second in range(1, int(2 * PROGRESS_INTERVAL) + 2)),
    )
    assert capsys.readouterr().err.splitlines()[1:] == ["        epoch 1/5: 3 of 12 batches"] * 2


def test_on_a_terminal_progress_is_overwritten(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    display = Display(TASKS)
    feed(
        display, ("begin", "ingest", "", 0), ("progress", "ingest", "epoch 1/5", 1), ("end", "ingest", "", 2)
    )
    lines = capsys.readouterr().err.split("\n")
    assert lines[1] == "\r\x1b[K        epoch 1/5: 3 of 12 batches\r\x1b[K        2.0 s"


@pytest.mark.parametrize(
    ("events", "result", "message"),
    [
        (
            [("begin", "ingest", "", 0), ("failed", "ingest", "x.csv row 3 is not a number; correct it.", 1)],
            Result({}),
            "The step 'ingest' failed: x.csv row 3 is not a number; correct it.\nLog: LOG",
        ),
        (
            [("begin", "ingest", "", 0)],
            Result({}),
            "The step 'ingest' was killed, by a signal or out of memory; the same command resumes the "
            "run.\nLog: LOG",
        ),
        (
            [("begin", "ingest", "", 0)],
            Result({}, killed=True),
            "The run was killed at the step 'ingest'; the same command resumes the run.\nLog: LOG",
        ),
        (
            [("begin", "ingest", "", 0), ("failed", "ingest", "", 1)],
            Result({}),
            "The step 'ingest' failed. The end of its log (LOG):\n    Traceback\n    ValueError: x",
        ),
        (
            [("begin", "ingest", "", 0), ("end", "ingest", "", 1)],
            Result({}, "Inner task failed: 'train'."),
            "A step ended before it reported anything (Inner task failed: 'train'.). "
            "The end of its log (LOG):\n"
            "    Traceback\n    ValueError: x",
        ),
    ],
    ids=["bad input", "killed", "runner's process killed", "bug", "before its first event"],
)
def test_a_failure_is_explained(
    events: list[tuple[Kind, str, str, float]], result: Result, message: str, tmp_path: Path
) -> None:
    display = Display(TASKS)
    feed(display, *events)
    log = tmp_path / "run.log"
    log.write_text("Traceback\n\x1b[91mValueError: x\x1b[0m\n")
    assert display.explain(result, log) == message.replace("LOG", str(log))
