"""Submits the compiled pipeline to Kubeflow Pipelines (2.17), and follows the run there."""

import json
import re
import time
from collections.abc import Callable, Generator, Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from brain_tumor.runtime.errors import InputError
from brain_tumor.runtime.events import Event
from brain_tumor.runtime.step import BAD_INPUT
from pipelines.display import read_documents, read_tasks
from pipelines.pipeline import NAME
from pipelines.runners import remote
from pipelines.runners.connection import TIMEOUT, UnknownRunError, open_client, os_errors_explained
from pipelines.runners.outputs import Outputs
from pipelines.runners.runner import Job, Result, Run
from pipelines.runners.steps import Step, Teller
from pipelines.runners.workflow import Workflow
from pipelines.targets.target import Target

if TYPE_CHECKING:
    from kfp_server_api import V2beta1Run

T = TypeVar("T")

POLL = 3.0
# Seconds without a change after which the pods' states are read again: the reason for waiting may have
# changed.
LOOK_AGAIN = 30.0
# Seconds that a step may be pending without a known reason.
LONG_PENDING = 120.0
FINAL = ("SUCCEEDED", "FAILED", "SKIPPED", "CANCELED")
ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# The number of earlier runs that are searched for cached results.
EARLIER_RUNS = 100
# Argo's message about a step's container that has written one of its own.
SAID = re.compile(rf"main: Error \(exit code \d+\): ({BAD_INPUT})?(.*\S.*)", re.DOTALL)
# The scheduler's words where a node has what a pod asks for, but other pods use it.
IN_USE = "No preemption victims found"
PULLED = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")


