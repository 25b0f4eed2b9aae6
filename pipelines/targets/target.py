"""The schema of the target files in this folder."""

import json
import re
from pathlib import Path
from typing import Annotated, Literal

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import Field, model_validator
from yaml import YAMLError

from brain_tumor.config import (
    DirectoryDataset,
    Schema,
    StepConfigs,
    from_json,
)
from brain_tumor.config.fields import CountOrZero
from brain_tumor.runtime.errors import InputError

TARGETS = Path(__file__).parent
Kind = Literal["ingest", "build_tfrecords", "train", "evaluate", "label_curves", "visualize", "gate"]
# The steps that need no TensorFlow; the others run in the image `cpu`, or `gpu` if they get GPUs.
DATA_STEPS: set[Kind] = {"ingest", "label_curves", "visualize"}

Cores = Annotated[str, Field(pattern=r"^(\d+(\.\d+)?m?)?$")]
Bytes = Annotated[str, Field(pattern=r"^(\d+(\.\d+)?([EPTGMK]i?)?)?$")]
Secrets = dict[str, dict[str, str]]


class Toleration(Schema):
    """A taint that a step's pod tolerates."""

    key: str = ""
    """The taint's key; empty for all keys."""
    operator: Literal["Equal", "Exists"] = "Exists"
    """`Equal` tolerates only taints with the given value, `Exists` those with any value."""
    value: str = ""
    """The taint's value."""
    effect: Literal["NoExecute", "NoSchedule", "PreferNoSchedule"] | None = None
    """The taint's effect; all effects if it is not given."""


class Placement(Schema):
    """The resources and the node that a kind of step needs. Ignored by local runners."""

    cpu: Cores = ""
    """Requested cores, such as 4 or 500m."""
    cpu_limit: Cores = ""
    """Limit of cores, in the same format."""
    memory: Bytes = ""
    """Requested memory, such as 16Gi."""
    memory_limit: Bytes = ""
    """Limit of memory; a step that uses more is killed."""
    gpus: CountOrZero = 0
    """The number of GPUs."""
    gpu_type: str = "nvidia.com/gpu"
    """The name of the GPU resource: Kubernetes's, or Vertex AI's, such as NVIDIA_L4."""
    node_selector: dict[str, str] = {}
    """Required labels of nodes."""
    tolerations: list[Toleration] = []
    """Taints that the pod tolerates."""
    shared_memory: Bytes = ""
    """Size of /dev/shm, such as 2Gi; the default is 64 MB."""
    secrets: Secrets = {}
    """Secrets that only this kind of step gets, see `Target.secrets`."""


