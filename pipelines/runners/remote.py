"""What runs elsewhere have in common: what is copied of them to this machine, and what is said of them."""

import re
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, TypeVar

import yaml

from brain_tumor.runtime.errors import InputError
from brain_tumor.runtime.events import Event
from brain_tumor.stores.folders import download_file, download_folder
from brain_tumor.stores.paths import open_path
from pipelines.pipeline import ABOUT
from pipelines.runners.connection import UnreachableError
from pipelines.runners.runner import Run
from pipelines.targets.target import Target

T = TypeVar("T")

DEFAULTS = "defaults"
# Seconds that a server may be away while a run is followed.
PATIENCE = 300.0
# What a run's result needs, by the pipeline's name of the output. Of the data set it is what it says of
# itself alone, since the images can be gigabytes.
FOLDERS = ("evaluation", "predictions")
PAGES = ("gallery", "data_report")
DATASET = "dataset"
MANIFEST = "manifest.json"
# What is to be done about addresses that only the cluster knows.
IN_CLUSTER = (
    " It is in the cluster's own store: forward its port (kubectl port-forward -n kubeflow svc/seaweedfs "
    "9000:9000) and set AWS_ENDPOINT_URL=http://127.0.0.1:9000 with its AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY."
)


def wanted_addresses(spec: dict[str, Any], address: Callable[[str, str], str]) -> dict[str, str]:
    """The addresses of what a run's result needs, by its name.

    Args:
        spec: The compiled pipeline.
        address: Gives that of a task's output; empty if it is not known.

    Raises:
        InputError: One is not known.
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
    # The same step's other output, which the pipeline does not hand on.
    found["data_report"] = f"{found[DATASET].rpartition('/')[0]}/data_report"
    return found


def download(run: Run, addresses: dict[str, str]) -> dict[str, Path]:
    """Copies what a run's result needs to where a local run's artifacts are.

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
            found = _copy(name, address, copies[name])
        except InputError as error:
            inside = IN_CLUSTER if address.startswith("minio://") else ""
            raise InputError(f"The run has succeeded, but {error}{inside}{again}") from None
        if not found:
            raise InputError(f"There is nothing at {address}, where the run's {name} was; was it deleted?")
    return copies


def _copy(name: str, address: str, copy: Path) -> bool:
    # Kubeflow's own name for the S3 server in its cluster.
    path = open_path(re.sub("^minio://", "s3://", address))
    if name in FOLDERS:
        return bool(download_folder(path, copy))
    if name == DATASET:
        copy.mkdir(parents=True, exist_ok=True)
        return download_file(path / MANIFEST, copy / MANIFEST)
    copy.parent.mkdir(parents=True, exist_ok=True)
    return download_file(path, copy)


def known_run(name: str, target: Target, documents: list[Any], parameters: dict[str, Any], runs: Path) -> Run:
    """A run as its server knows it.

    Args:
        name: Its name.
        target: Where it runs.
        documents: The compiled pipeline's.
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
    """Asks a server about a run; if it is away for a while, that is told once.

    Args:
        ask: Asks it.
        run: The run.
        pause: Seconds between two attempts.

    Returns:
        Its answer (of the generator).

    Raises:
        InputError: It stays away, or refuses.
    """
    begun, told = time.monotonic(), False
    while True:
        try:
            return ask()
        except UnreachableError as error:
            if time.monotonic() - begun >= PATIENCE:
                raise InputError(f"{error} Meanwhile {goes_on(run)}.") from None
            if not told:
                yield Event("message", "", f"{error} Trying again.")
            told = True
            time.sleep(pause)
        except InputError as error:
            raise InputError(f"{error} Meanwhile {goes_on(run)}.") from None


def mlflow_link(target: Target) -> dict[str, str]:
    """Where a person sees what was tracked, if the target says so."""
    return {"MLflow": target.mlflow} if target.mlflow else {}


def goes_on(run: Run) -> str:
    """What becomes of a run that nobody follows, as a part of a sentence."""
    target = run.target.name
    again = f"make pipeline-follow TARGET={target} RUN={run.name} follows it again"
    return f"the run {run.name} continues; {again}"


def tell_submitted(run: Run, link: str) -> None:
    """Says where a run is seen, as soon as it is there."""
    print(f"{run.name}: {link}", file=sys.stderr, flush=True)
