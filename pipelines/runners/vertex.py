"""Submits the compiled pipeline to Vertex AI Pipelines, and follows the run there.

It uses Google's application default credentials.
"""

import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from brain_tumor.runtime.errors import InputError
from brain_tumor.runtime.events import Event
from brain_tumor.runtime.text import display_name
from pipelines.display import read_documents, read_tasks
from pipelines.runners import remote
from pipelines.runners.connection import UnknownRunError, UnreachableError
from pipelines.runners.runner import Job, Result, Run
from pipelines.runners.steps import State, Step, Teller
from pipelines.targets.target import Target

POLL = 15.0
STATES: dict[str, State] = {
    "PENDING": "pending",
    "RUNNING": "running",
    "SUCCEEDED": "done",
    "SKIPPED": "cached",
    "FAILED": "failed",
}
FINAL = ("SUCCEEDED", "FAILED", "CANCELLED", "PAUSED")
CONSOLE = "https://console.cloud.google.com"


class VertexRunner:
    """See the module."""

    _run: Run

    def __init__(self) -> None:
        self._job: Any = None

    def submit(self, job: Job) -> None:
        """Starts the run.

        Raises:
            InputError: Google's library is not installed, or the service rejects the run. Then nothing runs.
        """
        self._run = job
        platform = _import_platform()
        with _refusals_explained(job.target):
            pipeline = platform.PipelineJob(
                display_name=job.name,
                template_path=str(job.compiled),
                job_id=_job_id(job.name),
                pipeline_root=job.target.pipeline_root,
                parameter_values=job.parameters,
                project=job.target.project,
                location=job.target.location,
            )
            pipeline.submit(service_account=job.target.service_account or None)
        self._job = pipeline
        remote.tell_submitted(job, self._link())

    def attach(self, run: str, target: Target, runs: Path) -> tuple[Run, datetime]:
        """Finds a run that was submitted before."""
        platform = _import_platform()
        with _refusals_explained(target, run):
            self._job = platform.PipelineJob.get(
                _job_id(run), project=target.project, location=target.location
            )
        content = self._job.to_dict()
        parameters = content["runtimeConfig"].get("parameterValues", {})
        documents = [content["pipelineSpec"]]
        self._run = remote.known_run(content["displayName"], target, documents, parameters, runs)
        remote.tell_submitted(self._run, self._link())
        return self._run, datetime.fromisoformat(content["createTime"])

    def ended(self) -> bool:
        """Whether the run that was attached to had ended by then."""
        return self._job.gca_resource.state.name.removeprefix("PIPELINE_STATE_") in FINAL

    def follow(self) -> Iterator[Event]:
        """The steps' events."""
        tasks = read_tasks(self._run.compiled)
        teller = Teller(tasks)
        while True:
            yield from remote.patiently(self._read, self._run, POLL)
            steps = {name: _step(self._details[name]) for name in tasks if name in self._details}
            yield from teller.tell(steps)
            if self._state in FINAL:
                break
            time.sleep(POLL)
        failed = [(step.ended, name) for name, step in steps.items() if step.state == "failed"]
        if failed:
            ended, name = min(failed)
            yield Event("failed", tasks[name].title, self._explain(name), time=ended)

    def result(self) -> Result:
        """The run's result, with copies of the needed artifacts if it succeeded.

        Raises:
            InputError: It succeeded, but its artifacts cannot be read.
        """
        links = {"Vertex": self._link()} | remote.mlflow_link(self._run.target)
        if self._state == "SUCCEEDED":
            spec = read_documents(self._run.compiled)[0]
            addresses = remote.wanted_addresses(spec, self._address)
            about = {"run_id": self._job.resource_name, "addresses": addresses}
            copies = remote.download(self._run, addresses)
            resource = self._job.gca_resource
            seconds = (resource.end_time - resource.create_time).total_seconds()
            return Result(copies, seconds=seconds, about=about, links=links)
        if self._state != "FAILED":
            return Result({}, "The run was cancelled", killed=True, links=links)
        why = display_name(self._job.gca_resource.error.message.strip() or "no reason")
        return Result({}, f"Vertex AI says: {why}", links=links)

    def interrupted(self) -> str:
        """What happens to the run."""
        return remote.still_running(self._run) if self._job else "nothing was submitted"

    def close(self) -> None:
        """Does nothing: the run is not on this machine."""

    def _read(self) -> None:
        """Requests the run's state."""
        with _refusals_explained(self._run.target):
            self._details = {each.task_name: each for each in self._job.task_details}
        self._state = self._job.gca_resource.state.name.removeprefix("PIPELINE_STATE_")

    def _address(self, task: str, output: str) -> str:
        found = self._details[task].outputs.get(output) if task in self._details else None
        return str(found.artifacts[0].uri) if found else ""

    def _explain(self, name: str) -> str:
        """The service's message about a failed step, and the link to its log."""
        details = self._details[name]
        job = details.executor_detail.container_detail.main_job.rpartition("/")[-1]
        query = quote(f'resource.labels.job_id="{job}"', safe="")
        log = f"{CONSOLE}/logs/query;query={query}?project={self._run.target.project}"
        why = details.error.message.strip() or "Vertex AI does not say why"
        return f"{display_name(why)}\nLog: {log if job else self._link()}"

    def _link(self) -> str:
        target = self._run.target
        where = f"locations/{target.location}/pipelines/runs/{_job_id(self._run.name)}"
        return f"{CONSOLE}/vertex-ai/{where}?project={target.project}"


