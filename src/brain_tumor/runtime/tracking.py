"""MLflow: one run a pipeline run, and nested in it one a training.

Where to write is found from the environment alone, by every step and wherever it runs:

1. `MLFLOW_TRACKING_URI`, `MLFLOW_EXPERIMENT_ID` and `MLFLOW_RUN_ID`, which Kubeflow injects: a run for the
   step, nested in the pipeline run's, which it ends itself. Its id may also be the pipeline run's own.
2. `MLFLOW_TRACKING_URI` alone, someone's server or store.
3. `BRAIN_TUMOR_MLFLOW`, a folder for a store of the runs' own.

Without any of these nothing is tracked. The pipeline run's MLflow run is the one that is tagged with the name
in `BRAIN_TUMOR_RUN`; the first step that looks for it makes it. MLflow is imported only where it is used,
since that takes seconds.
"""

import logging
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from brain_tumor.runtime import environment, events
from brain_tumor.runtime.errors import InputError

EXPERIMENT = "brain-tumor"
LONGEST_REASON = 300  # characters
# What a run is found by, and what it is nested in.
NAME_TAG = "pipeline_run"
PARENT_TAG = "mlflow.parentRunId"
# It takes no more in one call.
MOST_METRICS = 1000

# MLflow reports usage to its makers unless told otherwise; patients' data makes no exception wise.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")
# That it makes its tables is no news.
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")


@contextmanager
def _errors_explained() -> Iterator[None]:
    """Makes one sentence of what MLflow raises: a server that is gone or fails, a store that is full.

    Raises:
        InputError: It raised something.
    """
    try:
        yield
    except Exception as error:
        if not _is_mlflows(error):
            raise
        said = " ".join(str(error).split())
        where = os.environ.get("MLFLOW_TRACKING_URI") or _own_store()
        message = (
            f"MLflow at {where} cannot be used ({said[:LONGEST_REASON]}); see that it runs and has space, or "
            "set MLFLOW_TRACKING_URI to another."
        )
    else:
        return
    # Not inside of the except: behind the error may stand one that shows a password of the address.
    raise InputError(_without_passwords(message))


def _is_mlflows(error: Exception) -> bool:
    if "mlflow" not in sys.modules:  # it is imported only where it is used
        return False
    from alembic.util import CommandError
    from mlflow import MlflowException
    from requests import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    return isinstance(error, MlflowException | RequestException | SQLAlchemyError | CommandError)


