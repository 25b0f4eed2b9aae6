"""Compares runs, local or remote: `python -m pipelines.compare --target TARGET RUN ...`."""

import argparse
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from brain_tumor.commands import compare_runs
from brain_tumor.comparison.history import find_record
from brain_tumor.runtime.errors import InputError
from brain_tumor.runtime.step import step
from pipelines.image import ROOT
from pipelines.targets.target import Target, load_target

if TYPE_CHECKING:
    from pipelines.runners.runner import RemoteRunner


def fetch_runs(identifiers: list[str], target: Target, runs: Path) -> None:
    """Downloads the artifacts of runs without a local record, and writes their records.

    Runs that the target's server does not know are skipped, since they may be in MLflow.

    Args:
        identifiers: The runs' names or ids.
        target: Where they ran.
        runs: The folder of the runs on this machine.

    Raises:
        InputError: The server or the artifact store cannot be read, or a run has not ended, or has failed.
    """
    if target.runner in ("local", "docker") or identifiers[:1] == ["last"]:
        return
    # Imported here, since importing kfp takes a second.
    from pipelines.run import REMOTE
    from pipelines.runners.connection import UnknownRunError

    for identifier in identifiers:
        if find_record(runs, identifier) is None:
            try:
                _fetch(REMOTE[target.runner](), identifier, target, runs)
            except UnknownRunError as error:
                logging.info("%s", error)


def _fetch(runner: "RemoteRunner", identifier: str, target: Target, runs: Path) -> None:
    from pipelines.run import watch, write_record

    run, started = runner.attach(identifier, target, runs)
    if not runner.ended():
        raise InputError(
            f"The run {run.name} has not ended; compare it later, or follow it: make pipeline-follow "
            f"TARGET={target.name} RUN={run.name}."
        )
    with open(os.devnull, "w") as devnull:
        display, result = watch(run, runner, devnull)
    if not result.artifacts:
        raise InputError(
            f"The run {run.name} has no figures ({result.failure.rstrip('.')}); name another one."
        )
    write_record(run, result, display, started, result.seconds or 0.0)


def main() -> None:
    """The command line. Exit code 2 for bad input."""
    with step():
        parser = argparse.ArgumentParser(description="Compare runs.")
        parser.add_argument("--target", default="local", help="a file of pipelines/targets/")
        parser.add_argument("runs", nargs="+", help="names or ids of two or more runs; or `last 2`")
        arguments = parser.parse_args()
        fetch_runs(arguments.runs, load_target(arguments.target), ROOT / "runs")
        compare_runs(arguments.runs, ROOT / "runs")


if __name__ == "__main__":
    main()
