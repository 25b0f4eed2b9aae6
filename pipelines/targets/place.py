"""Adds to the pipeline's tasks what the target says of them."""

from collections.abc import Callable

from kfp import dsl

from brain_tumor.config import DirectoryDataset, StepConfigs
from pipelines.targets.target import Kind, Placement, Target

Place = Callable[[dsl.PipelineTask, Kind], None]
"""Adds to a task, of a kind, what the target that it will run on needs."""


def place_on(target: Target, tag: str, configs: StepConfigs) -> Place:
    """What adds a target's settings to a task.

    Args:
        target: The target.
        tag: The images' tag.
        configs: What the steps do: a data set in a folder needs its volume.
    """

    def place(task: dsl.PipelineTask, kind: Kind) -> None:
        task.set_container_image(target.image_of(kind, tag))
        task.set_caching_options(target.caching)
        if target.retries:
            task.set_retry(target.retries)
        for name, value in target.environment.items():
            task.set_env_variable(name, value)
        machine = target.machine(kind)
        _set_resources(task, machine)
        _set_pod(task, target, machine)
        if target.data_claim and kind == "ingest" and isinstance(configs.dataset, DirectoryDataset):
            from kfp import kubernetes

            kubernetes.mount_pvc(task, target.data_claim, str(configs.dataset.path))

    return place


def _set_resources(task: dsl.PipelineTask, machine: Placement) -> None:
    if machine.cpu:
        task.set_cpu_request(machine.cpu)
    if machine.cpu_limit:
        task.set_cpu_limit(machine.cpu_limit)
    if machine.memory:
        task.set_memory_request(machine.memory)
    if machine.memory_limit:
        task.set_memory_limit(machine.memory_limit)
    if machine.gpus:
        task.set_accelerator_type(machine.gpu_type).set_accelerator_limit(machine.gpus)


def _set_pod(task: dsl.PipelineTask, target: Target, machine: Placement) -> None:
    """What only Kubernetes knows. Any call here makes the compiled file one that Vertex AI cannot read."""
    from kfp import kubernetes

    if target.pull:
        kubernetes.set_image_pull_policy(task, target.pull)
    for name, field in target.pod_fields.items():
        kubernetes.use_field_path_as_env(task, name, field)
    for name, variables in {**target.secrets, **machine.secrets}.items():
        # A pod whose secret is missing would wait for ever; the step itself can say what it lacks.
        kubernetes.use_secret_as_env(task, name, variables, optional=True)
    for key, value in machine.node_selector.items():
        kubernetes.add_node_selector(task, key, value)
    for taint in machine.tolerations:
        kubernetes.add_toleration(task, taint.key, taint.operator, taint.value, taint.effect)
    if machine.shared_memory:
        kubernetes.empty_dir_mount(
            task, "shared-memory", "/dev/shm", medium="Memory", size_limit=machine.shared_memory
        )
