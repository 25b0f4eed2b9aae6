"""Compiles the pipeline and runs it: `python -m pipelines.run --target TARGET [OVERRIDE ...]`.

All that a run leaves is below `runs/`: the steps' artifacts and their cache, a log and a record of each run,
the HTML reports, and MLflow's store unless `MLFLOW_TRACKING_URI` names another.
"""

import shutil
import signal
import sys
import time
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from brain_tumor.config import StepConfigs
from brain_tumor.configure import configure
from brain_tumor.runtime.step import step
from brain_tumor.stores.files import write_json
from pipelines.compile import compile_pipeline, parse_arguments
from pipelines.display import Display, read_tasks
from pipelines.image import ROOT, image_tag
from pipelines.naming import run_name
from pipelines.runners.docker import DockerRunner
from pipelines.runners.local import LocalRunner
from pipelines.runners.runner import Job, Runner
from pipelines.targets.target import Target, load_target

if TYPE_CHECKING:
    from brain_tumor.artifacts.evaluation import Evaluation

RUNNERS: dict[str, type[Runner]] = {"local": LocalRunner, "docker": DockerRunner}
INTERRUPTED = 128 + signal.SIGINT


class RunError(Exception):
    """A run failed. The message says why."""


def run(overrides: list[str], runs: Path, target: Target) -> dict[str, Path]:
    """Compiles the pipeline and runs the compiled file, then prints the result.

    Args:
        overrides: Hydra's overrides of the configuration.
        runs: The folder that takes everything the run leaves.
        target: Where it runs.

    Returns:
        The artifacts' paths, by their names in the pipeline.

    Raises:
        InputError: The configuration is not usable. Then no step has run.
        RunError: A step failed.
    """
    started, start = datetime.now().astimezone(), time.perf_counter()
    configs = configure(overrides)
    job = prepare(configs, overrides, runs, target, runs / "pipelines")
    display = Display(read_tasks(job.compiled))
    runner = RUNNERS[target.runner]()
    try:
        runner.submit(job)
        # It takes a while, and meanwhile the first step begins.
        from brain_tumor.artifacts.dataset import open_dataset
        from brain_tumor.artifacts.evaluation import read_evaluation
        from brain_tumor.reports.before import print_before

        for event in runner.follow():
            display.show(event)
        result = runner.result()
    finally:
        runner.close()
    if not result.artifacts:
        raise RunError(display.explain(result, job.log))
    display.finish()
    evaluation = read_evaluation(result.artifacts["evaluation"])
    page = _copy_report(result.artifacts["gallery"], runs)
    dataset = result.artifacts["dataset"]
    findings = open_dataset(dataset).manifest.metrics()["findings"]
    data_page = _copy_report(dataset.with_name("data_report"), runs, "-data")
    about_data = f"{data_page} ({findings:,} {'finding' if findings == 1 else 'findings'})"
    seconds = round(time.perf_counter() - start, 1)
    if display.executed:
        record = {
            "name": job.name,
            "started": started.isoformat(timespec="seconds"),
            "overrides": overrides,
            "image": job.tag,
            "parameters": job.configs.parameters(),
            "executed": display.seconds,
            "cached": display.cached,
            "seconds": seconds,
            "mlflow_run_id": display.tracked,
            "artifacts": {name: str(path) for name, path in result.artifacts.items()},
        }
        write_json(runs / "history" / f"{job.name}.json", record)
    _print_result(evaluation, page, about_data, display, job.name, seconds)
    print_before(runs, result.artifacts["evaluation"])
    return result.artifacts


def prepare(configs: StepConfigs, overrides: list[str], runs: Path, target: Target, folder: Path) -> Job:
    """Gives a run its name, and compiles its pipeline into a folder."""
    name = run_name(overrides, datetime.now())
    tag = image_tag()
    compiled = folder / f"{name}.yaml"
    compile_pipeline(target, tag, configs, compiled)
    return Job(name, target, tag, compiled, configs, overrides, runs)


def _copy_report(page: Path, runs: Path, kind: str = "") -> Path:
    """Copies a page to a name that a browser knows: that of the run which made it, and what kind it is."""
    name = page.relative_to(runs / "artifacts").parts[0]
    (runs / "reports").mkdir(parents=True, exist_ok=True)
    return Path(shutil.copyfile(page, runs / "reports" / f"{name}{kind}.html"))


def _print_result(
    evaluation: "Evaluation", page: Path, about_data: str, display: Display, name: str, seconds: float
) -> None:
    from brain_tumor.reports.evaluation_tables import (
        counts_sentence,
        difference_table,
        label_table,
        summary_table,
    )
    from brain_tumor.reports.verdict import verdict_text

    mlflow_runs = {name: model.mlflow_run_id for name, model in evaluation.models.items()}
    print()
    if evaluation.notice:
        print(evaluation.notice)
    print(f"{counts_sentence(evaluation)}\n\n{verdict_text(evaluation)}\n")
    print(summary_table(evaluation, {"MLflow run": mlflow_runs}))
    print(f"\n{difference_table(evaluation)}\n")
    print(f"{label_table(evaluation)}\n")
    print(f"Report: {page}")
    print(f"Data:   {about_data}")
    run_id = f"run {display.tracked}" if display.tracked else "no new run, since no step ran"
    print(f"MLflow: {run_id} (make mlflow-ui)")
    print(f"Run:    {name}: {len(display.executed)} steps run, {len(display.cached)} cached, {seconds:.1f} s")


def _interrupt(number: int, frame: FrameType | None) -> None:
    # At once, since a step may take some seconds to end.
    print("Interrupted; the same command goes on from what is done.", file=sys.stderr)
    raise KeyboardInterrupt


def main() -> None:
    """The command line. Exit code 2 for bad input, 1 for a failed step, 130 for an interrupt."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    with step():
        name, overrides = parse_arguments("Compile the pipeline and run it.")
        try:
            run(overrides, ROOT / "runs", load_target(name))
        except RunError as error:
            print(error, file=sys.stderr)
            raise SystemExit(1) from None
        except KeyboardInterrupt:
            raise SystemExit(INTERRUPTED) from None


if __name__ == "__main__":
    main()
