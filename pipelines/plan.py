"""Says what a run would do, without running it: `python -m pipelines.plan [OVERRIDE ...]`."""

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
    """What a run would do with a step.

    Attributes:
        title: What the step is called where a person sees it.
        cached: Whether its earlier result would be taken.
        why: The reason.
    """

    title: str
    cached: bool
    why: str


def plan(job: Job) -> list[Plan]:
    """What a run would do with each of its steps, in the order in which they would run.

    It looks up kfp.local's own cache by kfp.local's own keys. Of a step that would run it is found out what
    differs from the newest run on record.

    Args:
        job: The run.
    """
    from kfp.components import load_component_from_file
    from kfp.local import cache, graph_utils, io, utils
    from kfp.local.orchestrator.orchestrator_utils import OrchestratorUtils

    spec = load_component_from_file(str(job.compiled)).pipeline_spec
    # It makes its folder; where there is none, that must not be in the runs'.
    kept = cache.LocalCache(str(job.runs / "cache" if (job.runs / "cache").is_dir() else job.compiled.parent))
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
        key = kept.compute_key(
            component_name=task.component_ref.name,
            image=container.image,
            full_command=[*container.command, *container.args],
            arguments=OrchestratorUtils.make_task_arguments(task.inputs, store),
            env_vars={variable.name: variable.value for variable in container.env},
        )
        outputs = kept.get(key) if task.caching_options.enable_cache else None
        if outputs is None:
            plans[name] = Plan(title, False, _why(job, task, last))
            continue
        for output, value in outputs.items():
            store.put_task_output(name, output, value)
        plans[name] = Plan(title, True, "unchanged")
    return list(plans.values())


def _last_record(runs: Path) -> dict[str, Any]:
    """The newest run's record; those of earlier versions of this project do not say what is compared."""
    records = [json.loads(path.read_text()) for path in (runs / "history").glob("*.json")]
    comparable = [record for record in records if "parameters" in record]
    return max(comparable, key=lambda record: str(record["started"]), default={})


def _why(job: Job, task: Any, last: dict[str, Any]) -> str:
    """Why a step, none of those before it has to run, would itself."""
    if not job.target.caching:
        return "the target does not take earlier results"
    if not task.caching_options.enable_cache:
        return "it is done in every run"
    if not last:
        return "no run on record"
    if last["image"] != job.tag:
        return "the library, its packages or the image have changed"
    parameter = task.inputs.parameters["config"].component_input_parameter
    if not parameter:
        return "not done before"
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
    return ", ".join(changes) or "not done before, or what it made is gone"


def _flatten(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found = []
    for key, value in values.items():
        found += _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else [(prefix + key, value)]
    return found


def main() -> None:
    """The command line: a table of the steps."""
    with step():
        name, overrides = parse_arguments("Say which steps a run would do, and which it would not.")
        target = load_target(name)
        if target.runner != "local":
            raise InputError(f"The target {name} keeps its cache where it runs; plan for target local.")
        with tempfile.TemporaryDirectory() as folder:
            job = prepare(configure(overrides), overrides, ROOT / "runs", target, Path(folder))
            plans = plan(job)
        rows = [(each.title, "cached" if each.cached else "runs", each.why) for each in plans]
        print(tabulate(rows, headers=("step", "would be", "why"), maxcolwidths=[None, None, 70]))
        running = sum(not each.cached for each in plans)
        print(f"\n{running} steps would run, {len(plans) - running} are cached.")


if __name__ == "__main__":
    main()