class Target(Schema):
    """A target: the content of a file in this folder."""

    runner: Literal["local", "docker", "kubeflow", "vertex"]
    """The kind of runner."""
    name: str = ""
    """The target's name: the name of its file."""
    host: str = ""
    """The address of Kubeflow Pipelines' API."""
    namespace: str = ""
    """The namespace of the runs, in a multi-user Kubeflow."""
    dashboard: str = ""
    """The address of Kubeflow's dashboard, for links; by default that of the API."""
    mlflow: str = ""
    """The address of MLflow, for links."""
    project: str = ""
    """The Google Cloud project of Vertex AI."""
    location: str = ""
    """The Google Cloud region of Vertex AI."""
    service_account: str = ""
    """The steps' service account; the project's default if it is not given."""
    pipeline_root: str = ""
    """The bucket address for artifacts; Kubeflow has its own default."""
    image: str = Field(pattern=r"\{tag\}")
    """The images' name; {tag} is replaced by the hash of their sources, {stage} by `data`, `cpu` or `gpu`."""
    gpu_stage: Literal["gpu", "cpu"] = "gpu"
    """The image of a step that gets GPUs; `cpu` if the nodes only simulate them."""
    caching: bool = True
    """Whether steps are cached."""
    retries: CountOrZero = 0
    """The number of retries of a failed step. The target's file says which failures are retried."""
    pull: Literal["", "Always", "IfNotPresent", "Never"] = ""
    """Kubernetes's image pull policy; its default if it is not given."""
    environment: dict[str, str] = {}
    """Environment variables of every step."""
    pod_fields: dict[str, str] = {}
    """Environment variables of every step that are set from fields of its pod, such as the run's id."""
    secrets: Secrets = {}
    """Kubernetes secrets by name, with the environment variable for each of their keys. All are optional: a
    step that needs a missing one reports it."""
    data_claim: str = ""
    """The persistent volume claim with the folder of `dataset=directory`, if the cluster has one."""
    placement: dict[Kind, Placement] = {}
    """The placement of each kind of step."""

    @model_validator(mode="after")
    def _check_vertex(self) -> "Target":
        if self.runner != "vertex":
            return self
        machines = self.placement.values()
        own = {name: getattr(self, name) for name in ("pull", "pod_fields", "secrets", "data_claim")}
        for name in ("node_selector", "tolerations", "shared_memory", "secrets"):
            own[f"placement.{name}"] = any(getattr(machine, name) for machine in machines)
        for name, given in own.items():
            if given:
                raise ValueError(f"has {name}, which is only for Kubernetes; Vertex AI does not support it")
        for kind, machine in self.placement.items():
            if machine.gpus and not machine.gpu_type.startswith("NVIDIA_"):
                raise ValueError(
                    f"has placement.{kind}.gpu_type={machine.gpu_type}; give a Vertex AI name such as "
                    "NVIDIA_L4"
                )
        return self

    def machine(self, kind: Kind) -> Placement:
        """The placement of a kind of step."""
        return self.placement.get(kind, Placement())

    def image_of(self, kind: Kind, tag: str) -> str:
        """The image that a kind of step runs in.

        Args:
            kind: The kind of step.
            tag: The images' tag.
        """
        with_tensorflow = self.gpu_stage if self.machine(kind).gpus else "cpu"
        stage = "data" if kind in DATA_STEPS else with_tensorflow
        return self.image.replace("{stage}", stage).replace("{tag}", tag)

    def check_reachable(self, configs: StepConfigs) -> None:
        """Rejects a configuration with local paths, if the steps run on other machines.

        Raises:
            InputError: The path of the data set, of weights or for published models is local.
        """
        if self.runner in ("local", "docker"):
            return
        reason = f"which steps on {self.runner} cannot reach"
        if isinstance(configs.dataset, DirectoryDataset) and not self.data_claim:
            raise InputError(
                f"dataset.path={configs.dataset.path} is a folder on this machine, {reason}; copy it to a "
                "bucket and give dataset=bucket dataset.uri=<its address>."
            )
        for name, training in configs.trainings.items():
            weights, publish_to = training.model.weights, training.phase.publish_to
            paths = {f"phases.{name}.publish_to": publish_to}
            if weights not in ("imagenet", "none"):
                paths["model.weights"] = weights
            for key, path in paths.items():
                if path and "://" not in path:
                    raise InputError(
                        f"{key}={path} is a path on this machine, {reason}; give an address in a bucket, "
                        "such as s3://bucket/folder."
                    )


def load_target(name: str, folder: Path = TARGETS) -> Target:
    """Reads a target's file.

    Raises:
        InputError: The target does not exist, its file is not valid, or an environment variable that it needs
            is not set.
    """
    path = folder / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.yaml")))
        raise InputError(f"The target {name} does not exist; choose one of {known}.")
    try:
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        raise InputError(f"{path} is not YAML at line {line}; correct it.") from None
    except OmegaConfBaseException as error:
        missing = re.search(r"Environment variable '(\w+)' not found", str(error))
        if missing is None:
            raise InputError(f"{path} cannot be read: {str(error).splitlines()[0]}; correct it.") from None
        raise InputError(
            f"The target {name} needs {missing[1]}; set it, as in make pipeline-run TARGET={name} "
            f"{missing[1]}=... ({path.name} describes it)."
        ) from None
    return from_json(Target, json.dumps(content), path.name).model_copy(update={"name": name})