class Run:
    """A run to write to. Without an id it writes nothing.

    What MLflow cannot do, see `_errors_explained`, is an InputError of all functions here.

    Attributes:
        id: The run's id in MLflow, or an empty text where nothing is tracked.
    """

    def __init__(self, client: Any = None, run_id: str = "") -> None:
        self._client = client
        self.id = run_id

    @_errors_explained()
    def log_params(self, params: dict[str, Any]) -> None:
        """Logs parameters, nested ones under dotted names."""
        if self._client:
            from mlflow.entities import Param

            flat = [Param(name, str(value)) for name, value in _flatten(params)]
            self._client.log_batch(self.id, params=flat)

    @_errors_explained()
    def log_metrics(self, metrics: dict[str, float], step: int = 0) -> None:
        """Logs metrics of one step (an epoch)."""
        if self._client:
            from mlflow.entities import Metric

            now = int(time.time() * 1000)
            entries = [Metric(name, float(value), now, step) for name, value in metrics.items()]
            for start in range(0, len(entries), MOST_METRICS):
                self._client.log_batch(self.id, metrics=entries[start : start + MOST_METRICS])

    @_errors_explained()
    def set_tags(self, tags: dict[str, str]) -> None:
        """Sets tags."""
        if self._client:
            from mlflow.entities import RunTag

            self._client.log_batch(self.id, tags=[RunTag(key, value) for key, value in tags.items()])

    def take_over(self, run_id: str) -> None:
        """Tags this run as the one that goes on where another stopped, and ends that one.

        A process that is killed outright leaves its run as one that is running.
        """
        if self._client and run_id:
            from mlflow import MlflowException

            self.set_tags({"goes_on_from": run_id})
            try:
                if self._client.get_run(run_id).info.status == "RUNNING":
                    self._client.set_terminated(run_id, "KILLED")
            except MlflowException as error:  # such as a store that has been cleaned since, or is another
                logging.warning("The MLflow run %s, which this one goes on from: %s", run_id, error)

    @_errors_explained()
    def log_text(self, text: str, name: str) -> None:
        """Logs a text as a file of that name."""
        if self._client:
            self._client.log_text(self.id, text, name)

    @_errors_explained()
    def end(self, status: str = "FINISHED") -> None:
        """Ends the run: `FINISHED`, `FAILED` or `KILLED`."""
        if self._client:
            self._client.set_terminated(self.id, status)

    @_errors_explained()
    def log_model(
        self,
        loader: Path,
        files: list[Path],
        size: int,
        answers: dict[str, tuple[int, ...]],
        metadata: dict[str, Any],
    ) -> None:
        """Logs a model of images that MLflow loads by itself: without this library.

        MLflow's signature would admit a single type of images, so it has the answers alone, and the example
        shows an input. That is a black image: a patient's has no place in a tracking server.

        Args:
            loader: A Python file that sets an `mlflow.pyfunc.PythonModel`, see "models from code" there.
            files: What it loads the model from, each of another name.
            size: The images' side in pixels; the example is (1, size, size, 3), uint8.
            answers: The shapes of the model's answers by name, -1 for the batch; all are float32.
            metadata: What one must know of the model, for MLflow to keep beside it.
        """
        if not self._client:
            return
        import keras
        import mlflow
        import numpy as np
        import tensorflow as tf
        from mlflow.types.schema import Schema, TensorSpec

        outputs = [TensorSpec(np.dtype("float32"), shape, name) for name, shape in answers.items()]
        # Results alone go to stdout, and at the run's end MLflow says there where it is.
        with (
            redirect_stdout(sys.stderr),
            _default_store(self._client.tracking_uri),
            mlflow.start_run(run_id=self.id),
        ):
            mlflow.pyfunc.log_model(
                name="model",
                python_model=str(loader),
                artifacts={file.stem: str(file) for file in files},
                signature=mlflow.models.ModelSignature(outputs=Schema(outputs)),
                input_example=np.zeros((1, size, size, 3), np.uint8),
                metadata=metadata,
                # Left to itself MLflow starts a process that imports everything again to find these.
                pip_requirements=[f"keras=={keras.__version__}", f"tensorflow=={tf.__version__}"],
            )


@_errors_explained()
def pipeline_run() -> Run:
    """The pipeline run's MLflow run: the one that there is, or a new one. Nothing where no run has a name."""
    client, name = _connect(), os.environ.get(environment.RUN, "")
    if client is None:
        return Run()
    if given := os.environ.get("MLFLOW_RUN_ID"):
        run_id = client.get_run(given).data.tags.get(PARENT_TAG, given)
    elif name:
        run_id = _find(client, name) or _make(client, name)
    else:
        return Run()
    events.tell("tracked", run_id)
    return Run(client, run_id)


@contextmanager
def open_run(name: str) -> Iterator[Run]:
    """Opens a training's run, nested in the pipeline run's, and ends it: as failed if an exception passes.

    Args:
        name: The run's name.
    """
    with _errors_explained():
        client = _connect()
    if client is None:
        yield Run()
        return
    parent = pipeline_run().id
    if (given := os.environ.get("MLFLOW_RUN_ID")) and given != parent:
        # It was made for this step by whoever starts the step, who ends it too.
        yield Run(client, given)
        return
    with _errors_explained():
        experiment = client.get_run(parent).info.experiment_id if parent else _experiment(client)
        tags = {PARENT_TAG: parent} if parent else {}
        run = Run(client, client.create_run(experiment, run_name=name, tags=tags).info.run_id)
    try:
        yield run
    except BaseException:
        try:
            run.end("FAILED")
        except InputError as error:  # which may be why this one failed
            logging.warning("%s", error)
        raise
    run.end()


