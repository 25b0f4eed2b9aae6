"""The command line: runs single steps of the pipeline, by the functions that the components call.

`brain-tumor train phase1_box --records runs/records --output runs/phase1 profile=quick` does what the
pipeline's step does. Further arguments are Hydra's overrides of the configuration. The commands of
`brain_tumor.commands` take none.
"""

import argparse
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

from brain_tumor import steps
from brain_tumor.commands import add_commands
from brain_tumor.runtime.errors import InputError
from brain_tumor.runtime.step import step

# By command: its entry function, and the name of its config (empty for `train`: the phase is an argument).
COMMANDS: dict[str, tuple[Callable[..., Any], str]] = {
    "ingest": (steps.ingest, "dataset"),
    "records": (steps.build_tfrecords, "records"),
    "train": (steps.train, ""),
    "evaluate": (steps.evaluate, "evaluate"),
    "visualize": (steps.visualize, "visualize"),
    "gate": (steps.gate, "gate"),
}
EPILOG = "Further arguments are overrides of the configuration, such as profile=full."


def main(argv: list[str] | None = None) -> None:
    """Runs a step and prints its counts as JSON, or runs a command. The exit code is 2 for bad input."""
    parser = _build_parser()
    arguments, overrides = parser.parse_known_args(argv)
    values = vars(arguments)
    name, command = values.pop("command"), values.pop("run", None)
    unknown = overrides if command else [each for each in overrides if each.startswith("-")]
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if command:
        with step():
            command(**values)
        return
    function, section = COMMANDS[name]
    phase = values.pop("phase", "")
    with step():
        # Imported late: it imports Hydra, which `--help` does not need.
        from brain_tumor.configure import configure

        configs = configure(overrides)
        if phase and phase not in configs.trainings:
            raise InputError(f"There is no phase {phase}; choose one of {', '.join(configs.trainings)}.")
        result = function(configs.parameters()[section or phase], **values)
    if result is not None:
        print(json.dumps(result, indent=2, sort_keys=True))


def _build_parser() -> argparse.ArgumentParser:
    """Builds a command per step, with an option per path parameter of its entry function."""
    parser = argparse.ArgumentParser(
        "brain-tumor", description="The steps of the brain-tumor pipeline, one at a time.", epilog=EPILOG
    )
    commands = parser.add_subparsers(dest="command", metavar="STEP", required=True)
    for name, (function, section) in COMMANDS.items():
        documentation = inspect.getdoc(function) or ""
        about = documentation.splitlines()[0]
        command = commands.add_parser(name, help=about, description=about, epilog=EPILOG)
        if not section:
            command.add_argument("phase", help="the phase's name in the configuration")
        _, *paths = inspect.signature(function).parameters.values()  # the first parameter is the config
        for path in paths:
            command.add_argument(
                f"--{path.name}",
                type=Path,
                metavar="PATH",
                help=_describe(documentation, path.name),
                required=path.default is inspect.Parameter.empty,
                default=None,
                nargs="*" if list[Path] in get_args(path.annotation) else None,
            )
    add_commands(commands)
    return parser


def _describe(documentation: str, name: str) -> str:
    """An argument's description in a docstring."""
    start = f"{name}: "
    lines = [line.strip() for line in documentation.splitlines()]
    return next(line.removeprefix(start) for line in lines if line.startswith(start))
