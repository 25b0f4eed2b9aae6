"""kfp.local's process, which `local.py` starts: runs a compiled pipeline, and writes its result.

It has few imports, since every run waits for them.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

from pipelines.runners.containers import ContainerOrder, remove_containers, run_container

ORDER, ANSWER = "order.json", "answer.json"
POLL = 0.1
# Seconds that a step gets to end by itself before it is killed: the duration of a batch.
GRACE = 10.0


def main() -> None:
    """kfp.local's process. Its argument is the run's folder."""
    from kfp import local
    from kfp.components import load_component_from_file

    folder = Path(sys.argv[1])
    order = json.loads((folder / ORDER).read_text())
    containers = order["containers"]
    # A signal to the group is meant for the steps; unlike SIG_IGN, a handler is not inherited by them.
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    threading.Thread(target=_end_with_runner, args=[folder], daemon=True).start()
    # kfp.local warns that a display name has no effect and that the image is not a Python image.
    warnings.filterwarnings("ignore", module=r"kfp\.local")
    local.init(
        _container_runner(containers) if containers else local.SubprocessRunner(use_venv=False),
        pipeline_root=order["pipeline_root"],
        # Otherwise kfp.local makes one, which stays if it is killed.
        workspace_root=str(folder / "workspace"),
        cache_root=order["cache_root"],
        enable_caching=order["enable_caching"],
    )
    try:
        task = load_component_from_file(order["compiled"])(**order["parameters"])
    except RuntimeError as error:  # a step failed, and kfp.local says which
        _answer(folder, {}, str(error))
        raise SystemExit(1) from None
    artifacts = {name: artifact.path for name, artifact in task.outputs.items()}
    _answer(folder, artifacts)


def _container_runner(order: ContainerOrder) -> Any:
    """kfp.local's container runner, patched to use `run_container`."""
    from kfp import local
    from kfp.local import docker_task_handler

    docker_task_handler.run_docker_container = partial(run_container, order)
    return local.DockerRunner()


def _answer(folder: Path, artifacts: dict[str, str], failure: str = "") -> None:
    draft = folder / f".{ANSWER}"
    draft.write_text(json.dumps({"artifacts": artifacts, "failure": failure}))
    os.replace(draft, folder / ANSWER)


def _end_with_runner(folder: Path) -> None:
    """Waits for the end of the runner, then ends the containers and this process's group."""
    os.read(sys.stdin.fileno(), 1)
    end_containers(folder)
    end_group(os.getpgrp())


def end_containers(folder: Path) -> None:
    """Removes a run's containers, if it has any.

    Args:
        folder: The run's folder.
    """
    order = folder / ORDER
    containers = json.loads(order.read_text()).get("containers") if order.is_file() else None
    if containers:
        remove_containers(containers["label"])


def end_group(group: int, leader: subprocess.Popen[bytes] | None = None) -> None:
    """Ends all processes of a group: with SIGTERM first, later with SIGKILL."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        _signal(group, number)
        deadline = time.monotonic() + GRACE
        while time.monotonic() < deadline:
            if leader:
                leader.poll()  # otherwise it would stay as a zombie process
            if not _signal(group, 0):
                return
            time.sleep(POLL)


def _signal(group: int, number: int) -> bool:
    """Sends a signal (0 for none) to a group; False if the group is empty."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    main()
