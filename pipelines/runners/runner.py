"""What every runner does, and what it is given."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from brain_tumor.config import StepConfigs
from brain_tumor.runtime.events import Event
from pipelines.pipeline import ABOUT
from pipelines.targets.target import Target


@dataclass(frozen=True)
class Job:
    """A run that is to be.

    Attributes:
        name: The run's name.
        target: Where it is to run.
        tag: The image's tag.
        compiled: The compiled pipeline.
        configs: What its steps are to do.
        overrides: What it changes, for people to read.
        runs: The folder that takes everything it leaves.
    """

    name: str
    target: Target
    tag: str
    compiled: Path
    configs: StepConfigs
    overrides: list[str]
    runs: Path

    @property
    def parameters(self) -> dict[str, str]:
        """The pipeline's parameters."""
        return {ABOUT: " ".join(self.overrides) or "defaults", **self.configs.parameters()}

    @property
    def log(self) -> Path:
        """The steps' whole output."""
        return self.runs / "logs" / f"{self.name}.log"

    @property
    def events(self) -> Path:
        """What the steps tell."""
        return self.runs / "logs" / f"{self.name}.jsonl"


@dataclass(frozen=True)
class Result:
    """How a run ended.

    Attributes:
        artifacts: The paths of the pipeline's outputs, by their names; empty if it failed.
        failure: What the runner knows of why it failed, a sentence; empty if it did not.
        killed: Whether a process of the runner's own was ended from outside.
    """

    artifacts: dict[str, Path]
    failure: str = ""
    killed: bool = False


class Runner(Protocol):
    """Brings a compiled pipeline to where it runs, and says what happens there."""

    def submit(self, job: Job) -> None:
        """Starts the run."""

    def follow(self) -> Iterator[Event]:
        """What the steps tell, as they tell it, until the run has ended."""

    def result(self) -> Result:
        """How it ended, after `follow` has ended."""

    def close(self) -> None:
        """Ends what still runs, and leaves nothing of it behind."""
