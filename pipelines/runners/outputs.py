"""The addresses of a Kubeflow run's artifacts, including cached ones.

A step's arguments contain the addresses of its inputs and outputs (`Execution`). A cached step was not
started: its outputs are the inputs of a step that was, or the outputs of an earlier run's step with the same
parameters, image and inputs. The metadata store has them too, but is not reachable from outside the cluster.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from pipelines.runners.workflow import Execution, Workflow

# If an administrator has Kubeflow store logs, each step has them as an output.
LOGS = "executor-logs"


class Outputs:
    """See the module.

    Args:
        spec: The compiled pipeline (PipelineSpec).
        parameters: The run's parameters.
        run: The run.
        earlier: Earlier runs of the same pipeline, the newest first; read only if needed.
    """

    def __init__(
        self, spec: dict[str, Any], parameters: dict[str, Any], run: Workflow, earlier: Iterable[Workflow]
    ) -> None:
        self._tasks: dict[str, Any] = spec["root"]["dag"]["tasks"]
        self._components = spec["components"]
        self._executors = spec["deploymentSpec"]["executors"]
        self._parameters = parameters
        self._run = run
        self._unread = iter(earlier)
        self._read: list[Execution] = []
        self._found: dict[str, Execution | None] = {}

    def address(self, task: str, output: str) -> str:
        """The address of a task's output; empty if it is not known."""
        known = self._known(task, output)
        if known is not None:
            return known
        if task not in self._found:
            self._found[task] = next((each for each in self._executions() if self._did(each, task)), None)
        found = self._found[task]
        return found.outputs.get(output, "") if found else ""

    def _known(self, task: str, output: str) -> str | None:
        """The address of a task's output by what this run has started; None if that does not tell."""
        if started := self._run.executions.get(task):
            return started.outputs.get(output, "")
        for name, consumer in self._tasks.items():
            for key, source in consumer.get("inputs", {}).get("artifacts", {}).items():
                taken = source["taskOutputArtifact"]
                execution = self._run.executions.get(name)
                if execution and (taken["producerTask"], taken["outputArtifactKey"]) == (task, output):
                    return execution.inputs[key]
        return None

    def _did(self, execution: Execution, task: str) -> bool:
        """Whether an earlier run's step may be the one whose outputs a cached task has.

        If several runs did the same, the cache may have taken any of them: inputs are compared with the
        outputs of all that qualify, not with the newest one's.
        """
        component = self._components[self._tasks[task]["componentRef"]["name"]]
        sources = self._tasks[task].get("inputs", {})
        parameters = {
            name: self._parameters[source["componentInputParameter"]]
            if "componentInputParameter" in source
            else source["runtimeValue"]["constant"]
            for name, source in sources.get("parameters", {}).items()
        }
        artifacts = {
            name: source["taskOutputArtifact"] for name, source in sources.get("artifacts", {}).items()
        }
        return (
            execution.succeeded
            and execution.image == self._executors[component["executorLabel"]]["container"]["image"]
            and execution.parameters == parameters
            and set(execution.outputs) - {LOGS} == set(component["outputDefinitions"]["artifacts"])
            and set(execution.inputs) == set(artifacts)
            and all(
                self._may_be(taken["producerTask"], taken["outputArtifactKey"], execution.inputs[name])
                for name, taken in artifacts.items()
            )
        )

    def _may_be(self, task: str, output: str, address: str) -> bool:
        """Whether an address may be that of a task's output."""
        known = self._known(task, output)
        if known is not None:
            return known == address
        return any(
            each.outputs.get(output) == address and self._did(each, task) for each in self._executions()
        )

    def _executions(self) -> Iterator[Execution]:
        """The executions of the earlier runs; each run is requested once."""
        place = 0
        while True:
            while place >= len(self._read):
                run = next(self._unread, None)
                if run is None:
                    return
                self._read += run.executions.values()
            yield self._read[place]
            place += 1
