"""The terminal output of a run in progress."""

import re
import sys
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import yaml

from brain_tumor.runtime.events import Event
from pipelines.runners.runner import Result

LAST_LINES = 25
COLORS = re.compile(r"\x1b\[[0-9;]*m")
PROGRESS_INTERVAL = 30.0  # seconds between two progress lines, if the output is not a terminal


@dataclass(frozen=True)
class Task:
    """A step of a compiled pipeline.

    Attributes:
        title: The step's display name.
        after: The names of the steps whose outputs it uses.
    """

    title: str
    after: list[str]


def read_documents(compiled: Path) -> list[Any]:
    """Reads the documents of a compiled pipeline: the pipeline spec, and the platform spec, if any."""
    # The C parser saves a second.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return list(yaml.load_all(compiled.read_text(), loader))


def read_tasks(compiled: Path) -> dict[str, Task]:
    """Reads the steps of a compiled pipeline, by task name."""
    tasks = read_documents(compiled)[0]["root"]["dag"]["tasks"]
    return {
        name: Task(task["taskInfo"]["name"], task.get("dependentTasks", [])) for name, task in tasks.items()
    }


class Display:
    """Shows a run's events, and collects the steps' states.

    A step with a `begin` event was executed. A step without one was cached, if it has an `end` event or a
    step that uses its outputs was executed. If several steps run in parallel, messages of all but the one
    that began last are prefixed with the step's title.

    Args:
        tasks: The pipeline's steps.
        stream: The output, by default stderr.

    Attributes:
        executed: Titles of the executed steps.
        cached: Titles of the cached steps.
        seconds: The duration of each executed step, by title.
        tracked: The id of the MLflow run, or an empty string.
    """

    def __init__(self, tasks: dict[str, Task], stream: TextIO | None = None) -> None:
        self.executed: list[str] = []
        self.cached: list[str] = []
        self.seconds: dict[str, float] = {}
        self.tracked = ""
        self._tasks = tasks
        # Start times of the running steps by title, in the order of their starts.
        self._running: dict[str, float] = {}
        self._last = ""
        self._failure: Event | None = None
        self._stream = stream or sys.stderr
        self._in_place = self._stream.isatty()
        self._progress_shown = 0.0

    def show(self, event: Event) -> None:
        """Handles the next event."""
        match event.kind:
            case "begin":
                self._show_cached_before(event.step)
                self.executed.append(event.step)
                self._write(f"{self._number()} {event.step}")
                self._running[event.step], self._last = event.time, event.step
                self._progress_shown = event.time
            case "message":
                for line in event.text.splitlines():
                    self._write_message(event.step, line)
            case "progress":
                self._show_progress(event)
            case "tracked":
                self.tracked = event.text
            case "end" if event.step in self._running:
                self.seconds[event.step] = round(event.time - self._running.pop(event.step), 2)
                self._write_message(event.step, f"{self.seconds[event.step]:.1f} s")
            case "end":
                self._show_cached_before(event.step)
                self._show_cached(event.step)
            case "failed":
                self._failure = event

    def finish(self) -> None:
        """Marks the remaining steps as cached, after the run has succeeded."""
        for task in self._tasks.values():
            self._show_cached(task.title)

    def explain(self, result: Result, log: Path) -> str:
        """Explains why a run failed: one sentence, and the end of the log if only the log has the reason.

        Args:
            result: The runner's result.
            log: The file with the steps' output.
        """
        failed = self._failure.step if self._failure else next(reversed(self._running), "")
        log_line = f"\nLog: {log}" if log.is_file() else ""
        links = "".join(f"\n{name}: {link}" for name, link in result.links.items())
        if self._failure and self._failure.text:
            return f"{_quoted(failed)} failed: {self._failure.text}{log_line}{links}"
        if result.killed:
            at = f" at the step '{failed}'" if failed else ""
            what = result.failure or "The run was killed"
            return f"{what}{at}; the same command resumes the run.{log_line}{links}"
        if failed and not self._failure and not result.links:
            why = "was killed, by a signal or out of memory"
            return f"{_quoted(failed)} {why}; the same command resumes the run.{log_line}"
        if not log_line:
            return f"The run failed. {result.failure}{links}"
        why = (
            "failed"
            if failed or self._failure
            else f"ended before it reported anything ({result.failure or 'kfp.local failed'})"
        )
        with open(log, encoding="utf-8", errors="replace") as file:
            lines = [f"    {line.rstrip()}" for line in deque(file, LAST_LINES)]
        message = [f"{_quoted(failed)} {why}. The end of its log ({log}):", *lines]
        return COLORS.sub("", "\n".join(message)) + links

    def _show_cached_before(self, title: str) -> None:
        [task] = [task for task in self._tasks.values() if task.title == title]
        for name in task.after:
            self._show_cached_before(self._tasks[name].title)
            self._show_cached(self._tasks[name].title)

    def _show_cached(self, title: str) -> None:
        if title not in self.executed and title not in self.cached:
            self.cached.append(title)
            self._last = title
            self._write(f"{self._number()} {title}: cached")

    def _number(self) -> str:
        return f"[{len(self.executed) + len(self.cached):2d}/{len(self._tasks)}]"

    def _show_progress(self, event: Event) -> None:
        if self._in_place:
            self._stream.write(f"\r\x1b[K        {event}")
            self._stream.flush()
        elif event.time - self._progress_shown >= PROGRESS_INTERVAL:
            self._progress_shown = event.time
            self._write(f"        {event}")

    def _write_message(self, step: str, line: str) -> None:
        prefix = f"{step}: " if step and step != self._last else ""
        self._write(f"        {prefix}{line}")

    def _write(self, line: str) -> None:
        self._stream.write(f"\r\x1b[K{line}\n" if self._in_place else f"{line}\n")
        self._stream.flush()


def _quoted(step: str) -> str:
    return f"The step '{step}'" if step else "A step"
