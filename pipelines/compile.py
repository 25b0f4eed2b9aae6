"""Compiles the pipeline for a target."""

import sys
from dataclasses import dataclass
from pathlib import Path

import yaml
from kfp import dsl
from kfp.compiler import Compiler

from brain_tumor.config import StepConfigs
from brain_tumor.configure import configure
from brain_tumor.runtime.errors import InputError
from brain_tumor.runtime.step import step
from pipelines.image import ROOT, image_tag
from pipelines.pipeline import build_pipeline

TARGETS = Path(__file__).parent / "targets"


@dataclass
class Target:
    """What a place to run adds to the tasks: the content of a file in `targets/`.

    Attributes:
        image: The image's name, `{tag}` where the content's hash goes.
        caching: Whether a step that was done before, on the same input, is not done again.
    """

    image: str
    caching: bool


def load_target(name: str) -> Target:
    """Reads a target.

    Raises:
        InputError: There is no such target.
    """
    path = TARGETS / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in TARGETS.glob("*.yaml")))
        raise InputError(f"The target {name} is not known; choose one of {known}.")
    return Target(**yaml.safe_load(path.read_text()))


def compile_pipeline(target: Target, tag: str, configs: StepConfigs, path: Path) -> None:
    """Writes the compiled pipeline, the file that every target runs.

    Args:
        target: Where it will run.
        tag: The image's tag.
        configs: Whose phases and labels it has.
        path: The YAML file to write.
    """

    def place(task: dsl.PipelineTask) -> None:
        task.set_container_image(target.image.format(tag=tag))
        task.set_caching_options(target.caching)

    path.parent.mkdir(parents=True, exist_ok=True)
    Compiler().compile(build_pipeline(configs, place), str(path))


def main() -> None:
    """The command line: compiles for this machine to build/pipeline.yaml."""
    with step():
        path = ROOT / "build" / "pipeline.yaml"
        compile_pipeline(load_target("local"), image_tag(), configure(sys.argv[1:]), path)
        print(path)


if __name__ == "__main__":
    main()