@_errors_explained()
def end_unfinished(run_id: str, status: str) -> None:
    """Ends a pipeline run's MLflow run whose processes are gone, and the trainings' that they left open.

    Args:
        run_id: Its id, as an event told it.
        status: `FAILED` or `KILLED`.
    """
    client = _connect()
    if client is None:
        return
    from mlflow import MlflowException

    try:
        run = client.get_run(run_id)
    except MlflowException as error:  # such as a store that is another than it was then
        logging.warning("The MLflow run %s is left as it is: %s", run_id, error)
        return
    nested = client.search_runs([run.info.experiment_id], f"tags.`{PARENT_TAG}` = '{run_id}'")
    for found in (run, *nested):
        if found.info.status == "RUNNING":
            Run(client, found.info.run_id).end(status)


def _connect() -> Any:
    """A client of the store (mlflow.MlflowClient), or None where nothing is tracked."""
    address = os.environ.get("MLFLOW_TRACKING_URI") or _own_store()
    if not address:
        return None
    from mlflow import MlflowClient

    return MlflowClient(address)


@contextmanager
def existing_store(runs: Path) -> Iterator[Any]:
    """Reads a store: the environment's, else the runs' own.

    Within, MLflow's own functions read it too.

    Args:
        runs: The folder of the runs, for their own store.

    Yields:
        A client (mlflow.MlflowClient), or None where there is no store; none is made.

    Raises:
        InputError: It refuses what is asked of it, or cannot be reached.
    """
    address = os.environ.get("MLFLOW_TRACKING_URI", "")
    if not address:
        folder = Path(os.environ.get(environment.MLFLOW) or runs)
        if not (folder / "mlflow.db").is_file():
            yield None
            return
        address = f"sqlite:///{folder}/mlflow.db"
    from mlflow import MlflowClient, MlflowException

    client = MlflowClient(address)

    try:
        with _default_store(client.tracking_uri):
            yield client
    except MlflowException as error:
        said = str(error).splitlines()[0].rstrip(".")
        raise InputError(_without_passwords(f"MLflow's store {client.tracking_uri}: {said}.")) from None


def _without_passwords(message: str) -> str:
    """A message in which addresses have no user and password."""
    return re.sub(r"//[^/@\s]*@", "//", message)


@contextmanager
def _default_store(address: str) -> Iterator[None]:
    """Lets MLflow's own functions write to a store: they take no client. Then it is the environment's."""
    import mlflow

    given = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(address)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(None)
        if given is not None:  # MLflow has changed the environment too
            os.environ["MLFLOW_TRACKING_URI"] = given


def _own_store() -> str:
    """The address of the runs' own store, if they have one."""
    folder = os.environ.get(environment.MLFLOW)
    return f"sqlite:///{folder}/mlflow.db" if folder else ""


def _find(client: Any, name: str) -> str:
    """The id of the oldest run that is tagged with a name, or an empty text."""
    tagged = f"tags.{NAME_TAG} = '{name}'"
    found = client.search_runs([_experiment(client)], tagged, order_by=["attributes.start_time ASC"])
    return str(found[0].info.run_id) if found else ""


def _make(client: Any, name: str) -> str:
    run = Run(
        client, client.create_run(_experiment(client), run_name=name, tags={NAME_TAG: name}).info.run_id
    )
    # Two steps that look at the same moment both find none: the older run stays.
    if (oldest := _find(client, name)) != run.id:
        client.delete_run(run.id)
        return oldest
    run.log_params({"overrides": os.environ.get(environment.OVERRIDES) or "none"})
    return run.id


def _experiment(client: Any) -> str:
    """The id of the experiment for new runs, which is made if there is none."""
    if given := os.environ.get("MLFLOW_EXPERIMENT_ID"):
        return given
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
    if found := client.get_experiment_by_name(name):
        return str(found.experiment_id)
    from mlflow import MlflowException

    # A store in a file would put what is logged into the working folder.
    own = client.tracking_uri == _own_store()
    location = (Path(os.environ[environment.MLFLOW]) / "mlflow-artifacts").as_uri() if own else None
    try:
        return str(client.create_experiment(name, artifact_location=location))
    except MlflowException:
        # Another step has made it since.
        found = client.get_experiment_by_name(name)
        if found is None:
            raise
        return str(found.experiment_id)


def _flatten(params: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in sorted(params.items()):
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
