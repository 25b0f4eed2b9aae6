"""Common functions for remote runs: copying of artifacts, and messages."""

import os
import re
import sys
import time
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import yaml

from brain_tumor.artifacts.dataset import IMAGES_TABLE
from brain_tumor.artifacts.folder import MANIFEST
from brain_tumor.runtime.errors import InputError
from brain_tumor.runtime.events import Event
from brain_tumor.stores.folders import download_file, download_folder
from brain_tumor.stores.paths import open_path
from pipelines.pipeline import ABOUT
from pipelines.runners.connection import UnreachableError
from pipelines.runners.dashboard import Dashboard
from pipelines.runners.runner import Run
from pipelines.targets.target import Target

T = TypeVar("T")

DEFAULTS = "defaults"
# Seconds that a server may be unreachable while a run is followed.
PATIENCE = 300.0
# The artifacts that a run's result needs, by the pipeline's name of the output. For the data set it is the
# manifest and the table of the images alone, since the images can be gigabytes.
FOLDERS = ("evaluation", "predictions")
PAGES = ("gallery", "data_report")
DATASET = "dataset"
# Advice for addresses that are only reachable in the cluster.
IN_CLUSTER = (
    " It is in the cluster's own store: forward the dashboard (kubectl port-forward -n kubeflow "
    "svc/ml-pipeline-ui 8080:80) and set KF_PIPELINES_UI_ENDPOINT=http://127.0.0.1:8080; or forward the "
    "store (svc/seaweedfs 9000:9000) and set AWS_ENDPOINT_URL=http://127.0.0.1:9000 with its "
    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
)
# The settings of boto3 that name an S3 server other than Amazon's.
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
CLUSTER_STORE = "minio://"


def wanted_addresses(spec: dict[str, Any], address: Callable[[str, str], str]) -> dict[str, str]:
    """The addresses of the artifacts that a run's result needs, by name.

    Args:
        spec: The compiled pipeline.
        address: Returns the address of a task's output; empty if it is unknown.

    Raises:
        InputError: An address is unknown.
    """
    producers = {
        name: (
            output["artifactSelectors"][0]["producerSubtask"],
            output["artifactSelectors"][0]["outputArtifactKey"],
        )
        for name, output in spec["root"]["dag"]["outputs"]["artifacts"].items()
    }
    found = {name: address(*producers[name]) for name in (*FOLDERS, "gallery", DATASET)}
    for name, place in found.items():
        if not place:
            raise InputError(
                f"Where the run's {name} lies is not known: its step was taken from the cache, and the "
                "earlier run that did it is not listed any more; run again with caching: false in the "
                "target's file."
            )
    # Another output of the same step, which is not an output of the pipeline.
    found["data_report"] = f"{found[DATASET].rpartition('/')[0]}/data_report"
    return found


def check_store(target: Target) -> None:
    """Checks before a run that the cluster's own store can be read after it: directly or by the dashboard.

    Raises:
        InputError: Neither is possible.
    """
    if target.pipeline_root and not target.pipeline_root.startswith(CLUSTER_STORE):
        return
    if dashboard := _dashboard(target):
        reason = "" if dashboard.answers() else f"there is no dashboard at {dashboard.host}"
    else:
        import botocore.session

        there = botocore.session.Session().get_credentials()
        reason = "" if there else "AWS_ENDPOINT_URL is set, but no key"
    if reason:
        raise InputError(f"The run's result could not be read, since {reason}.{IN_CLUSTER}")


def _dashboard(target: Target) -> Dashboard | None:
    """The dashboard, if the cluster's own store is not reachable by itself."""
    return None if any(os.environ.get(name) for name in ENDPOINTS) else Dashboard(target)


