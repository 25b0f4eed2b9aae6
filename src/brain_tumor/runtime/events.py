"""A running step's events: JSON lines in the file that `BRAIN_TUMOR_EVENTS` names.

The process that runs a step follows that file, so it need not parse the step's output. Without the variable
no events are written. A step writes each line at once, so that a killed step leaves whole lines.
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
            pipeline run's MLflow run is known; `failed`, with what the user can fix.
        step: The step's title; empty before it is known.
        text: The message, the name of the long task, the MLflow run's id, or the sentence that says what to
            fix (empty if the log has a traceback instead).
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


_begun = ""


def followed() -> bool:
    """Whether this process's events are written."""
    return bool(os.environ.get(EVENTS))


def begun() -> bool:
    """Whether a step is running in this process."""
    return bool(_begun)


def tell(kind: Kind, text: str = "", done: int = 0, total: int = 0, unit: str = "") -> None:
    """Writes an event of the running step."""
    path = os.environ.get(EVENTS)
    if path:
        event = Event(kind, _begun, text, done, total, unit, round(time.time(), 3))
        # One write in append mode: lines of two processes do not mix.
        with open(path, "ab", buffering=0) as file:
            file.write(json.dumps(asdict(event)).encode() + b"\n")


def begin(step: str) -> None:
    """Writes that a step begins.

    Args:
        step: The step's title, as the pipeline shows it.
    """
    global _begun
    _begun = step
    tell("begin")


def end(failure: str | None = None) -> None:
    """Writes that the running step ends.

    Args:
        failure: If it failed: the sentence that says what to fix, or an empty string.
    """
    global _begun
    try:
        if failure is not None:
            tell("failed", failure)
        elif _begun:
            tell("end")
    finally:
        _begun = ""


class MessageHandler(logging.Handler):
    """Writes log records as events."""

    @override
    def emit(self, record: logging.LogRecord) -> None:
        tell("message", record.getMessage())


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
