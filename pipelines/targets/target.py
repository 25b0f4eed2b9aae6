"""What a target adds to the pipeline's tasks."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import yaml
from kfp import dsl
from pydantic import Field

from brain_tumor.config import Schema, from_json
from brain_tumor.config.fields import CountOrZero
from brain_tumor.runtime.errors import InputError

TARGETS = Path(__file__).parent
Kind = Literal["ingest", "build_tfrecords", "train", "evaluate", "label_curves", "visualize"]
# What no TensorFlow is needed for; the other steps run in the image `cpu`, or `gpu` where they get one.
DATA_STEPS: set[Kind] = {"ingest", "label_curves", "visualize"}


class Toleration(Schema):
    """A taint that a step's pod tolerates."""

    key: str = ""
    """The taint's key; empty for all of them."""
    operator: Literal["Equal", "Exists"] = "Exists"
    """Whether the value counts."""
    value: str = ""
    """The taint's value."""
    effect: Literal["NoExecute", "NoSchedule", "PreferNoSchedule"] | None = None
    """The taint's effect; all of them if it is not given."""


class Placement(Schema):
    """The machine that a kind of step needs. Without a cluster it has no effect."""

    cpu: str = ""
    """Cores that it may use, such as 4."""
    memory: str = ""
    """Memory that it may use, such as 16Gi."""
    gpus: CountOrZero = 0
    """How many GPUs it gets."""
    gpu_type: str = "nvidia.com/gpu"
    """Which resource a GPU is."""
    node_selector: dict[str, str] = {}
    """Labels of the nodes that it may run on."""
    tolerations: list[Toleration] = []
    """Taints that its pod tolerates."""
    shared_memory: str = ""
    """Size of /dev/shm, such as 8Gi; else a pod has 64 MB."""


class Target(Schema):
    """A place to run: the content of a file in this folder."""

    runner: Literal["local", "docker"]
    """What brings the compiled pipeline there."""
    image: str = Field(pattern=r"\{tag\}")
    """The images' name: {tag} is where the content's hash goes, {stage} where `data`, `cpu` or `gpu` does."""
    caching: bool = True
    """Whether a step that was done before, on the same input, is not done again."""
    retries: CountOrZero = 0
    """How often a step that failed is tried again."""
    environment: dict[str, str] = {}
    """Variables that every step gets."""
    secrets: dict[str, dict[str, str]] = {}
    """Secrets by name, with the variable that each of their keys becomes."""
    placement: dict[Kind, Placement] = {}
    """Machines, by the kind of step."""

    def image_of(self, kind: Kind, tag: str) -> str:
        """The image that a kind of step runs in.

        Args:
            kind: The kind of step.
            tag: The images' tag.
        """
        stage = "gpu" if self.placement.get(kind, Placement()).gpus else "cpu"
        stage = "data" if kind in DATA_STEPS else stage
        return self.image.replace("{stage}", stage).replace("{tag}", tag)

    def place(self, tag: str) -> "Place":
        """What adds all this to a task.

        Args:
            tag: The image's tag.
        """

        def place(task: dsl.PipelineTask, kind: Kind) -> None:
            task.set_container_image(self.image_of(kind, tag))
            task.set_caching_options(self.caching)
            if self.retries:
                task.set_retry(self.retries)
            for name, value in self.environment.items():
                task.set_env_variable(name, value)
            if self.secrets:
                from kfp import kubernetes

                for name, variables in self.secrets.items():
                    kubernetes.use_secret_as_env(task, name, variables)
            _place_on_machine(task, self.placement.get(kind, Placement()))

        return place


Place = Callable[[dsl.PipelineTask, Kind], None]
"""Adds to a task, of a kind, what the target that it will run on needs."""


def load_target(name: str, folder: Path = TARGETS) -> Target:
    """Reads a target.

    Raises:
        InputError: There is no such target, or its file is not one of the schema.
    """
    path = folder / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.yaml")))
        raise InputError(f"The target {name} is not known; choose one of {known}.")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        raise InputError(f"{path} is no YAML at line {line}; correct it.") from None
    return from_json(Target, json.dumps(content), path.name)


def _place_on_machine(task: dsl.PipelineTask, placement: Placement) -> None:
    if placement.cpu:
        task.set_cpu_limit(placement.cpu)
    if placement.memory:
        task.set_memory_limit(placement.memory)
    if placement.gpus:
        task.set_accelerator_type(placement.gpu_type).set_accelerator_limit(placement.gpus)
    if not (placement.node_selector or placement.tolerations or placement.shared_memory):
        return
    # Only for who needs it: any of its calls makes the compiled file one for Kubernetes.
    from kfp import kubernetes

    for key, value in placement.node_selector.items():
        kubernetes.add_node_selector(task, key, value)
    for taint in placement.tolerations:
        kubernetes.add_toleration(task, taint.key, taint.operator, taint.value, taint.effect)
    if placement.shared_memory:
        kubernetes.empty_dir_mount(
            task, "shared-memory", "/dev/shm", medium="Memory", size_limit=placement.shared_memory
        )
