"""Runs the compiled pipeline on this machine: `python -m pipelines.run [OVERRIDE ...]`.

All that a run leaves is below `runs/`: the steps' artifacts and their cache, a log and a record of each run,
the HTML reports, and MLflow's store unless `MLFLOW_TRACKING_URI` names another.
"""

import logging
import os
import re
import shutil
import sys
import time
import warnings
from collections import deque
from contextlib import ExitStack, redirect_stdout
from datetime import datetime
from pathlib import Path
from typing import TextIO, cast

import yaml
from kfp import local
from kfp.components import load_component_from_file

from brain_tumor.artifacts.evaluation import Evaluation, read_evaluation
from brain_tumor.configure import configure
from brain_tumor.reports.evaluation_tables import describe_difference, summary_table
from brain_tumor.runtime import tracking
from brain_tumor.runtime.step import step
from brain_tumor.stores.files import write_json
from brain_tumor.training import checkpoints
from pipelines.compile import compile_pipeline, load_target
from pipelines.image import ROOT, image_tag
from pipelines.pipeline import NAME

LAST_LINES = 25
COLORS = re.compile(r"\x1b\[[0-9;]*m")
# What a step prints but does not say: TensorFlow's notes about the processor, kfp's about its own file, and a
# progress bar's first, empty state. The log has it all.
NOISE = re.compile(
    r"Wrote executor output|[IE]0000 |WARNING: All log messages|To enable the following|.*\b0%\|"
)


class StepError(Exception):
    """A step ended with an error."""


class Tracker:
    """The pipeline run's MLflow run, opened when the first step runs: where nothing runs, there is none.

    Attributes:
        run: The run, or None as long as nothing ran.
    """

    def __init__(self, name: str, runs: Path, stack: ExitStack) -> None:
        self.run: tracking.Run | None = None
        self._name = name
        self._runs = runs
        self._stack = stack

    def open(self) -> None:
        """Opens the run, and tells the steps of it by the environment."""
        if self.run is None:
            location = None
            if "MLFLOW_TRACKING_URI" not in os.environ:
                os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{self._runs / 'mlflow.db'}"
                location = (self._runs / "mlflow-artifacts").as_uri()
            self.run = self._stack.enter_context(tracking.open_run(self._name, artifact_location=location))
            os.environ[tracking.PARENT] = self.run.id


class Listener(logging.Filter):
    """Follows a local run by what kfp.local says: log records, and the steps' output on stdout.

    kfp.local has no hooks. As a filter of the root logger this hears that a step begins before its process
    starts; as the stream in place of stdout it gets what the process prints.

    Attributes:
        executed: Titles of the steps that ran.
        cached: Titles of the steps whose earlier result was taken.
        last_lines: The end of the running step's output.
    """

    def __init__(self, titles: dict[str, str], log: TextIO, tracker: Tracker) -> None:
        super().__init__()
        self.executed: list[str] = []
        self.cached: list[str] = []
        self.last_lines: deque[str] = deque(maxlen=LAST_LINES)
        self._titles = titles
        self._log = log
        self._tracker = tracker
        self._started = 0.0
        self._own_words = False
        self._line = ""

    def filter(self, record: logging.LogRecord) -> bool:
        """Takes a log record of this process. kfp.local's own are kept from the terminal."""
        message = COLORS.sub("", record.getMessage())
        self._log.write(message + "\n")
        if begun := re.match(r"Executing task '(.+)'", message):
            self._tracker.open()
            self.executed.append(self._titles[begun[1]])
            self.last_lines.clear()
            self._started = time.perf_counter()
            self._own_words = False
            self._say(f"[{len(self.executed) + len(self.cached):2d}/{len(self._titles)}] {self.executed[-1]}")
        elif re.match(r"Task '.+' finished with status", message):
            self._say(f"        {time.perf_counter() - self._started:.1f} s")
            self._own_words = False
        elif hit := re.match(r"Task (\S+) cache hit", message):
            self.cached.append(self._titles[hit[1]])
            self._say(
                f"[{len(self.executed) + len(self.cached):2d}/{len(self._titles)}] {self.cached[-1]}: cached"
            )
        return False

    def write(self, text: str) -> int:
        """Takes what kfp.local prints, the steps' output among it."""
        self._log.write(text)
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._hear(line.removeprefix("    "))
        return len(text)

    def flush(self) -> None:
        """Writes the log out."""
        self._log.flush()

    def _hear(self, line: str) -> None:
        # kfp's executor first prints its whole input as JSON; the step's own words come after it.
        if line == "}":
            self._own_words = True
        elif line.startswith("Traceback"):
            self._own_words = True
            self.last_lines.append(line)
        elif self._own_words and line.strip() and not NOISE.match(line):
            self.last_lines.append(line)
            self._say(f"        {line}")

    @staticmethod
    def _say(line: str) -> None:
        # Not print(): kfp.local replaces it by one that indents.
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


