"""The addresses of a Kubeflow run's artifacts, including cached ones.

A step's arguments contain the addresses of its inputs and outputs (`Execution`). A cached step was not
started: its outputs are the inputs of a step that was, or the outputs of an earlier run's step with the same
parameters, image and inputs. The metadata store has them too, but is not reachable from outside the cluster.
"""

from collections.abc import Iterable
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
        self._found: dict[str, dict[str, str] | None] = {}

    def address(self, task: str, output: str) -> str:
        """The address of a task's output; empty if it is not known."""
        for name, consumer in self._tasks.items():
            for key, source in consumer.get("inputs", {}).get("artifacts", {}).items():
                taken = source["taskOutputArtifact"]
                execution = self._run.executions.get(name)
                if execution and (taken["producerTask"], taken["outputArtifactKey"]) == (task, output):
                    return execution.inputs[key]
        return (self._outputs(task) or {}).get(output, "")

    def _outputs(self, task: str) -> dict[str, str] | None:
        if task not in self._found:
            started = self._run.executions.get(task)
            self._found[task] = started.outputs if started else self._earlier_outputs(task)
        return self._found[task]

    def _earlier_outputs(self, task: str) -> dict[str, str] | None:
        """The outputs of an earlier run's step that did the same."""
        component = self._components[self._tasks[task]["componentRef"]["name"]]
        names = set(component["outputDefinitions"]["artifacts"])
        image = self._executors[component["executorLabel"]]["container"]["image"]
        sources = self._tasks[task].get("inputs", {})
        parameters = {
            name: self._parameters[source["componentInputParameter"]]
            if "componentInputParameter" in source
            else source["runtimeValue"]["constant"]
            for name, source in sources.get("parameters", {}).items()
        }
        inputs = {
            name: self.address(taken["producerTask"], taken["outputArtifactKey"])
            for name, source in sources.get("artifacts", {}).items()
            for taken in [source["taskOutputArtifact"]]
        }
        wanted = (image, parameters, inputs, names)
        for execution in self._executions():
            outputs = set(execution.outputs) - {LOGS}
            done = (execution.image, execution.parameters, execution.inputs, outputs)
            if execution.succeeded and done == wanted:
                return execution.outputs
        return None

    def _executions(self) -> Iterable[Execution]:
        """The executions of the earlier runs; each run is requested once."""
        yield from self._read
        for run in self._unread:
            found = list(run.executions.values())
            self._read += found
            yield from found