class KubeflowRunner:
    """See the module."""

    def __init__(self) -> None:
        self._id = ""
        self._workflow: Workflow | None = None
        self._bad_input = False

    def submit(self, job: Job) -> None:
        """Starts the run.

        Raises:
            InputError: The server does not respond, or rejects the run, or the result could not be read. Then
                nothing runs.
        """
        self._connect(job.target)
        remote.check_store(job.target)
        import kfp_server_api as api

        documents = read_documents(job.compiled)
        parts = dict(zip(("pipeline_spec", "platform_spec"), documents, strict=False))
        run = api.V2beta1Run(
            experiment_id=self._experiment(),
            display_name=job.name,
            pipeline_spec=parts if len(documents) > 1 else documents[0],
            runtime_config=api.V2beta1RuntimeConfig(
                parameters=job.parameters, pipeline_root=job.target.pipeline_root or None
            ),
        )
        with os_errors_explained(job.target):
            found = self._runs.run_service_create_run(run=run, _request_timeout=TIMEOUT)
        self._take(job, found)

    def attach(self, run: str, target: Target, runs: Path) -> tuple[Run, datetime]:
        """Finds a run that was submitted before."""
        self._connect(target)
        with os_errors_explained(target, f"run {run} in Kubeflow Pipelines at {target.host}"):
            found = self._get(run) if ID.fullmatch(run) else self._find(run)
        content = found.pipeline_spec
        documents = list(content.values()) if "pipeline_spec" in content else [content]
        parameters = (found.runtime_config.parameters or {}) if found.runtime_config else {}
        known = remote.known_run(found.display_name, target, documents, parameters, runs)
        self._take(known, found)
        self._last = found
        return known, found.created_at

    def ended(self) -> bool:
        """Whether the run that was attached to had ended by then."""
        return self._last.state in FINAL

    def follow(self) -> Iterator[Event]:
        """The steps' events."""
        tasks = read_tasks(self._run.compiled)
        teller, seen, looked = Teller(tasks), None, 0.0
        while True:
            run = yield from self._patiently(lambda: self._get(self._id))
            details = (run.run_details.task_details if run.run_details else None) or []
            # Among them are the metadata store's executions, which have neither name nor state.
            now = (run.state, sorted((task.task_id, task.state or "") for task in details))
            if details and (now != seen or time.monotonic() - looked >= LOOK_AGAIN):
                seen, looked = now, time.monotonic()
                self._workflow = yield from self._patiently(lambda: self._read_workflow(self._id))
                steps = {name: self._workflow.step(name) for name in tasks}
                yield from teller.tell(steps)
                yield from _say_what_is_retried(teller, steps)
                yield from self._say_what_waits(teller, steps | {"": self._workflow.driver()})
            if run.state in FINAL:
                break
            time.sleep(POLL)
        self._last = run
        if self._workflow and run.state != "SUCCEEDED" and not self._workflow.terminated:
            yield from self._say_what_failed(self._workflow, tasks, steps)

    def result(self) -> Result:
        """The run's result, with copies of the needed artifacts if it succeeded.

        Raises:
            InputError: It succeeded, but its artifacts cannot be read.
        """
        links = {"Kubeflow": self._link()} | remote.mlflow_link(self._target)
        about: dict[str, Any] = {"run_id": self._id}
        seconds = (self._last.finished_at - self._last.created_at).total_seconds()
        if self._last.state == "SUCCEEDED" and self._workflow:
            spec = read_documents(self._run.compiled)[0]
            outputs = Outputs(spec, self._run.parameters, self._workflow, self._earlier_runs())
            about["addresses"] = remote.wanted_addresses(spec, outputs.address)
            copies = remote.download(self._run, about["addresses"])
            return Result(copies, seconds=seconds, about=about, links=links)
        if self._last.state == "CANCELED" or (self._workflow and self._workflow.terminated):
            return Result({}, "The run was terminated", killed=True, links=links)
        why = self._workflow.message if self._workflow else "no pod was started"
        return Result(
            {}, f"Kubeflow says: {why or self._last.state}.", bad_input=self._bad_input, links=links
        )

    def interrupted(self) -> str:
        """What happens to the run."""
        return remote.still_running(self._run) if self._id else "nothing was submitted"

    def close(self) -> None:
        """Does nothing: the run is not on this machine."""

    def _connect(self, target: Target) -> None:
        """Opens a client and checks the server.

        Raises:
            InputError: It is not Kubeflow Pipelines, or needs a namespace.
        """
        import kfp_server_api as api

        self._target, self._client = target, open_client(target)
        self._runs, self._experiments = (
            api.RunServiceApi(self._client),
            api.ExperimentServiceApi(self._client),
        )
        with os_errors_explained(target):
            try:
                health = api.HealthzServiceApi(self._client).healthz_service_get_healthz(
                    _request_timeout=TIMEOUT
                )
                several = health.multi_user
            except AttributeError:  # the response is an HTML page
                raise InputError(
                    f"What answers at {target.host} is not the API of Kubeflow Pipelines; check the address."
                ) from None
        if several and not target.namespace:
            raise InputError(
                f"The Kubeflow at {target.host} has several users; say whose runs they are: "
                "KF_PIPELINES_NAMESPACE=<your namespace>."
            )

    def _experiment(self) -> str:
        """The id of the runs' experiment, which is created if needed."""
        import kfp_server_api as api

        where = {"namespace": self._target.namespace} if self._target.namespace else {}
        with os_errors_explained(self._target):
            if found := self._find_experiment(where):
                return found
            new = api.V2beta1Experiment(display_name=NAME, **where)
            try:
                made = self._experiments.experiment_service_create_experiment(
                    experiment=new, _request_timeout=TIMEOUT
                )
                return str(made.experiment_id)
            except api.ApiException as error:
                # Another process created it in the meantime.
                if error.status == 409 and (found := self._find_experiment(where)):
                    return found
                raise

    def _find_experiment(self, where: dict[str, str]) -> str:
        found = self._experiments.experiment_service_list_experiments(
            filter=_called(NAME), _request_timeout=TIMEOUT, **where
        ).experiments
        return str(found[0].experiment_id) if found else ""

    def _take(self, run: Run, found: "V2beta1Run") -> None:
        self._run, self._id = run, str(found.run_id)
        remote.tell_submitted(run, self._link())

    def _get(self, run_id: str) -> "V2beta1Run":
        return self._runs.run_service_get_run(run_id=run_id, _request_timeout=TIMEOUT)

    def _find(self, name: str) -> "V2beta1Run":
        """The newest run with a name."""
        found = self._list(1, filter=_called(name))
        if not found:
            raise UnknownRunError(
                f"There is no run {name} in Kubeflow Pipelines at {self._target.host}; give the name or the "
                f"id of one that its list shows: {self._dashboard()}/#/runs."
            )
        return self._get(found[0].run_id)

    def _list(self, count: int, **options: str) -> list["V2beta1Run"]:
        where = {"namespace": self._target.namespace} if self._target.namespace else {}
        answer = self._runs.run_service_list_runs(
            page_size=count, sort_by="created_at desc", _request_timeout=TIMEOUT, **where, **options
        )
        return answer.runs or []

    def _read_workflow(self, run_id: str) -> Workflow:
        """Argo's workflow of a run. Only version 1 of the API has it."""
        answer = self._client.call_api(
            "/apis/v1beta1/runs/{run_id}",
            "GET",
            path_params={"run_id": run_id},
            header_params={"Accept": "application/json"},
            response_type="object",
            auth_settings=["Bearer"],
            _return_http_data_only=True,
            _request_timeout=TIMEOUT,
        )
        return Workflow(answer["pipeline_runtime"]["workflow_manifest"])

    def _earlier_runs(self) -> Iterator[Workflow]:
        """The finished runs before this one, the newest first."""
        with os_errors_explained(self._target):
            for run in self._list(EARLIER_RUNS):
                if run.run_id != self._id and run.run_details:
                    yield self._read_workflow(run.run_id)

    def _patiently(self, ask: Callable[[], T]) -> Generator[Event, None, T]:
        def explained() -> T:
            with os_errors_explained(self._target, f"run {self._id} in Kubeflow Pipelines any more"):
                return ask()

        return (yield from remote.patiently(explained, self._run, POLL))

    def _say_what_waits(self, teller: Teller, steps: dict[str, Step]) -> Iterator[Event]:
        """Reports why pods cannot start, and what to do: the run would wait forever."""
        others_run = any(
            step.state == "running" or (step.state == "pending" and not step.why.startswith("Unschedulable"))
            for step in steps.values()
        )
        for name, step in steps.items():
            if step.state != "pending":
                continue
            reason = step.why.partition(":")[0]
            if reason == "Unschedulable" and others_run:
                text = f"waits until another step ends: no node has room for it now ({step.why})"
                yield from teller.say(name, "room", text)
            elif text := _explain_waiting(reason, step.why, self._target):
                yield from teller.say(name, reason, text)
            elif time.time() - step.began >= LONG_PENDING and not teller.has_said(name):
                look = self._kubectl("describe pod", step)
                text = f"pending for {LONG_PENDING / 60:.0f} minutes; {look} says why"
                yield from teller.say(name, "", text)

    def _say_what_failed(
        self, workflow: Workflow, tasks: dict[str, Any], steps: dict[str, Step]
    ) -> Iterator[Event]:
        """Reports the first failed step, or else the first failed pod, and fetches its log."""
        failed = [(step.ended, name) for name, step in steps.items() if step.state == "failed"]
        name = min(failed)[1] if failed else ""
        step = steps[name] if name else workflow.failed_pod()
        if step.state != "failed":
            return
        # A step's sentence is its last word; in its log, the launcher's own lines bury it.
        text, self._bad_input = _sentence(step.why)
        if "OOMKilled" in step.why:
            text = (
                "it was out of memory; give it more (placement, memory_limit) in "
                f"pipelines/targets/{self._target.name}.yaml."
            )
        if not self._fetch_log(step) and not text:
            text = (
                f"{step.why or 'no reason is known'}; {self._kubectl('logs -c main', step)} may have its log."
            )
        yield Event("failed", tasks[name].title if name else "", text, time=step.ended)

    def _fetch_log(self, step: Step) -> bool:
        """Writes a step's log to the same place as a local run's; False if the log no longer exists."""
        path = "/apis/v1alpha1/runs/{run_id}/nodes/{pod}/log"
        with os_errors_explained(self._target):
            answer = self._client.call_api(
                path,
                "GET",
                path_params={"run_id": self._id, "pod": step.pod},
                auth_settings=["Bearer"],
                _preload_content=False,
                _request_timeout=TIMEOUT,
            )
            self._run.log.parent.mkdir(parents=True, exist_ok=True)
            with open(self._run.log, "wb") as log:
                for part in answer.stream(1 << 16):
                    log.write(part)
                size = log.tell()
        # The server sends status 200 before it looks for the log.
        with open(self._run.log, "rb") as log:
            there = size and not log.read(20).startswith(b'{"error_message"')
        if not there:
            self._run.log.unlink()
        return bool(there)

    def _kubectl(self, what: str, step: Step) -> str:
        assert self._workflow, "read"
        return f"kubectl {what} -n {self._workflow.namespace} {step.pod}"

    def _dashboard(self) -> str:
        return (self._target.dashboard or self._target.host).rstrip("/")

    def _link(self) -> str:
        return f"{self._dashboard()}/#/runs/details/{self._id}"


