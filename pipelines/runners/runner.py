"""What every runner does, and what it is given."""

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
    """A run, wherever it was started.

    Attributes:
        name: The run's name.
        target: Where it runs.
        tag: The image's tag.
        compiled: The compiled pipeline.
        parameters: The pipeline's parameters.
        overrides: What it changes, for people to read.
        runs: The folder that takes everything it leaves on this machine.
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
        """The steps' whole output."""
        return self.runs / "logs" / f"{self.name}.log"

    @property
    def events(self) -> Path:
        """What the steps tell."""
        return self.runs / "logs" / f"{self.name}.jsonl"


@dataclass(frozen=True)
class Job(Run):
    """A run that is to be.

    Attributes:
        configs: What its steps are to do.
    """

    configs: StepConfigs


@dataclass(frozen=True)
class Result:
    """How a run ended.

    Attributes:
        artifacts: The paths of the pipeline's outputs, by their names; empty if it failed. Of a run elsewhere
            these are copies of what its result needs.
        failure: What the runner knows of why it failed, a sentence; empty if it did not.
        killed: Whether it was ended from outside.
        seconds: How long it took, if that is not for this machine's clock to say.
        about: What a run elsewhere has there, for its record: its id, and its artifacts' addresses.
        links: Where a person sees it, by what is seen there.
    """

    artifacts: dict[str, Path]
    failure: str = ""
    killed: bool = False
    seconds: float | None = None
    about: dict[str, Any] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)


class Runner(Protocol):
    """Brings a compiled pipeline to where it runs, and says what happens there."""

    def submit(self, job: Job) -> None:
        """Starts the run."""

    def follow(self) -> Iterator[Event]:
        """What the steps tell, as they tell it, until the run has ended."""

    def result(self) -> Result:
        """How it ended, after `follow` has ended."""

    def interrupted(self) -> str:
        """What becomes of the run if this process ends now: a sentence, for who interrupts it."""

    def close(self) -> None:
        """Ends what still runs on this machine, and leaves nothing of it behind."""


class RemoteRunner(Runner, Protocol):
    """A runner whose runs go on without it."""

    def attach(self, run: str, target: Target, runs: Path) -> tuple[Run, datetime]:
        """Finds a run that was submitted before, so that `follow` follows it.

        Args:
            run: Its name or its id.
            target: Where it runs.
            runs: The folder that takes what it leaves on this machine.

        Returns:
            The run, and when it was submitted.

        Raises:
            InputError: There is none.
        """
