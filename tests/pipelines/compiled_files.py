"""Reads a compiled pipeline as a server does: strictly, into the protocol's messages."""

from pathlib import Path
from typing import Any

import yaml
from google.protobuf import json_format
from kfp.kubernetes.kubernetes_executor_config_pb2 import KubernetesExecutorConfig
from kfp.pipeline_spec import pipeline_spec_pb2


def read_spec(path: Path) -> Any:
    """The pipeline's message (PipelineSpec). Unknown fields are errors."""
    return json_format.ParseDict(_documents(path)[0], pipeline_spec_pb2.PipelineSpec())


def read_platform(path: Path) -> dict[str, KubernetesExecutorConfig]:
    """The Kubernetes settings of each executor, by its name; empty if the file has none."""
    documents = _documents(path)
    if len(documents) == 1:
        return {}
    json_format.ParseDict(documents[1], pipeline_spec_pb2.PlatformSpec())
    executors = documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    return {
        name: json_format.ParseDict(content, KubernetesExecutorConfig())
        for name, content in executors.items()
    }


def unresolved(spec: Any) -> list[str]:
    """Unresolved references of a pipeline: components, executors, tasks, their outputs, parameters."""
    executors = set(spec.deployment_spec["executors"])
    dag, missing = spec.root.dag, []
    labels = {name: component.executor_label for name, component in spec.components.items()}
    missing += [f"executor {label}" for label in labels.values() if label not in executors]
    outputs = {
        name: spec.components[task.component_ref.name].output_definitions.artifacts
        for name, task in dag.tasks.items()
        if task.component_ref.name in spec.components
    }
    for name, task in dag.tasks.items():
        inputs = spec.components[task.component_ref.name].input_definitions
        if name not in outputs:
            missing.append(f"{name}: component {task.component_ref.name}")
        missing += [f"{name}: task {other}" for other in task.dependent_tasks if other not in dag.tasks]
        for key, source in task.inputs.artifacts.items():
            output = source.task_output_artifact
            known = output.output_artifact_key in outputs.get(output.producer_task, {})
            if not known or output.producer_task not in task.dependent_tasks or key not in inputs.artifacts:
                missing.append(f"{name}: artifact {key}")
        for key, parameter in task.inputs.parameters.items():
            root = parameter.component_input_parameter
            if (root and root not in spec.root.input_definitions.parameters) or key not in inputs.parameters:
                missing.append(f"{name}: parameter {key}")
    for key, selected in dag.outputs.artifacts.items():
        for selector in selected.artifact_selectors:
            if selector.output_artifact_key not in outputs.get(selector.producer_subtask, {}):
                missing.append(f"output {key}")
    return missing


def _documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))