def _import_platform() -> Any:
    """Imports Google's library, which takes seconds.

    Raises:
        InputError: It is not installed.
    """
    try:
        from google.cloud import aiplatform
    except ImportError:
        raise InputError(
            "The target's runner needs Google's library for Vertex AI; install it: "
            ".venv/bin/pip install --require-hashes -r requirements/vertex.txt"
        ) from None
    # Hides its log lines per request. If it cannot find the bucket's owner, it logs a traceback and
    # continues; the service reports then whether it can write there.
    logging.getLogger("google.cloud.aiplatform").setLevel(logging.CRITICAL)
    return aiplatform


def _job_id(name: str) -> str:
    """A run's id, made from its name: lower case letters, digits and hyphens."""
    return re.sub("[^a-z0-9]+", "-", f"brain-tumor-{name}".lower()).strip("-")


def _step(details: Any) -> Step:
    began, ended = (_seconds(details, key) for key in ("start_time", "end_time"))
    return Step(STATES.get(details.state.name, "waiting"), began, ended)


def _seconds(details: Any, key: str) -> float:
    return float(getattr(details, key).timestamp()) if key in details else 0.0


@contextmanager
def _refusals_explained(target: Target, run: str = "") -> Iterator[None]:
    """Turns the service's errors into one sentence.

    Raises:
        UnreachableError: The service does not respond, or fails.
        InputError: The service rejects the request.
    """
    from google.api_core import exceptions
    from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError

    where = f"project {target.project}, region {target.location}"
    try:
        yield
    except DefaultCredentialsError:
        raise InputError(
            "Vertex AI needs Google credentials: run gcloud auth application-default login, or set "
            "GOOGLE_APPLICATION_CREDENTIALS to the path of a key file."
        ) from None
    except (GoogleAuthError, exceptions.Unauthorized) as error:
        raise InputError(
            f"Google does not accept these credentials ({type(error).__name__}); log in again."
        ) from None
    except exceptions.Forbidden as error:
        raise InputError(
            f"Vertex AI refuses this in {where} ({display_name(error.message)}); enable its API there, and "
            "give who asks the roles Vertex AI User, and Service Account User for the service_account."
        ) from None
    except exceptions.NotFound:
        what = f"run {run}" if run else "such project, region or service account"
        message = f"There is no {what} in Vertex AI ({where}); check the target's file."
        raise (UnknownRunError(message) if run else InputError(message)) from None
    except exceptions.ClientError as error:
        raise InputError(
            f"Vertex AI does not take this ({display_name(error.message)}); correct it."
        ) from None
    except (exceptions.ServerError, exceptions.RetryError, OSError) as error:
        raise UnreachableError(f"Vertex AI does not answer ({type(error).__name__}); try again.") from None
