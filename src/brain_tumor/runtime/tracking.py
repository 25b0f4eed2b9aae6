"""MLflow tracking: one run per pipeline run, with one nested run per training.

A step finds the store by its environment variables:

1. `MLFLOW_TRACKING_URI`, `MLFLOW_EXPERIMENT_ID` and `MLFLOW_RUN_ID`, which Kubeflow sets: the id is that of a
   run for the step, nested in the pipeline run's and ended by Kubeflow, or that of the pipeline run's.
2. `MLFLOW_TRACKING_URI` alone: any server or store.
3. `BRAIN_TUMOR_MLFLOW`: a folder for a local store.

Without any of these nothing is tracked. The pipeline run's MLflow run is the one tagged with the name in
`BRAIN_TUMOR_RUN`; the first step that looks for it creates it. MLflow is imported only where it is used,
since the import takes seconds.
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
# The tags for the pipeline run's name, and for the parent run's id.
NAME_TAG = "pipeline_run"
PARENT_TAG = "mlflow.parentRunId"
# MLflow's limit per call.
MOST_METRICS = 1000

# MLflow sends usage telemetry by default; a project with patient data must not.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")
# Hides the log lines about the creation of the store's tables.
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")


@contextmanager
def _errors_explained() -> Iterator[None]:
    """Turns MLflow's errors, such as an unreachable server or a full store, into one sentence.

    Raises:
        InputError: MLflow raised an error.
    """
    try:
        yield
    except Exception as error:
        if not _is_mlflow_error(error):
            raise
        reason = " ".join(str(error).split())
        where = os.environ.get("MLFLOW_TRACKING_URI") or _local_store()
        message = (
            f"MLflow at {where} cannot be used ({reason[:LONGEST_REASON]}); check that it runs or "
            "set MLFLOW_TRACKING_URI to another."
        )
    else:
        return
    # Raised outside the except block: the chained error may show the address's password.
    raise InputError(_without_passwords(message))


def _is_mlflow_error(error: Exception) -> bool:
    if "mlflow" not in sys.modules:  # MLflow is imported only where it is used
        return False
    from alembic.util import CommandError
    from mlflow import MlflowException
    from requests import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    return isinstance(error, MlflowException | RequestException | SQLAlchemyError | CommandError)


class Run:
    """An MLflow run. Without an id it logs nothing.

    All methods raise InputError if MLflow fails, see `_errors_explained`.

    Attributes:
        id: The run's id in MLflow, or empty if nothing is tracked.
    """

    def __init__(self, client: Any = None, run_id: str = "") -> None:
        self._client = client
        self.id = run_id

    @_errors_explained()
    def log_params(self, params: dict[str, Any]) -> None:
        """Logs parameters; nested ones get dotted names."""
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

    def resume_from(self, run_id: str) -> None:
        """Tags this run as the continuation of another, and ends that one.

        A killed process leaves its run in the state RUNNING.
        """
        if self._client and run_id:
            from mlflow import MlflowException

            self.set_tags({"resumed_from": run_id})
            try:
                if self._client.get_run(run_id).info.status == "RUNNING":
                    self._client.set_terminated(run_id, "KILLED")
            except MlflowException as error:  # such as a store that was cleaned or replaced since
                logging.warning("The MLflow run %s, which this one resumes: %s", run_id, error)

    @_errors_explained()
    def log_text(self, text: str, name: str) -> None:
        """Logs a string as a file with that name."""
        if self._client:
            self._client.log_text(self.id, text, name)

    @_errors_explained()
    def log_folder(self, folder: Path, name: str) -> None:
        """Logs a folder's files under an artifact path."""
        if self._client:
            self._client.log_artifacts(self.id, str(folder), name)

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
        outputs: dict[str, tuple[int, ...]],
        metadata: dict[str, Any],
    ) -> None:
        """Logs a model that MLflow can load without this library.

        An input in MLflow's signature would restrict the images' dtype, so it has only outputs, and an
        example shows the input. It is a black image: patient data must not go to a tracking server.

        Args:
            loader: A Python file that sets an `mlflow.pyfunc.PythonModel` ("models from code").
            files: The files that it loads the model from; their names must differ.
            size: The images' side in pixels; the example is (1, size, size, 3) uint8.
            outputs: The shapes of the model's outputs by name, -1 for the batch; all are float32.
            metadata: Facts about the model that MLflow stores with it.
        """
        if not self._client:
            return
        import keras
        import mlflow
        import numpy as np
        import tensorflow as tf
        from mlflow.types.schema import Schema, TensorSpec

        specs = [TensorSpec(np.dtype("float32"), shape, name) for name, shape in outputs.items()]
        # At the run's end MLflow prints its address to stdout, which is reserved for results.
        with (
            redirect_stdout(sys.stderr),
            _default_store(self._client.tracking_uri),
            mlflow.start_run(run_id=self.id),
        ):
            mlflow.pyfunc.log_model(
                name="model",
                python_model=str(loader),
                artifacts={file.stem: str(file) for file in files},
                signature=mlflow.models.ModelSignature(outputs=Schema(specs)),
                input_example=np.zeros((1, size, size, 3), np.uint8),
                metadata=metadata,
                # By default MLflow starts a process that imports everything again to infer these.
                pip_requirements=[f"keras=={keras.__version__}", f"tensorflow=={tf.__version__}"],
            )


