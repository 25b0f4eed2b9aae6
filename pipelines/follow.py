"""Follows a submitted run to its end: `python -m pipelines.follow --target TARGET RUN`."""

import argparse

from brain_tumor.runtime.errors import InputError
from brain_tumor.runtime.step import step
from pipelines.image import ROOT
from pipelines.run import REMOTE, command_line, conclude, watch
from pipelines.targets.target import load_target


def main() -> None:
    """The command line. Its exit codes are those of `pipelines.run`."""
    with step():
        parser = argparse.ArgumentParser(description="Follow a submitted run.")
        parser.add_argument("--target", default="kind", help="a file of pipelines/targets/")
        parser.add_argument("run", help="the run's name or id")
        arguments = parser.parse_args()
        target = load_target(arguments.target)
        if target.runner not in REMOTE:
            raise InputError(
                f"Runs of the target {arguments.target} cannot be followed, since they end with their "
                "command; start the run again to resume it."
            )
        runner = REMOTE[target.runner]()
        with command_line(runner.interrupted):
            run, started = runner.attach(arguments.run, target, ROOT / "runs")
            conclude(run, *watch(run, runner), started)


if __name__ == "__main__":
    main()
