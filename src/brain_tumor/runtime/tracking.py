"""MLflow: one parent run a pipeline run, a nested run a training.

Where to write comes from the environment, never from a parameter: `MLFLOW_TRACKING_URI` (without it nothing
is tracked) and `MLFLOW_RUN_ID`, the parent's id. A pipeline backend may inject both. MLflow is imported only
where it is used, since that takes seconds.
"""

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

EXPERIMENT = "brain-tumor"
PARENT = "MLFLOW_RUN_ID"
PACKAGE = __name__.split(".")[0]

# MLflow reports usage to its makers unless told otherwise; patients' data makes no exception wise.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")
# That it makes its tables is no news.
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")


class Run:
    """A run to write to. Without an id it writes nothing.

    Attributes:
        id: The run's id in MLflow, or an empty text where nothing is tracked.
    """

    def __init__(self, client: Any = None, run_id: str = "") -> None:
        self._client = client
        self.id = run_id

    def log_params(self, params: dict[str, Any]) -> None:
        """Logs parameters, nested ones under dotted names."""
        if self._client:
            from mlflow.entities import Param

            flat = [Param(name, str(value)) for name, value in _flatten(params)]
            self._client.log_batch(self.id, params=flat)

    def log_metrics(self, metrics: dict[str, float], step: int = 0) -> None:
        """Logs metrics of one step (an epoch)."""
        if self._client:
            from mlflow.entities import Metric

            now = int(time.time() * 1000)
            self._client.log_batch(
                self.id, metrics=[Metric(k, float(v), now, step) for k, v in metrics.items()]
            )

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

    def log_file(self, path: Path) -> None:
        """Logs a file."""
        if self._client:
            self._client.log_artifact(self.id, str(path))

    def log_model(self, model: Any) -> None:
        """Logs a Keras model with its signature and an input example, so that MLflow alone can load it.

        The library's source goes along, for the layers of its own. The example is a black image: a patient's
        has no place in a tracking server.

        Args:
            model: A model from images (batch, size, size, 3) to a dict of answers.
        """
        if self._client:
            import keras
            import mlflow
            import numpy as np
            import tensorflow as tf
            from mlflow.models import infer_signature

            # MLflow tries the copy on the example, and Keras would draw a progress bar for it.
            keras.config.disable_interactive_logging()
            example = np.zeros((1, *model.input_shape[1:]), np.float32)
            outputs = {name: keras.ops.convert_to_numpy(value) for name, value in model(example).items()}
            layers = {type(layer).__name__: type(layer) for layer in model.layers}
            own = {name: kind for name, kind in layers.items() if kind.__module__.startswith(PACKAGE)}
            with mlflow.start_run(run_id=self.id):
                mlflow.tensorflow.log_model(
                    model,
                    name="model",
                    signature=infer_signature(example, outputs),
                    input_example=example,
                    custom_objects=own,
                    code_paths=[str(Path(__file__).parents[1])],
                    # Left to itself MLflow starts a process that imports everything again to find these.
                    pip_requirements=[f"keras=={keras.__version__}", f"tensorflow=={tf.__version__}"],
                )


@contextmanager
def open_run(name: str, parent_id: str = "", artifact_location: str | None = None) -> Iterator[Run]:
    """Opens a run, and ends it as finished, or as failed if an exception passes.

    Args:
        name: The run's name.
        parent_id: The run that it is nested in, if any.
        artifact_location: Where the files of a new experiment go, if not where MLflow puts them.
    """
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        yield Run()
        return
    from mlflow import MlflowClient

    client = MlflowClient()
    if parent_id:
        experiment = client.get_run(parent_id).info.experiment_id
    else:
        experiment = os.environ.get("MLFLOW_EXPERIMENT_ID") or _default_experiment(client, artifact_location)
    tags = {"mlflow.parentRunId": parent_id} if parent_id else {}
    run = Run(client, client.create_run(experiment, run_name=name, tags=tags).info.run_id)
    try:
        yield run
    except BaseException:
        client.set_terminated(run.id, "FAILED")
        raise
    client.set_terminated(run.id, "FINISHED")


def parent_run_id() -> str:
    """The id of the pipeline run's MLflow run, from the environment; empty if there is none."""
    return os.environ.get(PARENT, "")


def _default_experiment(client: Any, artifact_location: str | None) -> str:
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
    experiment = client.get_experiment_by_name(name)
    if experiment:
        return str(experiment.experiment_id)
    return str(client.create_experiment(name, artifact_location=artifact_location))


def _flatten(params: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in sorted(params.items()):
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
