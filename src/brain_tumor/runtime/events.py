"""What a step tells while it runs: JSON lines in the file that `BRAIN_TUMOR_EVENTS` names.

Whoever runs a step follows that file; nobody has to understand the step's output. Without the variable
nothing is told. A step writes each line at once, so that one who is killed leaves whole lines behind.
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
    """Something that a step tells.

    Attributes:
        kind: `begin` and `end` of a step; a `message`; `progress` of something long; `tracked`, when the
            MLflow run of the whole pipeline run is known; `failed`, with what the user can mend.
        step: The step's title; empty before it is known.
        text: The message, what is under way, the MLflow run's id, or the sentence that says what to mend
            (empty where that is for the log to tell).
        done: How much of it is done, for `progress`.
        total: How much there is, 0 where that is not known.
        unit: What is counted.
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
        """The text, and how far it is."""
        if self.kind != "progress":
            return self.text
        of = f" of {self.total:,}" if self.total else ""
        return f"{self.text}: {self.done:,}{of} {self.unit}"


_begun = ""


def followed() -> bool:
    """Whether someone follows this process's events."""
    return bool(os.environ.get(EVENTS))


def begun() -> bool:
    """Whether a step has begun in this process, and has not ended."""
    return bool(_begun)


def tell(kind: Kind, text: str = "", done: int = 0, total: int = 0, unit: str = "") -> None:
    """Tells something about the step that has begun."""
    path = os.environ.get(EVENTS)
    if path:
        event = Event(kind, _begun, text, done, total, unit, round(time.time(), 3))
        # One write to the file's end: lines of two processes do not mix.
        with open(path, "ab", buffering=0) as file:
            file.write(json.dumps(asdict(event)).encode() + b"\n")


def begin(step: str) -> None:
    """Tells that a step begins.

    Args:
        step: Its title, as the pipeline shows it.
    """
    global _begun
    _begun = step
    tell("begin")


def end(failure: str | None = None) -> None:
    """Tells that the step that has begun ends.

    Args:
        failure: If it fails: the sentence that says what to mend, or an empty text.
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
    """Tells what is logged."""

    @override
    def emit(self, record: logging.LogRecord) -> None:
        tell("message", record.getMessage())


class EventReader:
    """Reads a file of events while it grows.

    Args:
        path: The file, which need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = 0

    def read(self) -> list[Event]:
        """The events that came since the last call. A line that is not whole yet comes later."""
        if not self._path.exists():
            return []
        with open(self._path, "rb") as file:
            file.seek(self._position)
            content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        self._position += len(whole)
        return [Event(**json.loads(line)) for line in whole.splitlines()]
