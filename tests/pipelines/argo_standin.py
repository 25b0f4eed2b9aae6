"""The runs of the stand-in for Kubeflow Pipelines: they advance a little at each request.

A run is reported as by Argo Workflows 4.0.5: nodes, phases, messages (operator.go: getPendingReason,
inferFailedReason), pod names, and what Kubeflow's driver writes into a pod. Node names are those of a real
server: with Kubeflow's workflow defaults every level is a Retry node and an attempt. A cache like that of the
driver decides which steps are skipped; `store` uploads the outputs of the steps. See
backend/src/v2/compiler/argocompiler, backend/src/v2/driver and backend/src/common/util/workflow.go in
kubeflow/pipelines 2.17.0.
"""

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

BEGIN = datetime(2026, 5, 4, 13, 2, 1, tzinfo=UTC)
# The time between two moments of a run.
PACE = timedelta(seconds=10)
FINAL = ("Succeeded", "Skipped", "Failed")
STATES = {"Pending": "PENDING", "Running": "RUNNING", "Succeeded": "SUCCEEDED", "Skipped": "SKIPPED"}
STATES |= {"Failed": "FAILED", "Error": "FAILED", "Omitted": "RUNTIME_STATE_UNSPECIFIED"}


@dataclass
class Fault:
    """A simulated fault of a step.

    Attributes:
        message: Argo's message about its pod.
        waits: The number of moments for which the pod is pending with that message before it continues.
        fails: Whether it fails with that message.
        log: The pod's log; None if the pod is deleted.
        attempts: Argo's messages about its earlier attempts, which failed.
    """

    message: str
    waits: int = 0
    fails: bool = False
    log: str | None = None
    attempts: tuple[str, ...] = ()