def download(run: Run, addresses: dict[str, str]) -> dict[str, Path]:
    """Copies the artifacts that a run's result needs to the folder of local runs' artifacts.

    Returns:
        The copies, by their names.

    Raises:
        InputError: The store cannot be read.
    """
    folder = run.runs / "artifacts" / run.name
    copies: dict[str, Path] = {}
    again = f" Then make pipeline-follow TARGET={run.target.name} RUN={run.name} shows the result."
    for name, address in addresses.items():
        copies[name] = (
            folder / address.rstrip("/").rsplit("/", 3)[-3] / address.rstrip("/").rsplit("/", 1)[-1]
        )
        try:
            inside = address.startswith(CLUSTER_STORE)
            dashboard = _dashboard(run.target) if inside else None
            copy = partial(_copy_by_dashboard, dashboard) if dashboard else _copy
            found = copy(name, address, copies[name])
        except InputError as error:
            advice = IN_CLUSTER if inside else ""
            raise InputError(f"The run has succeeded, but {error}{advice}{again}") from None
        if not found:
            raise InputError(f"There is nothing at {address}, where the run's {name} was; was it deleted?")
    return copies


def _copy(name: str, address: str, copy: Path) -> bool:
    # Kubeflow's own name for the S3 server in its cluster.
    path = open_path(re.sub(f"^{CLUSTER_STORE}", "s3://", address))
    if name in FOLDERS:
        return bool(download_folder(path, copy))
    if name == DATASET:
        copy.mkdir(parents=True, exist_ok=True)
        return all(download_file(path / part, copy / part) for part in (IMAGES_TABLE, MANIFEST))
    copy.parent.mkdir(parents=True, exist_ok=True)
    return download_file(path, copy)


def _copy_by_dashboard(dashboard: Dashboard, name: str, address: str, copy: Path) -> bool:
    if name in FOLDERS:
        return dashboard.copy_folder(address, copy)
    if name == DATASET:
        return all(dashboard.copy_file(f"{address}/{part}", copy / part) for part in (IMAGES_TABLE, MANIFEST))
    return dashboard.copy_file(address, copy)


def known_run(name: str, target: Target, documents: list[Any], parameters: dict[str, Any], runs: Path) -> Run:
    """Restores a run from its server's data.

    Args:
        name: Its name.
        target: Where it runs.
        documents: The documents of the compiled pipeline.
        parameters: The pipeline's parameters.
        runs: The folder of the runs.
    """
    if "root" not in documents[0] or ABOUT not in parameters:
        raise InputError(f"The run {name} is not one of this pipeline.")
    compiled = runs / "pipelines" / f"{name}.yaml"
    compiled.parent.mkdir(parents=True, exist_ok=True)
    compiled.write_text(yaml.safe_dump_all(documents))
    executors = documents[0]["deploymentSpec"]["executors"].values()
    tag = next(iter(executors))["container"]["image"].rpartition(":")[-1]
    about = str(parameters[ABOUT])
    overrides = [] if about == DEFAULTS else about.split()
    return Run(name, target, tag, compiled, parameters, overrides, runs)


def patiently(ask: Callable[[], T], run: Run, pause: float) -> Generator[Event, None, T]:
    """Requests a run's state; reports once if the server is unreachable for a while.

    Args:
        ask: Sends the request.
        run: The run.
        pause: Seconds between two attempts.

    Returns:
        The response (the generator's return value).

    Raises:
        InputError: The server stays unreachable, or rejects the request.
    """
    begun, told = time.monotonic(), False
    while True:
        try:
            return ask()
        except UnreachableError as error:
            if time.monotonic() - begun >= PATIENCE:
                raise InputError(f"{error} Meanwhile {still_running(run)}.") from None
            if not told:
                yield Event("message", "", f"{error} Trying again.")
            told = True
            time.sleep(pause)
        except InputError as error:
            raise InputError(f"{error} Meanwhile {still_running(run)}.") from None


def mlflow_link(target: Target) -> dict[str, str]:
    """The link to MLflow, if the target has one."""
    return {"MLflow": target.mlflow} if target.mlflow else {}


def still_running(run: Run) -> str:
    """What happens to a run that is not followed, as a part of a sentence."""
    target = run.target.name
    again = f"make pipeline-follow TARGET={target} RUN={run.name} follows it again"
    return f"the run {run.name} continues; {again}"


def tell_submitted(run: Run, link: str) -> None:
    """Prints the link to a run, once it is submitted."""
    print(f"{run.name}: {link}", file=sys.stderr, flush=True)
