"""Shows which steps a run would execute: `python -m pipelines.plan [OVERRIDE ...]`."""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate

from brain_tumor.configure import configure
from brain_tumor.runtime.errors import InputError
from brain_tumor.runtime.step import step
from pipelines.compile import parse_arguments
from pipelines.display import read_tasks
from pipelines.image import ROOT
from pipelines.run import prepare
from pipelines.runners.runner import Job
from pipelines.targets.target import load_target


@dataclass(frozen=True)
class Plan:
    """The plan for one step.

    Attributes:
        title: The step's display name.
        cached: Whether it would be a cache hit.
        why: The reason.
    """

    title: str
    cached: bool
    why: str


def plan(job: Job) -> list[Plan]:
    """Plans the steps of a run, by looking up their keys in kfp.local's cache.

    For a step that would run, the reason is the difference from the newest recorded run.

    Args:
        job: The run.

    Returns:
        The steps, in topological order.
    """
    from kfp.components import load_component_from_file
    from kfp.local import cache, graph_utils, io, utils
    from kfp.local.orchestrator.orchestrator_utils import OrchestratorUtils

    spec = load_component_from_file(str(job.compiled)).pipeline_spec
    # LocalCache creates its folder, which a plan must not do in the runs' folder.
    hits = cache.LocalCache(str(job.runs / "cache" if (job.runs / "cache").is_dir() else job.compiled.parent))
    store = io.IOStore()
    for name, value in job.parameters.items():
        store.put_parent_input(name, value)
    executors = spec.deployment_spec["executors"]
    tasks, last = read_tasks(job.compiled), _last_record(job.runs)
    plans: dict[str, Plan] = {}
    for name in reversed(graph_utils.topological_sort_tasks(spec.root.dag.tasks)):
        task, title = spec.root.dag.tasks[name], tasks[name].title
        first = next((plans[other] for other in tasks[name].after if not plans[other].cached), None)
        if first:
            plans[name] = Plan(title, False, f"after {first.title}")
            continue
        label = spec.components[task.component_ref.name].executor_label
        container = utils.struct_to_executor_spec(executors[label]).container
        key = hits.compute_key(
            component_name=task.component_ref.name,
            image=container.image,
            full_command=[*container.command, *container.args],
            arguments=OrchestratorUtils.make_task_arguments(task.inputs, store),
            env_vars={variable.name: variable.value for variable in container.env},
        )
        outputs = hits.get(key) if task.caching_options.enable_cache else None
        if outputs is None:
            plans[name] = Plan(title, False, _why(job, task, last))
            continue
        for output, value in outputs.items():
            store.put_task_output(name, output, value)
        plans[name] = Plan(title, True, "unchanged")
    return list(plans.values())


def _last_record(runs: Path) -> dict[str, Any]:
    """The newest run's record; empty if there is none. Records of earlier versions lack the parameters."""
    records = [json.loads(path.read_text()) for path in (runs / "history").glob("*.json")]
    comparable = [record for record in records if "parameters" in record]
    return max(comparable, key=lambda record: str(record["started"]), default={})


def _why(job: Job, task: Any, last: dict[str, Any]) -> str:
    """The reason why a step would run although all steps before it are cached."""
    if not job.target.caching:
        return "the target does not cache"
    if not task.caching_options.enable_cache:
        return "it runs in every run"
    if not last:
        return "there is no earlier run"
    if last["image"] != job.tag:
        return "the code, its packages or the image have changed"
    parameter = task.inputs.parameters["config"].component_input_parameter
    if not parameter:
        return "not cached"
    if parameter not in last["parameters"]:
        return f"{parameter} is new"
    before, now = (
        dict(_flatten(json.loads(parameters[parameter])))
        for parameters in (last["parameters"], job.parameters)
    )
    changes = [
        f"{key} {before.get(key, 'default')} -> {now.get(key, 'default')}"
        for key in sorted(before | now)
        if before.get(key) != now.get(key)
    ]
    return ", ".join(changes) or "never run before, or its result was deleted"


def _flatten(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found = []
    for key, value in values.items():
        found += _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else [(prefix + key, value)]
    return found


def main() -> None:
    """The command line: a table of the steps."""
    with step():
        name, overrides = parse_arguments("Show which steps a run would execute, and which are cached.")
        target = load_target(name)
        if target.runner != "local":
            raise InputError(f"The cache of the target {name} is on its servers; plan for the target local.")
        with tempfile.TemporaryDirectory() as folder:
            job = prepare(configure(overrides), overrides, ROOT / "runs", target, Path(folder))
            plans = plan(job)
        rows = [(each.title, "cached" if each.cached else "runs", each.why) for each in plans]
        print(tabulate(rows, headers=("step", "plan", "reason"), maxcolwidths=[None, None, 70]))
        running = sum(not each.cached for each in plans)
        print(f"\n{running} steps would run, {len(plans) - running} are cached.")


if __name__ == "__main__":
    main()
