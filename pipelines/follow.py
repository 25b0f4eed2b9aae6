"""Follows a submitted run to its end: `python -m pipelines.follow --target TARGET RUN`."""

import argparse

from brain_tumor.runtime.errors import InputError
from brain_tumor.runtime.step import step
from pipelines.image import ROOT
from pipelines.run import REMOTE, command_line, conclude, watch
from pipelines.targets.target import load_target


def main() -> None:
    """The command line. Its exit codes are those of a run."""
    with step():
        parser = argparse.ArgumentParser(description="Follow a run that was submitted before.")
        parser.add_argument("--target", default="kind", help="a file of pipelines/targets/")
        parser.add_argument("run", help="its name or its id")
        arguments = parser.parse_args()
        target = load_target(arguments.target)
        if target.runner not in REMOTE:
            raise InputError(f"A run of the target {arguments.target} ends with its command; run it again.")
        runner = REMOTE[target.runner]()
        with command_line(runner.interrupted):
            run, started = runner.attach(arguments.run, target, ROOT / "runs")
            conclude(run, *watch(run, runner), started)


if __name__ == "__main__":
    main()