@dataclass
class Play:
    """A run that advances by a moment at each request."""

    body: dict[str, Any]
    spec: Any
    cache: dict[str, dict[str, str]]
    faults: dict[str, Fault]
    store: Callable[[str, str, str], None]
    terminate_at: int = 0
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    moment: int = 0
    stages: dict[str, list[str]] = field(default_factory=dict)
    times: dict[str, dict[str, datetime]] = field(default_factory=dict)
    outputs: dict[str, dict[str, str]] = field(default_factory=dict)
    state: str = "PENDING"

    @property
    def name(self) -> str:
        """The workflow's name."""
        return f"brain-tumor-{self.id[:5]}"

    @property
    def now(self) -> datetime:
        return BEGIN + self.moment * PACE

    def advance(self) -> None:
        """Advances by a moment: each step that can, by one stage."""
        if self.state in ("SUCCEEDED", "FAILED"):
            return
        self.moment += 1
        if self.terminate_at and self.moment >= self.terminate_at:
            self.state = "CANCELING" if self.moment == self.terminate_at else "FAILED"
            return
        driver = self.faults.get("root-driver", Fault(""))
        if driver.fails and self.moment > 1:
            self.state = "FAILED"
            return
        self.state = "RUNNING"
        if self.moment <= driver.waits:
            return
        done = [name for name, stages in self.stages.items() if stages[-1] in ("Succeeded", "Skipped")]
        failed = [name for name, stages in self.stages.items() if stages[-1] == "Failed"]
        for name, task in self.spec.root.dag.tasks.items():
            goes_on = self.stages.get(name, ["driver"])[-1] not in FINAL
            if goes_on and all(other in done for other in task.dependent_tasks):
                self._advance(name)
        if len(done) == len(self.spec.root.dag.tasks):
            self.state = "SUCCEEDED"
        elif failed and all(stages[-1] in FINAL for stages in self.stages.values()):
            self.state = "FAILED"

    def _advance(self, name: str) -> None:
        stages, times = self.stages.setdefault(name, []), self.times.setdefault(name, {})
        fault = self.faults.get(name, Fault(""))
        if not stages:
            following = "driver"
        elif stages[-1] == "driver":
            enabled = self.spec.root.dag.tasks[name].caching_options.enable_cache
            cached = self.cache.get(self._key(name)) if enabled else None
            following = "Skipped" if cached else "Pending"
            self.outputs[name] = cached or self._new_outputs(name)
        elif stages[-1] == "Pending":
            following = "Pending" if stages.count("Pending") <= fault.waits else "Running"
        else:
            following = "Failed" if fault.fails else "Succeeded"
        if following == "Succeeded":
            self.cache[self._key(name)] = self.outputs[name]
            for output, uri in self.outputs[name].items():
                self.store(name, output, uri)
        stages.append(following)
        times.setdefault(following, self.now)

    def _new_outputs(self, name: str) -> dict[str, str]:
        root = self.body.get("runtime_config", {}).get("pipeline_root") or "minio://mlpipeline/v2/artifacts"
        component = self.spec.components[self.spec.root.dag.tasks[name].component_ref.name]
        folder = f"{root}/{self.spec.pipeline_info.name}/{self.id}/{name}/{uuid.uuid4()}"
        return {output: f"{folder}/{output}" for output in component.output_definitions.artifacts}

    def _inputs(self, name: str) -> tuple[dict[str, Any], dict[str, str]]:
        """A task's parameters, and the addresses of its input artifacts."""
        task, given = self.spec.root.dag.tasks[name], self.body["runtime_config"]["parameters"]
        parameters = {
            key: given[each.component_input_parameter]
            if each.component_input_parameter
            else each.runtime_value.constant.string_value
            for key, each in task.inputs.parameters.items()
        }
        sources = {key: each.task_output_artifact for key, each in task.inputs.artifacts.items()}
        artifacts = {
            key: self.outputs[each.producer_task][each.output_artifact_key] for key, each in sources.items()
        }
        return parameters, artifacts

    def _container(self, name: str) -> Any:
        label = self.spec.components[self.spec.root.dag.tasks[name].component_ref.name].executor_label
        return self.spec.deployment_spec["executors"][label]["container"]

    def _key(self, name: str) -> str:
        """The cache key, see cacheutils/cache.go."""
        container = self._container(name)
        command = [*container["command"], *container["args"]]
        return json.dumps([container["image"], command, *self._inputs(name)], sort_keys=True)

    def _pod_spec_patch(self, name: str) -> str:
        parameters, artifacts = self._inputs(name)
        content = {
            "inputs": {"parameterValues": parameters, "artifacts": _artifacts(artifacts)},
            "outputs": {
                "artifacts": _artifacts(self.outputs[name]),
                "outputFile": "/minio/output_metadata.json",
            },
        }
        launcher = ["/kfp-launcher/launch", "--pipeline_name", "brain-tumor", "--run_id", self.id]
        launcher += ["--executor_input", json.dumps(content), "--component_spec", "{}", "--"]
        main = {"name": "main", "image": self._container(name)["image"], "command": launcher}
        return json.dumps({"containers": [main]})

    def nodes(self) -> dict[str, dict[str, Any]]:
        """Argo's nodes, by their ids."""
        found = {}

        def add(path: str, kind: str, phase: str, template: str, **more: Any) -> dict[str, Any]:
            name = ".".join([self.name, *path.split(".")] if path else [self.name])
            name = name.replace(".", "(0).").replace("(0)(0)", "(0)")
            node = {
                "id": self._node_id(name),
                "name": name,
                "displayName": path.rsplit(".", 1)[-1] or self.name,
                "type": kind,
                "phase": phase,
                "templateName": template,
                **more,
            }
            found[node["id"]] = node
            return node

        whole = {"SUCCEEDED": "Succeeded", "FAILED": "Failed"}.get(self.state, "Running")
        began = {"startedAt": _iso(BEGIN)}
        add("", "Retry", whole, "entrypoint", **began)
        fault = self.faults.get("root-driver")
        if fault and (fault.fails or self.moment <= fault.waits):
            outer, phase = ("Failed", "Failed") if fault.fails else ("Running", "Pending")
            about = {
                **began,
                "message": fault.message,
                **({"finishedAt": _iso(self.now)} if fault.fails else {}),
            }
            add("root-driver", "Retry", outer, "system-dag-driver", **began)
            add("root-driver(0)", "Pod", phase, "system-dag-driver", **about)
            return found
        add("root-driver", "Retry", "Succeeded", "system-dag-driver", **began)
        add("root-driver(0)", "Pod", "Succeeded", "system-dag-driver", **began)
        add("root", "Retry", whole, "root", **began)
        add("root(0)", "DAG", whole, "root", **began)
        for name, stages in self.stages.items():
            self._add_task(name, stages, add)
        return found

    def _add_task(self, name: str, stages: list[str], add: Callable[..., Any]) -> None:
        times, last = self.times[name], stages[-1]
        ended = self.state == "FAILED"
        phase = "Running" if last == "driver" else "Succeeded"
        driver = {"startedAt": _iso(times["driver"])}
        add(f"root.{name}-driver", "Retry", phase, "system-container-driver", **driver)
        add(f"root.{name}-driver(0)", "Pod", phase, "system-container-driver", **driver)
        if last == "driver":
            return
        final = last in FINAL
        finished = {"finishedAt": _iso(times[last] if final else self.now)} if final or ended else {}
        outer = {"Succeeded": "Succeeded", "Skipped": "Succeeded", "Failed": "Failed"}.get(last, "Running")
        outer = "Failed" if ended and outer == "Running" else outer
        for path, kind in ((f"root.{name}", "Retry"), (f"root.{name}(0)", "DAG")):
            template = "retry-system-container-executor"
            add(path, kind, outer, template, startedAt=_iso(times["driver"]), **finished)
        if last == "Skipped":
            add(f"root.{name}.executor", "Skipped", "Skipped", "system-container-impl", **finished)
            return
        fault = self.faults.get(name, Fault(""))
        message = fault.message if last == "Failed" else ""
        if last == "Pending":
            message = fault.message if stages.count("Pending") <= fault.waits else "PodInitializing"
        if ended and not final:
            last, message = "Failed", "Pod was active on the node longer than the specified deadline"
        inputs = {"parameters": [{"name": "pod-spec-patch", "value": self._pod_spec_patch(name)}]}
        began = _iso(times.get("Running", times["Pending"]))
        about = {"startedAt": began, "message": message, "inputs": inputs, **finished}
        outer = last if last in ("Succeeded", "Failed") else "Running"
        template = "retry-system-container-impl"
        add(f"root.{name}.executor", "Retry", outer, template, **about)
        for attempt, why in enumerate(fault.attempts):
            failed = {"startedAt": _iso(times["Pending"]), "finishedAt": began, "message": why}
            add(f"root.{name}.executor({attempt})", "Pod", "Failed", template, **failed)
        add(f"root.{name}.executor({len(fault.attempts)})", "Pod", last, template, **about)

    def _node_id(self, name: str) -> str:
        """Argo's node id: the workflow's name and the FNV-1a hash of the node's name."""
        if name == self.name:
            return name
        hashed = 0x811C9DC5
        for byte in name.encode():
            hashed = (hashed ^ byte) * 0x01000193 & 0xFFFFFFFF
        return f"{self.name}-{hashed}"

    def log_of(self, pod: str) -> str | None:
        """The log of a pod with Argo's name; None if there is no such pod."""
        for node in self.nodes().values():
            name = f"{self.name}-{node['templateName']}-{node['id'].rsplit('-', 1)[-1]}"
            if node["type"] == "Pod" and name == pod:
                task = node["name"].split(".")[1:3][-1].removesuffix("(0)")
                return self.faults[task].log if task in self.faults else "a log\n"
        return None

    def manifest(self) -> str:
        spec = {"activeDeadlineSeconds": 0} if self.terminate_at and self.moment >= self.terminate_at else {}
        return json.dumps(
            {
                "apiVersion": "argoproj.io/v1alpha1",
                "kind": "Workflow",
                "metadata": {"name": self.name, "namespace": "kubeflow"},
                "spec": spec,
                "status": {"phase": self.state.title(), "nodes": self.nodes()},
            }
        )

    def answer(self) -> dict[str, Any]:
        """The run as returned by version 2 of the API."""
        details = [
            {
                "run_id": self.id,
                "task_id": str(uuid.uuid4()),
                "display_name": node["displayName"],
                "state": STATES[node["phase"]],
                "start_time": node.get("startedAt"),
            }
            for node in (self.nodes().values() if self.moment > 1 else [])
        ]
        # The list includes the metadata store's executions, without name and state.
        details += [
            {"run_id": self.id, "task_id": str(uuid.uuid4()), "execution_id": "2"} for _ in details[:2]
        ]
        final = self.state in ("SUCCEEDED", "FAILED")
        return {
            **self.body,
            "run_id": self.id,
            "state": self.state,
            "created_at": _iso(BEGIN),
            "finished_at": _iso(self.now if final else datetime.fromtimestamp(0, UTC)),
            **({"run_details": {"task_details": details}} if details else {}),
        }


def _artifacts(addresses: dict[str, str]) -> dict[str, Any]:
    return {name: {"artifacts": [{"name": name, "uri": uri}]} for name, uri in addresses.items()}


def _iso(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")
