"""Turns snapshots of a remote run into events."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from brain_tumor.runtime.events import Event
from pipelines.display import Task

# `pending`: its inputs are ready, but it has no machine yet.
State = Literal["waiting", "pending", "running", "done", "cached", "failed"]


@dataclass(frozen=True)
class Step:
    """A snapshot of a step.

    Attributes:
        state: The step's state.
        began: When it began, in seconds since 1970.
        ended: When it ended.
        why: The cluster's reason why it is pending or failed, if known.
        pod: The name of its pod or job.
        failures: The cluster's reasons why earlier attempts failed, the oldest first.
    """

    state: State = "waiting"
    began: float = 0.0
    ended: float = 0.0
    why: str = ""
    pod: str = ""
    failures: tuple[str, ...] = ()


class Teller:
    """Yields an event for each change of the steps, like the steps of a local run.

    Args:
        tasks: The pipeline's steps.
    """

    def __init__(self, tasks: dict[str, Task]) -> None:
        self._tasks = tasks
        self._told: dict[str, State] = {}
        self._words: set[tuple[str, str]] = set()

    def tell(self, steps: dict[str, Step]) -> Iterator[Event]:
        """Events for the changes since the last call.

        A step that ends without having begun was cached.

        Args:
            steps: The steps by their names in the pipeline.
        """
        for name, step in sorted(steps.items(), key=lambda item: (item[1].began, item[1].ended)):
            title, before = self._tasks[name].title, self._told.get(name)
            if step.state == before or step.state in ("waiting", "pending"):
                continue
            self._told[name] = step.state
            if step.state != "cached" and before is None:
                yield Event("begin", title, time=step.began)
            if step.state in ("done", "cached"):
                yield Event("end", title, time=step.ended)

    def say(self, name: str, topic: str, text: str) -> Iterator[Event]:
        """A message about a step, or without a name about the run, once per topic."""
        if (name, topic) not in self._words:
            self._words.add((name, topic))
            yield Event("message", self._tasks[name].title if name else "the run", text)

    def has_said(self, name: str) -> bool:
        """Whether there was a message about a step."""
        return any(name == about for about, _ in self._words)
