"""A running step's events: JSON lines in the file that `BRAIN_TUMOR_EVENTS` names.

The process that runs a step reads that file instead of parsing the step's output. Without the variable no
events are written. Each line is written in a single call, so that a killed step leaves complete lines.
"""

import json
import logging
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from typing_extensions import override

from brain_tumor.runtime.environment import EVENTS

Kind = Literal["begin", "message", "progress", "tracked", "end", "failed"]


@dataclass(frozen=True)
class Event:
    """An event of a step.

    Attributes:
        kind: `begin` or `end` of a step; a log `message`; `progress` of a long task; `tracked`, when the
            pipeline run's MLflow run is known; `failed`, instead of `end`.
        step: The step's title; empty before it is known.
        text: The message, the name of the long task, the MLflow run's id, or the error message (empty if the
            log has a traceback instead).
        done: How much is done, for `progress`.
        total: The total, 0 if it is unknown.
        unit: The unit of `done` and `total`.
        time: Seconds since 1970.
    """

    kind: Kind
    step: str
    text: str = ""
    done: int = 0
    total: int = 0
    unit: str = ""
    time: float = 0.0

    def __str__(self) -> str:
        """The text, with the progress."""
        if self.kind != "progress":
            return self.text
        of = f" of {self.total:,}" if self.total else ""
        return f"{self.text}: {self.done:,}{of} {self.unit}"


_step = ""


def enabled() -> bool:
    """Whether events are written."""
    return bool(os.environ.get(EVENTS))


def running() -> bool:
    """Whether a step is running in this process."""
    return bool(_step)


def write(kind: Kind, text: str = "", done: int = 0, total: int = 0, unit: str = "") -> None:
    """Writes an event of the running step."""
    path = os.environ.get(EVENTS)
    if path:
        event = Event(kind, _step, text, done, total, unit, round(time.time(), 3))
        # One write in append mode, so that lines of several processes do not mix.
        with open(path, "ab", buffering=0) as file:
            file.write(json.dumps(asdict(event)).encode() + b"\n")


def begin(step: str) -> None:
    """Writes the event that a step begins.

    Args:
        step: The step's title, as the pipeline shows it.
    """
    global _step
    _step = step
    write("begin")


def end(failure: str | None = None) -> None:
    """Writes the event that the running step ends.

    Args:
        failure: The error message if it failed, empty if the log has a traceback; None on success.
    """
    global _step
    try:
        if failure is not None:
            write("failed", failure)
        elif _step:
            write("end")
    finally:
        _step = ""


class MessageHandler(logging.Handler):
    """Writes log records as events."""

    @override
    def emit(self, record: logging.LogRecord) -> None:
        write("message", record.getMessage())


class EventReader:
    """Reads a growing file of events.

    Args:
        path: The file, which need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = 0

    def read(self) -> list[Event]:
        """The events since the last call, without an incomplete last line."""
        if not self._path.exists():
            return []
        with open(self._path, "rb") as file:
            file.seek(self._position)
            content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        self._position += len(whole)
        return [Event(**json.loads(line)) for line in whole.splitlines()]
