"""The interface of runners, and their inputs and results."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from brain_tumor.config import StepConfigs
from brain_tumor.runtime.events import Event
from pipelines.targets.target import Target


@dataclass(frozen=True)
class Run:
    """A run on any target.

    Attributes:
        name: The run's name.
        target: Where it runs.
        tag: The image's tag.
        compiled: The compiled pipeline.
        parameters: The pipeline's parameters.
        overrides: The overrides, for people to read.
        runs: The folder for all its results on this machine.
    """

    name: str
    target: Target
    tag: str
    compiled: Path
    parameters: dict[str, str]
    overrides: list[str]
    runs: Path

    @property
    def log(self) -> Path:
        """The steps' complete output."""
        return self.runs / "logs" / f"{self.name}.log"

    @property
    def events(self) -> Path:
        """The steps' events."""
        return self.runs / "logs" / f"{self.name}.jsonl"


@dataclass(frozen=True)
class Job(Run):
    """A run to be started.

    Attributes:
        configs: The steps' configs.
    """

    configs: StepConfigs


@dataclass(frozen=True)
class Result:
    """The result of a run.

    Attributes:
        artifacts: The paths of the pipeline's outputs, by their names; empty if it failed. For a remote run
            these are copies of the needed ones.
        failure: The runner's reason for the failure, a sentence; empty if it succeeded.
        killed: Whether it was ended from outside.
        bad_input: Whether it failed since a step's input was bad.
        seconds: The duration, if this machine's clock did not measure it.
        about: A remote run's id and its artifacts' addresses, for its record.
        links: Links for people, by title.
    """

    artifacts: dict[str, Path]
    failure: str = ""
    killed: bool = False
    bad_input: bool = False
    seconds: float | None = None
    about: dict[str, Any] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)


class Runner(Protocol):
    """Runs a compiled pipeline on a target, and reports its events."""

    def submit(self, job: Job) -> None:
        """Starts the run."""

    def follow(self) -> Iterator[Event]:
        """Yields the steps' events until the run has ended."""

    def result(self) -> Result:
        """The result, after `follow` has ended."""

    def interrupted(self) -> str:
        """What happens to the run if this process ends now: a sentence for an interrupt's message."""

    def close(self) -> None:
        """Ends the run's processes on this machine and deletes temporary files."""


class RemoteRunner(Runner, Protocol):
    """A runner whose runs continue without it."""

    def attach(self, run: str, target: Target, runs: Path) -> tuple[Run, datetime]:
        """Finds a submitted run, so that `follow` follows it.

        Args:
            run: Its name or its id.
            target: Where it runs.
            runs: The folder for its results on this machine.

        Returns:
            The run, and when it was submitted.

        Raises:
            UnknownRunError: There is no such run.
            InputError: The server cannot be asked.
        """

    def ended(self) -> bool:
        """Whether the run that was attached to had ended by then."""
