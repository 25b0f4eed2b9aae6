"""The containers of a run's steps: how kfp.local's process starts one, and how all of a run's are removed.

It has few imports, since every run waits for them.
"""

import os
import sys
from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.errors import APIError
    from docker.models.containers import Container

LABEL = "brain-tumor.run"


class ContainerOrder(TypedDict):
    """The common settings of a run's containers."""

    label: str
    """The label that identifies them."""
    user: str
    """`user:group`, as numbers."""
    network: str
    """`none`, or `host` if a step needs the network."""
    mounts: dict[str, str]
    """Folders and files mounted at the same path, with their mode: `ro` or `rw`."""
    variables: list[str]
    """The names of this process's variables that a step gets. Their values are never stored."""


def run_container(
    order: ContainerOrder,
    client: "DockerClient",
    image: str,
    command: list[str],
    volumes: dict[str, Any],
    environment: dict[str, str] | None = None,
) -> int:
    """Runs a step, with its output on stdout; replaces kfp.local's function.

    kfp.local's function lets the engine remove a container at its end, and treats one that is removed before
    its status was read as a success.

    Returns:
        The step's exit status; 1 if its container was removed before the end.
    """
    from docker.errors import APIError

    inherited = {name: os.environ[name] for name in order["variables"] if name in os.environ}
    try:
        container = client.containers.run(
            image,
            command,
            detach=True,
            environment={**(environment or {}), **inherited},
            volumes={
                **volumes,
                **{path: {"bind": path, "mode": mode} for path, mode in order["mounts"].items()},
            },
            user=order["user"],
            network_mode=order["network"],
            labels={LABEL: order["label"]},
            read_only=True,
            tmpfs={"/tmp": "mode=1777"},
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
        )
        for part in container.logs(stream=True, follow=True):
            sys.stdout.buffer.write(part)
            sys.stdout.buffer.flush()
        status = int(container.wait()["StatusCode"])
        _remove(container)
    except APIError as error:
        if not _is_removed(error):
            raise
        print("The step's container was removed before its end.", flush=True)
        return 1
    return status


def remove_containers(label: str) -> None:
    """Ends and removes a run's remaining containers."""
    import docker

    client = docker.from_env()
    try:
        for container in client.containers.list(
            all=True, ignore_removed=True, filters={"label": f"{LABEL}={label}"}
        ):
            _remove(container)
    finally:
        client.close()


def _remove(container: "Container") -> None:
    from docker.errors import APIError

    try:
        container.remove(force=True)
    except APIError as error:
        if not _is_removed(error):
            raise


def _is_removed(error: "APIError") -> bool:
    """Whether the container was removed (404) or is being removed (409) by another process."""
    return error.status_code in (404, 409)
