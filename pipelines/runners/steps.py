"""What a run elsewhere looks like at a moment, made into events."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from brain_tumor.runtime.events import Event
from pipelines.display import Task

# `pending`: it has what it needs, and no machine yet.
State = Literal["waiting", "pending", "running", "done", "cached", "failed"]


@dataclass(frozen=True)
class Step:
    """A step at a moment.

    Attributes:
        state: How far it is.
        began: When it began, in seconds since 1970.
        ended: When it ended.
        why: Why it is pending or has failed, where that is known: what the cluster says.
        pod: What it runs in, as that is called there.
    """

    state: State = "waiting"
    began: float = 0.0
    ended: float = 0.0
    why: str = ""
    pod: str = ""


class Teller:
    """Tells each change of the steps once, as the steps of a local run do themselves.

    Args:
        tasks: The pipeline's steps.
    """

    def __init__(self, tasks: dict[str, Task]) -> None:
        self._tasks = tasks
        self._told: dict[str, State] = {}
        self._words: set[tuple[str, str]] = set()

    def tell(self, steps: dict[str, Step]) -> Iterator[Event]:
        """What has changed since the last call.

        A step that ends and has not begun was done before: its earlier result was taken.

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
        """A message about a step, once for each topic."""
        if (name, topic) not in self._words:
            self._words.add((name, topic))
            yield Event("message", self._tasks[name].title, text)
