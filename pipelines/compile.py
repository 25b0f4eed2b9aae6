"""Compiles the pipeline for a target: `python -m pipelines.compile --target TARGET [OVERRIDE ...]`."""

import argparse
from pathlib import Path

from kfp.compiler import Compiler

from brain_tumor.config import StepConfigs
from brain_tumor.configure import configure
from brain_tumor.runtime.step import step
from pipelines.image import ROOT, image_tag
from pipelines.pipeline import build_pipeline
from pipelines.targets.target import Target, load_target
from pipelines.targets.tasks import task_configurer


def compile_pipeline(target: Target, tag: str, configs: StepConfigs, path: Path) -> None:
    """Compiles the pipeline to a file.

    Args:
        target: The target on which it will run.
        tag: The images' tag.
        configs: The steps' configs; the tasks depend on the phases and labels.
        path: The YAML file to write.

    Raises:
        InputError: The configuration has a path that the target's machines cannot reach.
    """
    target.check_reachable(configs)
    path.parent.mkdir(parents=True, exist_ok=True)
    Compiler().compile(build_pipeline(configs, task_configurer(target, tag, configs)), str(path))


def parse_arguments(description: str) -> tuple[str, list[str]]:
    """Parses a command line to the target's name and the overrides.

    Args:
        description: The description of the command.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--target", default="local", help="a file of pipelines/targets/")
    parser.add_argument("overrides", nargs="*", help="overrides of the configuration, such as profile=full")
    arguments = parser.parse_args()
    return arguments.target, arguments.overrides


def main() -> None:
    """The command line: compiles to build/pipeline.yaml."""
    with step():
        target, overrides = parse_arguments("Compile the pipeline to build/pipeline.yaml.")
        path = ROOT / "build" / "pipeline.yaml"
        compile_pipeline(load_target(target), image_tag(), configure(overrides), path)
        print(path)


if __name__ == "__main__":
    main()
