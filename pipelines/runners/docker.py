"""Runs the compiled pipeline on a local Docker Engine: like `local.py`, but with one container per step.

A container sees the runs' folder, the data set's folder (read-only) and nothing else of this machine's disk;
it runs as the user who starts the run, with a read-only file system except /tmp. It has a network only if the
configuration names something that is not on this machine's disk, and then the host's: a tracking server on
127.0.0.1 is reachable. Otherwise MLflow's store and the checkpoints are in the runs' folder.
"""

import os
from pathlib import Path
from typing import Any, get_args

from brain_tumor.config import BucketDataset, DirectoryDataset, RoboflowDataset
from brain_tumor.runtime import environment
from brain_tumor.runtime.errors import InputError
from pipelines.runners.containers import ContainerOrder
from pipelines.runners.local import LocalRunner, scratch
from pipelines.runners.runner import Job
from pipelines.targets.target import Kind

# Variables with addresses and credentials that a step may need, in addition to the run's own.
PASSED_ON = (
    "ROBOFLOW_API_KEY",
    "API_URL",
    "MLFLOW_TRACKING_URI",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GOOGLE_CLOUD_PROJECT",
    "STORAGE_EMULATOR_HOST",
)
CREDENTIALS_FILE = "GOOGLE_APPLICATION_CREDENTIALS"


class DockerRunner(LocalRunner):
    """See the module."""

    def submit(self, job: Job) -> None:
        """Starts kfp.local's process.

        Raises:
            InputError: No engine answers, or it lacks an image.
        """
        check_images(sorted({job.target.image_of(kind, job.tag) for kind in get_args(Kind)}))
        super().submit(job)

    def _order(self, job: Job) -> dict[str, Any]:
        containers = ContainerOrder(
            label=str(self._folder),
            user=f"{os.getuid()}:{os.getgid()}",
            network="host" if needs_network(job) else "none",
            mounts=_mounts(job, scratch(self._folder)),
            variables=[*self._variables(job), *PASSED_ON],
        )
        return {**super()._order(job), "containers": containers}


def check_images(images: list[str]) -> None:
    """Checks that the engine has images.

    Raises:
        InputError: The engine does not respond, or lacks an image.
    """
    import docker
    from docker.errors import DockerException, ImageNotFound

    try:
        client = docker.from_env()
    except DockerException:
        where = os.environ.get("DOCKER_HOST", "its usual place")
        raise InputError(
            f"No Docker Engine answers at {where}; start one, or set DOCKER_HOST to where it is."
        ) from None
    try:
        for image in images:
            client.images.get(image)
    except ImageNotFound:
        raise InputError(f"The Docker Engine has no image {image}; run make images.") from None
    finally:
        client.close()


def needs_network(job: Job) -> bool:
    """Whether a run reads or writes anything that is not on this machine's disk."""
    configs = job.configs
    places = [
        os.environ.get("MLFLOW_TRACKING_URI", "").removeprefix("sqlite:"),
        os.environ.get(environment.CHECKPOINTS, ""),
        *(str(training.phase.publish_to or "") for training in configs.trainings.values()),
    ]
    return (
        isinstance(configs.dataset, RoboflowDataset | BucketDataset)
        or any(training.model.weights == "imagenet" for training in configs.trainings.values())
        or any("://" in place for place in places)
    )


def _mounts(job: Job, temporary: Path) -> dict[str, str]:
    mounts = {str(job.runs): "rw", str(temporary): "rw"}
    read = [training.model.weights for training in job.configs.trainings.values()]
    read = [weights for weights in read if weights not in ("imagenet", "none")]
    if isinstance(job.configs.dataset, DirectoryDataset):
        read.append(str(job.configs.dataset.path))
    if credentials := os.environ.get(CREDENTIALS_FILE):
        read.append(credentials)
    return mounts | {str(Path(path).absolute()): "ro" for path in read}
