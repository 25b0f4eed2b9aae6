"""Runs several configurations, and compares them: `python -m pipelines.sweep OVERRIDE ...`.

Values are given in Hydra's sweep syntax: `seed=1,2,3`, `phases=mission,joint`, `choice(...)`, `range(...)`,
`glob(...)`. Each combination is a separate run. Runs use the cached steps of earlier ones, so a run that
changes only a late phase trains only that phase. On a cluster they are runs of one experiment.
"""

import sys
from datetime import datetime
from pathlib import Path

import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from tabulate import tabulate

from brain_tumor.commands import compare_runs
from brain_tumor.comparison.runs import MAX_RUNS, open_run
from brain_tumor.config import StepConfigs
from brain_tumor.config.compose import FILES
from brain_tumor.configure import configure
from brain_tumor.runtime.errors import InputError
from brain_tumor.runtime.step import step
from pipelines.compile import parse_arguments
from pipelines.image import ROOT
from pipelines.naming import sweep_names
from pipelines.run import RUNNERS, RunError, command_line, execute, prepare
from pipelines.runners.runner import Runner
from pipelines.targets.target import Target, load_target


def split_overrides(overrides: list[str]) -> tuple[list[str], list[list[str]]]:
    """Expands overrides with several values to all combinations.

    Args:
        overrides: Hydra's overrides, some with several values.

    Returns:
        The unchanged overrides with a single value, and the other overrides of each combination.

    Raises:
        InputError: No override has several values, or its values cannot be listed.
    """
    shared, several = [], []
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(FILES), version_base="1.3"):
            parser = OverridesParser.create(GlobalHydra.instance().config_loader())
            for text in overrides:
                override = _parse(parser, text)
                if override and override.is_sweep_override():
                    several.append(override)
                else:
                    shared.append(text)
            [changes] = BasicSweeper.split_arguments(several, None)
    except HydraException as error:  # such as an interval, which has infinitely many values
        message = " ".join(str(error).split())
        raise InputError(f"The values of a sweep cannot be listed: {message}.") from error
    if len(changes) < 2:
        raise InputError(
            "A sweep needs an override with several values, separated by commas, such as seed=1,2; a single "
            "configuration is run by make pipeline-run."
        )
    return shared, changes


def _parse(parser: OverridesParser, text: str) -> Override | None:
    """Parses an override; None if it is invalid, which the composition of the configuration reports."""
    try:
        [override] = parser.parse_overrides([text])
    except HydraException:
        return None
    return override


class Sweep:
    """Runs of the pipeline, one for each combination of values.

    Args:
        overrides: Hydra's overrides, some with several values.
        runs: The folder for all results.
        target: The target.

    Attributes:
        changes: Each run's own overrides, by its name.
        done: The names of the runs that succeeded.

    Raises:
        InputError: One of the configurations is invalid. Then no run has started.
    """

    def __init__(self, overrides: list[str], runs: Path, target: Target) -> None:
        shared, changes = split_overrides(overrides)
        names = sweep_names(changes, shared, datetime.now())
        self.changes = dict(zip(names, changes, strict=True))
        self.done: list[str] = []
        self._shared, self._runs, self._target = shared, runs, target
        self._configs: dict[str, StepConfigs] = {}
        for name, own in self.changes.items():
            self._configs[name] = configure([*shared, *own])
            target.check_reachable(self._configs[name])
        self._runner: Runner | None = None

    def run(self) -> None:
        """Runs the configurations one after the other, then prints the comparison of successful runs.

        Raises:
            SystemExit: A run failed; the exit code is 1.
        """
        for number, name in enumerate(self.changes, start=1):
            own = " ".join(self.changes[name])
            print(f"\nRun {number} of {len(self.changes)}: {own}", file=sys.stderr, flush=True)
            try:
                self._execute(name)
            except (RunError, InputError) as error:
                print(error, file=sys.stderr, flush=True)
            else:
                self.done.append(name)
        self._print_result()
        if len(self.done) < len(self.changes):
            raise SystemExit(1)

    def _execute(self, name: str) -> None:
        self._runner = RUNNERS[self._target.runner]()
        overrides = [*self._shared, *self.changes[name]]
        started = datetime.now().astimezone()
        job = prepare(
            self._configs[name], overrides, self._runs, self._target, self._runs / "pipelines", name
        )
        execute(job, self._runner, started, recorded=True)

    def interrupted(self) -> str:
        """What happens to the runs if this process ends now, see `Runner.interrupted`."""
        current = self._runner.interrupted() if self._runner else "no run was started"
        finished = f"; finished: {', '.join(self.done)}" if self.done else ""
        return f"{current}{finished}"

    def _print_result(self) -> None:
        from brain_tumor.reports.comparison_tables import MAIN
        from brain_tumor.reports.evaluation_tables import number

        rows = []
        for name, own in self.changes.items():
            figures = open_run(self._runs, name).figures if name in self.done else {}
            cells = [number(figures.get(figure)) for figure in MAIN]
            rows.append([name if name in self.done else f"{name} (failed)", " ".join(own), *cells])
        print()
        print(tabulate(rows, ("run", "own overrides", *MAIN), "simple", disable_numparse=True))
        first, *others = self.done or [""]
        # A comparison takes up to MAX_RUNS runs; each group is compared with the first run.
        for start in range(0, len(others), MAX_RUNS - 1):
            print()
            compare_runs([first, *others[start : start + MAX_RUNS - 1]], self._runs)


def main() -> None:
    """The command line. Exit code 2 for bad input, 1 if a run failed, 130 for an interrupt."""
    with step():
        name, overrides = parse_arguments("Run the pipeline with several configurations, and compare them.")
        sweep = Sweep(overrides, ROOT / "runs", load_target(name))
        with command_line(sweep.interrupted):
            sweep.run()


if __name__ == "__main__":
    main()
