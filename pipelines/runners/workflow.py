"""Argo's workflow of a run, from Kubeflow Pipelines: the states of the steps' pods.

The API's list of a run's tasks has neither a pod's step nor the reason why it waits. Here a task of the
pipeline is three nodes: `<task>-driver`, a pod that looks up the cache; `<task>`; and below that `executor`,
the step's pod, skipped if it is cached. Whatever may be retried is a node of type Retry and one more per
attempt, with a number. By the workflow defaults of Kubeflow Pipelines 2.17.0 that is every level:
`brain-tumor-x(0).root(0).ingest(0).executor(0)`. See compiler/argocompiler in kubeflow/pipelines.
"""

import base64
import gzip
import json
import re
from datetime import datetime
from functools import cached_property
from typing import Any

from pipelines.runners.steps import Step

Node = dict[str, Any]
FAILED = ("Failed", "Error")
ATTEMPT = re.compile(r"\(\d+\)(?=\.|$)")


class Workflow:
    """See the module.

    Args:
        manifest: The workflow's manifest with its status, JSON.

    Attributes:
        name: Its name in Kubernetes.
        namespace: The namespace of its pods.
        message: Argo's message, such as the reason for a failure.
        terminated: Whether someone terminated it.
    """

    def __init__(self, manifest: str) -> None:
        content = json.loads(manifest)
        self._metadata, status = content["metadata"], content.get("status", {})
        self.name: str = self._metadata["name"]
        self.namespace: str = self._metadata.get("namespace", "")
        self.message: str = status.get("message", "")
        self.terminated: bool = content.get("spec", {}).get("activeDeadlineSeconds") == 0
        if packed := status.get("compressedNodes"):  # of more than a megabyte
            status["nodes"] = json.loads(gzip.decompress(base64.b64decode(packed)))
        # By their paths without the attempts' numbers, the oldest first.
        self._nodes: dict[str, list[Node]] = {}
        for node in sorted((status.get("nodes") or {}).values(), key=lambda node: str(node.get("startedAt"))):
            self._nodes.setdefault(ATTEMPT.sub("", node["name"]), []).append(node)

    def step(self, task: str) -> Step:
        """A task's state."""
        driver, whole = self._node(f"{task}-driver"), self._node(task)
        executor = self._node(f"{task}.executor")
        pods = self._pods(f"{task}.executor") or self._pods(f"{task}-driver")
        pod = pods[-1] if pods else {}
        why, name = str(pod.get("message", "")), self._pod_name(pod) if pod else ""
        began, ended = (_seconds(pod.get(key)) for key in ("startedAt", "finishedAt"))
        failures = tuple(str(node.get("message", "")) for node in pods[:-1] if node.get("phase") in FAILED)
        if any(node.get("phase") in FAILED for node in (driver, whole, executor)):
            return Step("failed", began, ended, why, name, failures)
        match executor.get("phase"):
            case "Skipped":
                ended = _seconds(executor.get("finishedAt"))
                return Step("cached", ended, ended)
            case "Succeeded":
                return Step("done", _seconds(pods[0].get("startedAt")), ended, why, name, failures)
        match pod.get("phase"):
            case "Pending":
                return Step("pending", began, 0.0, why, name, failures)
            case "Running" if executor:
                return Step("running", began, 0.0, why, name, failures)
        return Step()

    def driver(self) -> Step:
        """The state of the run's own driver, without which no step begins: pending, or done."""
        nodes = self._nodes.get(f"{self.name}.root-driver", [])
        pending = [node for node in nodes if node["type"] == "Pod" and node.get("phase") == "Pending"]
        if not pending:
            return Step("done")
        why = str(pending[-1].get("message", ""))
        return Step("pending", _seconds(pending[-1].get("startedAt")), 0.0, why, self._pod_name(pending[-1]))

    def failed_pod(self) -> Step:
        """The first pod that failed, even if it is not a task's, such as the driver of the run."""
        failed = [node for nodes in self._nodes.values() for node in nodes if node["type"] == "Pod"]
        failed = [node for node in failed if node.get("phase") in FAILED]
        if not failed:
            return Step()
        first = min(failed, key=lambda node: str(node.get("finishedAt")))
        began, ended = (_seconds(first.get(key)) for key in ("startedAt", "finishedAt"))
        return Step("failed", began, ended, str(first.get("message", "")), self._pod_name(first))

    @cached_property
    def executions(self) -> dict[str, "Execution"]:
        """The executions of the steps that were not cached, by task."""
        found = {}
        for path, nodes in self._nodes.items():
            task = path.removeprefix(f"{self.name}.root.").split(".")[0]
            patches = [_parameter(node, "pod-spec-patch") for node in nodes if ".executor" in path]
            if any(patches):
                patch = json.loads([each for each in patches if each][-1])
                found[task] = Execution(patch, self._node(f"{task}.executor").get("phase") == "Succeeded")
        return found

    def _node(self, path: str) -> Node:
        """A node as a whole, not an attempt; the newest, where what it is nested in was repeated."""
        found = self._nodes.get(f"{self.name}.root.{path}", [])
        wholes = [node for node in found if not node["name"].endswith(")")]
        return wholes[-1] if wholes else {}

    def _pods(self, path: str) -> list[Node]:
        """The attempts of a pod, in order."""
        found = self._nodes.get(f"{self.name}.root.{path}", [])
        return [node for node in found if node["type"] == "Pod"]

    def _pod_name(self, node: Node) -> str:
        """The pod's name by Argo's rule (RetrievePodName in Kubeflow's common/util/workflow.go)."""
        annotations = self._metadata.get("annotations") or {}
        if annotations.get("workflows.argoproj.io/pod-name-format") == "v1":
            return str(node["id"])
        return f"{self.name}-{node['templateName']}-{node['id'].rsplit('-', 1)[-1]}"


class Execution:
    """The inputs and outputs of a started step.

    Args:
        pod: The pod spec patch from Kubeflow's driver.
        succeeded: Whether it succeeded.

    Attributes:
        succeeded: See above.
        inputs: The addresses of its input artifacts, by name.
        outputs: The addresses of its output artifacts, by name.
        parameters: Its parameters.
        image: The image that it runs in.
    """

    def __init__(self, pod: dict[str, Any], succeeded: bool) -> None:
        [main] = [container for container in pod["containers"] if container["name"] == "main"]
        command = main["command"]
        content = json.loads(command[command.index("--executor_input") + 1])
        inputs = content.get("inputs", {})
        self.succeeded = succeeded
        self.inputs = _addresses(inputs)
        self.outputs = _addresses(content.get("outputs", {}))
        self.parameters: dict[str, Any] = inputs.get("parameterValues", {})
        self.image: str = main["image"]


def _addresses(content: dict[str, Any]) -> dict[str, str]:
    """The addresses of artifacts; this pipeline has no lists of artifacts."""
    lists = content.get("artifacts", {})
    return {name: found["artifacts"][0]["uri"] for name, found in lists.items() if found.get("artifacts")}


def _parameter(node: Node, name: str) -> str:
    parameters = (node.get("inputs") or {}).get("parameters") or []
    return next((str(each.get("value", "")) for each in parameters if each["name"] == name), "")


def _seconds(time: str | None) -> float:
    return datetime.fromisoformat(time).timestamp() if time else 0.0
