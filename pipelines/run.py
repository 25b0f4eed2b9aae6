"""Compiles the pipeline and runs it: `python -m pipelines.run --target TARGET [OVERRIDE ...]`.

All results of a run are in `runs/`: the steps' artifacts and their cache, a log and a record per run, the
HTML reports, and MLflow's store unless `MLFLOW_TRACKING_URI` is set.
"""

import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import TYPE_CHECKING, TextIO

from brain_tumor.config import StepConfigs
from brain_tumor.configure import configure
from brain_tumor.runtime.step import step
from brain_tumor.steps import title
from brain_tumor.stores.files import write_json
from pipelines.compile import compile_pipeline, parse_arguments
from pipelines.display import Display, read_tasks
from pipelines.image import ROOT, image_tag
from pipelines.naming import run_name
from pipelines.pipeline import ABOUT
from pipelines.runners.docker import DockerRunner
from pipelines.runners.kubeflow import KubeflowRunner
from pipelines.runners.local import LocalRunner
from pipelines.runners.remote import DEFAULTS
from pipelines.runners.runner import Job, RemoteRunner, Result, Run, Runner
from pipelines.runners.vertex import VertexRunner
from pipelines.targets.target import Target, load_target

if TYPE_CHECKING:
    from brain_tumor.artifacts.evaluation import Evaluation

REMOTE: dict[str, type[RemoteRunner]] = {"kubeflow": KubeflowRunner, "vertex": VertexRunner}
RUNNERS: dict[str, type[Runner]] = {"local": LocalRunner, "docker": DockerRunner, **REMOTE}
INTERRUPTED = 128 + signal.SIGINT


class RunError(Exception):
    """A run failed. The message gives the reason.

    Attributes:
        bad_input: Whether the reason is bad input of a step.
    """

    def __init__(self, message: str, bad_input: bool = False) -> None:
        super().__init__(message)
        self.bad_input = bad_input


def run(overrides: list[str], runs: Path, target: Target, runner: Runner | None = None) -> dict[str, Path]:
    """Compiles the pipeline, runs the compiled file, and prints the result.

    Args:
        overrides: Hydra's overrides of the configuration.
        runs: The folder for all results.
        target: The target.
        runner: The runner; by default a new one of the target's kind.

    Returns:
        The artifacts' paths, by their names in the pipeline.

    Raises:
        InputError: The configuration is invalid (then no step has run), or the run cannot be started or
            followed.
        RunError: A step failed.
    """
    started = datetime.now().astimezone()
    configs = configure(overrides)
    job = prepare(configs, overrides, runs, target, runs / "pipelines")
    return execute(job, runner or RUNNERS[target.runner](), started)


def execute(job: Job, runner: Runner, started: datetime, recorded: bool = False) -> dict[str, Path]:
    """Runs a job to its end, then prints the result.

    Args:
        job: The run to start.
        runner: A new runner.
        started: See `conclude`.
        recorded: See `conclude`.

    Returns:
        The artifacts' paths, by their names in the pipeline.

    Raises:
        InputError: It cannot be started or followed.
        RunError: A step failed.
    """
    with closing(runner):
        runner.submit(job)
        display, result = watch(job, runner)
    return conclude(job, display, result, started, recorded)


def watch(run: Run, runner: Runner, stream: TextIO | None = None) -> tuple[Display, Result]:
    """Follows a submitted run to its end.

    Args:
        run: The run.
        runner: The runner that submitted it.
        stream: The output for its steps, by default stderr.

    Raises:
        InputError: It cannot be followed, or its artifacts cannot be read.
    """
    display = Display(read_tasks(run.compiled), stream)
    # Imported here to overlap with the start of the first step.
    import brain_tumor.artifacts.dataset
    import brain_tumor.artifacts.evaluation
    import brain_tumor.reports.before  # noqa: F401

    for event in runner.follow():
        display.show(event)
    return display, runner.result()


def conclude(
    run: Run, display: Display, result: Result, started: datetime, recorded: bool = False
) -> dict[str, Path]:
    """Prints the result of a finished run, and writes its record.

    Args:
        run: The run.
        display: The display that showed it.
        result: Its result.
        started: Its start time.
        recorded: Whether a run gets a record even if all of its steps were cached.

    Returns:
        The artifacts' paths, by their names in the pipeline.

    Raises:
        RunError: A step failed.
    """
    from brain_tumor.artifacts.dataset import open_dataset
    from brain_tumor.artifacts.evaluation import read_evaluation
    from brain_tumor.reports.before import print_before

    elapsed = (datetime.now().astimezone() - started).total_seconds()
    seconds = elapsed if result.seconds is None else result.seconds
    if not result.artifacts:
        raise RunError(display.explain(result, run.log), result.bad_input)
    display.finish()
    evaluation = read_evaluation(result.artifacts["evaluation"])
    page = _copy_report(result.artifacts["gallery"], run.runs)
    dataset = result.artifacts["dataset"]
    findings = open_dataset(dataset).manifest.metrics()["findings"]
    data_page = _copy_report(dataset.with_name("data_report"), run.runs, "-data")
    about_data = f"{data_page} ({findings:,} {'finding' if findings == 1 else 'findings'})"
    if recorded or set(display.executed) - {title("gate")}:  # the gate is never cached
        write_record(run, result, display, started, seconds)
    _print_result(evaluation, page, about_data, display, run, result, seconds)
    print_before(run.runs, result.artifacts["evaluation"])
    return result.artifacts