@_errors_explained()
def pipeline_run() -> Run:
    """The pipeline run's MLflow run, created if needed; a `Run` without id if nothing is tracked."""
    client, name = _connect(), os.environ.get(environment.RUN, "")
    if client is None:
        return Run()
    if given := os.environ.get("MLFLOW_RUN_ID"):
        run_id = client.get_run(given).data.tags.get(PARENT_TAG, given)
    elif name:
        run_id = _find(client, name) or _create(client, name)
    else:
        return Run()
    events.write("tracked", run_id)
    return Run(client, run_id)


@contextmanager
def open_run(name: str) -> Iterator[Run]:
    """Opens a training's run, nested in the pipeline run's, and ends it: as FAILED on an exception.

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
        # The caller, such as Kubeflow, created this run and ends it.
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
        except InputError as error:  # MLflow may be the reason for the failure
            logging.warning("%s", error)
        raise
    run.end()


@_errors_explained()
def end_unfinished(run_id: str, status: str) -> None:
    """Ends the MLflow run of a pipeline run whose processes are gone, and its open nested runs.

    Args:
        run_id: Its id, from an event.
        status: `FAILED` or `KILLED`.
    """
    client = _connect()
    if client is None:
        return
    from mlflow import MlflowException

    try:
        run = client.get_run(run_id)
    except MlflowException as error:  # such as a store that was replaced since
        logging.warning("The MLflow run %s stays unchanged: %s", run_id, error)
        return
    nested = client.search_runs([run.info.experiment_id], f"tags.`{PARENT_TAG}` = '{run_id}'")
    for found in (run, *nested):
        if found.info.status == "RUNNING":
            Run(client, found.info.run_id).end(status)


def _connect() -> Any:
    """A client of the store (mlflow.MlflowClient), or None if nothing is tracked."""
    address = os.environ.get("MLFLOW_TRACKING_URI") or _local_store()
    if not address:
        return None
    from mlflow import MlflowClient

    return MlflowClient(address)


@contextmanager
def existing_store(runs: Path) -> Iterator[Any]:
    """Opens the store that the environment names, otherwise the local one.

    In the context, MLflow's module-level functions use it too.

    Args:
        runs: The folder of the runs, with the local store.

    Yields:
        A client (mlflow.MlflowClient), or None if there is no store; none is created.

    Raises:
        InputError: The store rejects a request or is unreachable.
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
        reason = str(error).splitlines()[0].rstrip(".")
        raise InputError(_without_passwords(f"MLflow's store {client.tracking_uri}: {reason}.")) from None


def _without_passwords(message: str) -> str:
    """The message without user names and passwords in addresses."""
    return re.sub(r"//[^/@\s]*@", "//", message)


@contextmanager
def _default_store(address: str) -> Iterator[None]:
    """Makes MLflow's module-level functions use a store within the context."""
    import mlflow

    given = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(address)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(None)
        if given is not None:  # MLflow changes the environment too
            os.environ["MLFLOW_TRACKING_URI"] = given


def _local_store() -> str:
    """The address of the local store; empty if `BRAIN_TUMOR_MLFLOW` is not set."""
    folder = os.environ.get(environment.MLFLOW)
    return f"sqlite:///{folder}/mlflow.db" if folder else ""


def _find(client: Any, name: str) -> str:
    """The id of the oldest run tagged with a name, or an empty string."""
    tagged = f"tags.{NAME_TAG} = '{name}'"
    found = client.search_runs([_experiment(client)], tagged, order_by=["attributes.start_time ASC"])
    return str(found[0].info.run_id) if found else ""


def _create(client: Any, name: str) -> str:
    run = Run(
        client, client.create_run(_experiment(client), run_name=name, tags={NAME_TAG: name}).info.run_id
    )
    # Two steps that search at the same time both create a run: the older one is kept.
    if (oldest := _find(client, name)) != run.id:
        client.delete_run(run.id)
        return oldest
    if (overrides := os.environ.get(environment.OVERRIDES)) is not None:
        run.log_params({"overrides": overrides or "none"})
    if page := os.environ.get(environment.RUN_PAGE):
        # MLflow shows this tag as the run's description, as Markdown.
        run.set_tags({"mlflow.note.content": f"[The pipeline run]({page.replace('{run}', name)})"})
    return run.id


def _experiment(client: Any) -> str:
    """The id of the experiment for new runs, created if needed."""
    if given := os.environ.get("MLFLOW_EXPERIMENT_ID"):
        return given
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
    if found := client.get_experiment_by_name(name):
        return str(found.experiment_id)
    from mlflow import MlflowException

    # With a file store, MLflow's default is a folder below the working directory.
    own = client.tracking_uri == _local_store()
    location = (Path(os.environ[environment.MLFLOW]) / "mlflow-artifacts").as_uri() if own else None
    try:
        return str(client.create_experiment(name, artifact_location=location))
    except MlflowException:
        # Another step created it in the meantime.
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