def _sentence(why: str) -> tuple[str, bool]:
    """A step's own last words from Argo's message, empty if it has none, and whether its input was bad."""
    said = SAID.match(why)
    return (said[2].strip(), bool(said[1])) if said else ("", False)


def _say_what_is_retried(teller: Teller, steps: dict[str, Step]) -> Iterator[Event]:
    """Reports the failed attempts of steps that were started again."""
    for name, step in steps.items():
        for attempt, why in enumerate(step.failures, start=1):
            reason = (_sentence(why)[0] or why or "no reason is known").rstrip(".")
            text = f"attempt {attempt} failed and is repeated: {reason}"
            yield from teller.say(name, f"attempt {attempt}", text)


def _called(name: str) -> str:
    """The API's filter for a name."""
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": "display_name", "string_value": name}]})


def _explain_waiting(reason: str, why: str, target: Target) -> str:
    """The reason why a pod waits for a person's action; empty if there is none."""
    if reason in PULLED:
        return f"waits: its image cannot be pulled ({why}); push it (make images-push), and the step starts"
    if reason == "CreateContainerConfigError":
        return f"waits: a secret, or one of its keys, is missing ({why}); create it, and the step starts"
    if reason == "Unschedulable" and IN_USE in why:
        return (
            f"waits until other pods end: no node has room for it now ({why}); add a node if it should start "
            "sooner"
        )
    if reason == "Unschedulable":
        return (
            f"waits: no node has what it asks for ({why}); add one, or ask for less in "
            f"pipelines/targets/{target.name}.yaml"
        )
    return ""