def write_record(run: Run, result: Result, display: Display, started: datetime, seconds: float) -> None:
    """Writes a run's record, for comparisons with later runs."""
    record = {
        "name": run.name,
        "started": started.isoformat(timespec="seconds"),
        "target": run.target.name,
        "overrides": run.overrides,
        "image": run.tag,
        "parameters": {name: value for name, value in run.parameters.items() if name != ABOUT},
        "executed": display.seconds,
        "cached": display.cached,
        "seconds": round(seconds, 1),
        "mlflow_run_id": display.tracked,
        "artifacts": {name: str(path) for name, path in result.artifacts.items()},
        **result.about,
    }
    write_json(run.runs / "history" / f"{run.name}.json", record)


def prepare(
    configs: StepConfigs, overrides: list[str], runs: Path, target: Target, folder: Path, name: str = ""
) -> Job:
    """Compiles a run's pipeline to `folder/NAME.yaml`.

    Args:
        configs: The steps' configs.
        overrides: The overrides that they were composed with.
        runs: The folder for all results.
        target: The target.
        folder: The folder for the compiled pipeline.
        name: The run's name; by default a new one is made from the overrides and the time.

    Raises:
        InputError: See `compile_pipeline`.
    """
    tag = image_tag()
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as scratch:
        draft = Path(scratch) / "pipeline.yaml"
        compile_pipeline(target, tag, configs, draft)
        if name:
            shutil.copyfile(draft, folder / f"{name}.yaml")
        else:
            name = _write_new(folder, run_name(overrides, datetime.now()), draft.read_bytes())
    parameters = {ABOUT: " ".join(overrides) or DEFAULTS, **configs.parameters()}
    return Job(name, target, tag, folder / f"{name}.yaml", parameters, overrides, runs, configs)


def _write_new(folder: Path, first: str, content: bytes) -> str:
    """Writes a run's file under a unique name, even if another run starts at the same time."""
    for number in count(1):
        name = f"{first}-{number}" if number > 1 else first
        with suppress(FileExistsError), open(folder / f"{name}.yaml", "xb") as file:
            file.write(content)
            return name
    raise AssertionError("there is always another name")


def _copy_report(page: Path, runs: Path, kind: str = "") -> Path:
    """Copies a page to a file with the suffix .html, named after the run that made it and the page's kind."""
    name = page.relative_to(runs / "artifacts").parts[0]
    (runs / "reports").mkdir(parents=True, exist_ok=True)
    return Path(shutil.copyfile(page, runs / "reports" / f"{name}{kind}.html"))


def _print_result(
    evaluation: "Evaluation",
    page: Path,
    about_data: str,
    display: Display,
    run: Run,
    result: Result,
    seconds: float,
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
    for name, link in (result.links or {"MLflow": _local_mlflow(display)}).items():
        print(f"{name + ':':7} {link}")
    steps = f"{len(display.executed)} steps run, {len(display.cached)} cached"
    print(f"Run:    {run.name}: {steps}, {seconds:.1f} s")


def _local_mlflow(display: Display) -> str:
    run_id = f"run {display.tracked}" if display.tracked else "no new run, since no step ran"
    return f"{run_id} (make mlflow-ui)"


@contextmanager
def command_line(interrupted: Callable[[], str]) -> Iterator[None]:
    """The context of a command that runs or follows a pipeline.

    The exit code is 2 if a step failed by bad input, 1 if it failed for another reason, 130 for an interrupt.

    Args:
        interrupted: Returns what happens to the run at an interrupt, see `Runner.interrupted`.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        # Printed immediately, since a step may take some seconds to end.
        print(f"Interrupted; {interrupted()}.", file=sys.stderr)
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    try:
        yield
    except RunError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2 if error.bad_input else 1) from None
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None


def main() -> None:
    """The command line. Exit code 2 for bad input, 1 for a failed step, 130 for an interrupt."""
    with step():
        name, overrides = parse_arguments("Compile the pipeline and run it.")
        target = load_target(name)
        runner = RUNNERS[target.runner]()
        with command_line(runner.interrupted):
            run(overrides, ROOT / "runs", target, runner)


if __name__ == "__main__":
    main()