def run(overrides: list[str], runs: Path) -> dict[str, Path]:
    """Compiles the pipeline and runs the compiled file, then prints the result.

    Args:
        overrides: Hydra's overrides of the configuration.
        runs: The folder that takes everything the run leaves.

    Returns:
        The artifacts' paths, by their names in the pipeline.

    Raises:
        InputError: The configuration is not usable. Then no step has run.
        StepError: A step failed.
    """
    configs = configure(overrides)
    name = f"{NAME}-{datetime.now():%Y-%m-%d-%H-%M-%S}"
    compiled = runs / "pipelines" / f"{name}.yaml"
    target = load_target("local")
    tag = image_tag()
    compile_pipeline(target, tag, configs, compiled)
    os.environ[checkpoints.IMAGE] = tag
    os.environ.setdefault(checkpoints.ROOT, str(runs / "checkpoints"))
    local.init(
        local.SubprocessRunner(use_venv=False),
        pipeline_root=str(runs / "artifacts"),
        cache_root=str(runs / "cache"),
        enable_caching=target.caching,
    )
    # kfp.local warns that a display name has no effect and that the image is none of Python's.
    warnings.filterwarnings("ignore", module=r"kfp\.local")

    started = time.perf_counter()
    (runs / "logs").mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        tracker = Tracker(name, runs, stack)
        log = stack.enter_context(open(runs / "logs" / f"{name}.log", "w", encoding="utf-8"))
        listener = Listener(_titles(compiled), log, tracker)
        root = logging.getLogger()
        root.addFilter(listener)
        stack.callback(root.removeFilter, listener)
        try:
            with redirect_stdout(cast(TextIO, listener)):
                task = load_component_from_file(str(compiled))(**configs.parameters())
        except RuntimeError as error:
            if not listener.executed:
                raise
            raise StepError(
                f"The step '{listener.executed[-1]}' failed. The end of its log ({log.name}):\n"
                + "\n".join(f"    {line}" for line in listener.last_lines)
            ) from error
        artifacts = {key: Path(artifact.path) for key, artifact in task.outputs.items()}
        evaluation = read_evaluation(artifacts["evaluation"])
        page = _copy_report(artifacts["gallery"], runs / "reports")
        if tracker.run:
            tracker.run.log_params({"overrides": " ".join(overrides) or "none"})
            tracker.run.log_metrics(evaluation.metrics())
            tracker.run.log_file(page)
            write_json(
                runs / "history" / f"{name}.json",
                {
                    "overrides": overrides,
                    "executed": listener.executed,
                    "cached": listener.cached,
                    "seconds": round(time.perf_counter() - started, 1),
                    "mlflow_run_id": tracker.run.id,
                    "artifacts": {key: str(path) for key, path in artifacts.items()},
                },
            )
    _print_result(evaluation, page, tracker.run, listener, time.perf_counter() - started)
    return artifacts


def _titles(compiled: Path) -> dict[str, str]:
    """The steps' titles by their names in a compiled pipeline."""
    tasks = yaml.safe_load(compiled.read_text())["root"]["dag"]["tasks"]
    return {name: task["taskInfo"]["name"] for name, task in tasks.items()}


def _copy_report(gallery: Path, folder: Path) -> Path:
    """Copies the page to a name that a browser knows. The same run's page always has the same name."""
    folder.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copyfile(gallery, folder / f"{gallery.parent.parent.name}.html"))


def _print_result(
    evaluation: Evaluation,
    page: Path,
    parent: tracking.Run | None,
    listener: Listener,
    seconds: float,
) -> None:
    runs = {name: model.mlflow_run_id for name, model in evaluation.models.items()}
    print()
    if evaluation.notice:
        print(evaluation.notice)
    print(
        f"Split {evaluation.split}: {evaluation.patients} patients, {evaluation.images} images, "
        f"{evaluation.boxes} true boxes.\n"
    )
    print(summary_table(evaluation, {"MLflow run": runs}))
    print(f"\n{describe_difference(evaluation)}\n")
    print(f"Report: {page}")
    run_id = f"run {parent.id}" if parent else "no new run, since no step ran"
    print(f"MLflow: {run_id} (make mlflow-ui)")
    print(f"Steps:  {len(listener.executed)} run, {len(listener.cached)} cached, {seconds:.1f} s")


def main() -> None:
    """The command line: overrides as arguments, exit code 2 for bad input, 1 for a failed step."""
    with step():
        try:
            run(sys.argv[1:], ROOT / "runs")
        except StepError as error:
            print(error, file=sys.stderr)
            raise SystemExit(1) from None


if __name__ == "__main__":
    main()
