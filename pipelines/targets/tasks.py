"""Adds the target's settings to the pipeline's tasks."""

from collections.abc import Callable

from kfp import dsl

from brain_tumor.config import DirectoryDataset, StepConfigs
from brain_tumor.runtime import environment
from pipelines.targets.target import Kind, Placement, Target

# A step may be retried until this long after the start of its first attempt (30 days). With Kubeflow's
# default of an hour, a training that takes longer is not retried, or is terminated if it was.
RETRY_PERIOD = "2592000s"

ConfigureTask = Callable[[dsl.PipelineTask, Kind], None]
"""Adds the target's settings to a task of the given kind."""


def task_configurer(target: Target, tag: str, configs: StepConfigs) -> ConfigureTask:
    """Returns a function that adds a target's settings to a task.

    Args:
        target: The target.
        tag: The images' tag.
        configs: The steps' configs; the volume of a data set in a folder is mounted.
    """

    def configure_task(task: dsl.PipelineTask, kind: Kind) -> None:
        task.set_container_image(target.image_of(kind, tag))
        task.set_caching_options(target.caching)
        if target.retries:
            task.set_retry(target.retries, backoff_max_duration=RETRY_PERIOD)
        for name, value in target.environment.items():
            task.set_env_variable(name, value)
        if target.runner == "kubeflow" and target.dashboard:
            page = f"{target.dashboard.rstrip('/')}/#/runs/details/{{run}}"
            task.set_env_variable(environment.RUN_PAGE, page)
        machine = target.machine(kind)
        _set_resources(task, machine)
        _set_pod(task, target, machine)
        if target.data_claim and kind == "ingest" and isinstance(configs.dataset, DirectoryDataset):
            from kfp import kubernetes

            kubernetes.mount_pvc(task, target.data_claim, str(configs.dataset.path))

    return configure_task


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
    """Adds Kubernetes settings. Vertex AI rejects compiled files that have any."""
    from kfp import kubernetes

    if target.pull:
        kubernetes.set_image_pull_policy(task, target.pull)
    for name, field in target.pod_fields.items():
        kubernetes.use_field_path_as_env(task, name, field)
    for name, variables in {**target.secrets, **machine.secrets}.items():
        # Optional, since a pod would wait forever for a missing secret, whereas a step reports it.
        kubernetes.use_secret_as_env(task, name, variables, optional=True)
    for key, value in machine.node_selector.items():
        kubernetes.add_node_selector(task, key, value)
    for taint in machine.tolerations:
        kubernetes.add_toleration(task, taint.key, taint.operator, taint.value, taint.effect)
    if machine.shared_memory:
        kubernetes.empty_dir_mount(
            task, "shared-memory", "/dev/shm", medium="Memory", size_limit=machine.shared_memory
        )
