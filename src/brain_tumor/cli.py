"""The command line: every step of the pipeline by itself, the same functions that the components call.

`brain-tumor train phase1_box --records runs/records --output runs/phase1 profile=quick` does what the
pipeline's step does. Arguments that are left over are Hydra's overrides of the configuration.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from brain_tumor.step import step


def ingest(arguments: argparse.Namespace, configs: dict[str, str]) -> Any:
    """Runs the ingest step."""
    from brain_tumor.data.dataset import ingest
    from brain_tumor.data.sources import parse_dataset_config

    return ingest(parse_dataset_config(configs["dataset"]), arguments.output, arguments.report)


def records(arguments: argparse.Namespace, configs: dict[str, str]) -> Any:
    """Runs the build_tfrecords step."""
    from brain_tumor.config import RecordsConfig, from_json
    from brain_tumor.data.records import build_tfrecords

    return build_tfrecords(from_json(RecordsConfig, configs["records"]), arguments.dataset, arguments.output)


def train(arguments: argparse.Namespace, configs: dict[str, str]) -> Any:
    """Runs a train step."""
    from brain_tumor.config import TrainConfig, from_json
    from brain_tumor.errors import InputError

    known = sorted(set(configs) - {"dataset", "records", "evaluate", "visualize"})
    if arguments.phase not in known:
        raise InputError(f"There is no phase {arguments.phase}; choose one of {', '.join(known)}.")
    from brain_tumor.training.trainer import train

    config = from_json(TrainConfig, configs[arguments.phase])
    return train(config, arguments.records, arguments.output, arguments.start, arguments.logs)


def evaluate(arguments: argparse.Namespace, configs: dict[str, str]) -> Any:
    """Runs the evaluate step."""
    from brain_tumor.config import EvaluateConfig, from_json
    from brain_tumor.evaluation.evaluate import evaluate

    names = ("final", "baseline_classification", "baseline_box")
    models = {name: getattr(arguments, name) for name in names if getattr(arguments, name)}
    config = from_json(EvaluateConfig, configs["evaluate"])
    return evaluate(config, arguments.records, models, arguments.output, arguments.report)


def visualize(arguments: argparse.Namespace, configs: dict[str, str]) -> Any:
    """Runs the visualize step."""
    from brain_tumor.config import VisualizeConfig, from_json
    from brain_tumor.model.artifact import read_histories
    from brain_tumor.visualization.page import visualize

    config = from_json(VisualizeConfig, configs["visualize"])
    histories = read_histories(arguments.models)
    visualize(config, arguments.predictions, arguments.dataset, histories, arguments.output)
    return {"page": str(arguments.output)}


def main(argv: list[str] | None = None) -> None:
    """Runs one step; prints what it counts as JSON. Exit code 2 for bad input."""
    parser = argparse.ArgumentParser(
        "brain-tumor", description="The steps of the brain-tumor pipeline, one at a time.", epilog=_EPILOG
    )
    commands = parser.add_subparsers(metavar="STEP", required=True)

    def add(function: Any, about: str, *paths: str) -> argparse.ArgumentParser:
        command = commands.add_parser(function.__name__, help=about, description=about, epilog=_EPILOG)
        command.set_defaults(function=function)
        for name in paths:
            command.add_argument(f"--{name.replace('_', '-')}", type=Path, required=True, metavar="PATH")
        return command

    add(ingest, "read images and boxes, set bad ones aside, report", "output", "report")
    add(records, "write TFRecords and statistics", "dataset", "output")
    command = add(train, "train one phase", "records", "output")
    command.add_argument("phase", help="the phase's name in the configuration")
    command.add_argument("--start", type=Path, metavar="PATH", help="model to go on from")
    command.add_argument("--logs", type=Path, metavar="PATH", help="folder for TensorBoard's files")
    command = add(evaluate, "judge models on a split", "records", "final", "output", "report")
    command.add_argument("--baseline-classification", type=Path, metavar="PATH")
    command.add_argument("--baseline-box", type=Path, metavar="PATH")
    command = add(visualize, "draw the pictures on one HTML page", "dataset", "predictions", "output")
    command.add_argument(
        "--models", type=Path, nargs="*", default=[], metavar="PATH", help="for training curves"
    )
    arguments, overrides = parser.parse_known_args(argv)
    unknown = [override for override in overrides if override.startswith("-")]
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")

    with step():
        from brain_tumor.compose import compose, step_configs

        result = arguments.function(arguments, step_configs(compose(overrides)))
        print(json.dumps(result, indent=2, sort_keys=True))


_EPILOG = "Further arguments are overrides of the configuration, such as profile=full."
