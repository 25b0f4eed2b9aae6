"""MLflow's Model Registry: versions of the model, and which of them is the champion.

Each version gets one decision, champion or challenger. Runs decide one after the other, in the order of
version numbers: if two runs end at the same time, the second is compared with the champion that the first
may have become.
"""

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from brain_tumor.runtime.errors import InputError

CHAMPION = "champion"
CHALLENGER = "challenger"
DECISION = "decision"
AGAINST = "decided_against"
FAILED = "failed"
# Tag of a logged model: per label, the probability threshold from which it counts as present, as JSON.
THRESHOLDS = "thresholds"
# Seconds between polls of an undecided earlier version, and the age in seconds from which its run is
# considered dead. A decision includes evaluating a model on a test split.
POLL = 2.0
DECISION_TIMEOUT = 1800.0


@dataclass(frozen=True)
class Version:
    """A version of the registered model.

    Attributes:
        name: The registered model's name.
        number: The version's number, from 1.
        run_id: The MLflow run that logged it.
        decision: The decision, see `Registry.decide`; empty before it.
        created: Seconds since 1970.
        against: The number of the champion that it was compared with; empty if there was none.
        why: The reason for the decision, one sentence.
    """

    name: str
    number: int
    run_id: str
    decision: str
    created: float
    against: str = ""
    why: str = ""

    @property
    def uri(self) -> str:
        """The URI that MLflow loads it from."""
        return f"models:/{self.name}/{self.number}"


class Registry:
    """The versions of one registered model.

    Args:
        client: A client of the tracking server (`mlflow.MlflowClient`).
        name: The model's name; the model is created if it does not exist.
    """

    def __init__(self, client: Any, name: str) -> None:
        self._client = client
        self.name = name

    def register(self, run_id: str) -> Version:
        """Registers the last model that a run logged as a new version.

        Args:
            run_id: The run's id.

        Raises:
            InputError: The run did not log a model.
        """
        model = self._logged_model(run_id)
        self._create_model()
        source = model.artifact_location
        found = self._client.create_model_version(self.name, source, run_id, model_id=model.model_id)
        return _version(found)

    def find(self, run_id: str) -> Version | None:
        """The last version registered from a run, if there is one."""
        return next((version for version in reversed(self._versions()) if version.run_id == run_id), None)

    def champion(self) -> Version | None:
        """The champion's version, if there is one."""
        from mlflow import MlflowException
        from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST, ErrorCode

        absent = {ErrorCode.Name(code) for code in (INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST)}
        try:
            return _version(self._client.get_model_version_by_alias(self.name, CHAMPION))
        except MlflowException as error:
            if error.error_code in absent:
                return None
            raise

    def version(self, number: int) -> Version:
        """A version by its number.

        Raises:
            InputError: It does not exist.
        """
        for found in self._versions():
            if found.number == number:
                return found
        known = ", ".join(str(found.number) for found in self._versions()) or "none"
        raise InputError(f"The model {self.name} has no version {number}; it has {known}.")

    @contextmanager
    def turn(self, version: Version) -> Iterator[None]:
        """Waits until all earlier versions are decided or their runs are considered dead.

        If the body raises, the version's decision is recorded as `failed`.
        """
        waiting = ""
        while undecided := [each for each in self._versions() if _blocks(each, version)]:
            if waiting != undecided[0].uri:
                waiting = undecided[0].uri
                logging.info("Waiting for the run that decides on %s", waiting)
            time.sleep(POLL)
        try:
            yield
        except BaseException:
            self._note(version, FAILED)
            raise

    def decide(self, version: Version, alias: str, why: str = "", champion: Version | None = None) -> None:
        """Sets an alias on a version, removing it from any other one.

        Args:
            version: The version.
            alias: `champion` or `challenger`.
            why: The reason, one sentence.
            champion: The version that it was compared with.
        """
        number = str(version.number)
        self._client.update_model_version(self.name, number, why)
        self._client.set_model_version_tag(
            self.name, number, AGAINST, str(champion.number) if champion else ""
        )
        self._client.set_registered_model_alias(self.name, alias, number)
        self._note(version, alias)

    def set_thresholds(self, version: Version, thresholds: dict[str, float]) -> None:
        """Stores each label's probability threshold as a tag of a version's model."""
        # Found by the run: a local store's versions do not reference their logged model.
        model = self._logged_model(version.run_id)
        self._client.set_logged_model_tags(model.model_id, {THRESHOLDS: json.dumps(thresholds)})

    def _logged_model(self, run_id: str) -> Any:
        """The last model that a run logged, MLflow's LoggedModel."""
        logged = self._client.get_run(run_id).outputs
        models = logged.model_outputs if logged else []
        if not models:
            raise InputError(
                f"The MLflow run {run_id} has no model to register; set log_model=true for the phase whose "
                "model it is."
            )
        return self._client.get_logged_model(max(models, key=lambda output: output.step).model_id)

    def _note(self, version: Version, decision: str) -> None:
        self._client.set_model_version_tag(self.name, str(version.number), DECISION, decision)

    def _create_model(self) -> None:
        from mlflow import MlflowException
        from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode

        try:
            self._client.create_registered_model(self.name)
        except MlflowException as error:
            if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
                raise

    def _versions(self) -> list[Version]:
        found = self._client.search_model_versions(f"name = '{self.name}'")
        return sorted(map(_version, found), key=lambda version: version.number)


def _blocks(other: Version, version: Version) -> bool:
    age = time.time() - other.created
    return other.number < version.number and not other.decision and age < DECISION_TIMEOUT


def _version(found: Any) -> Version:
    """Converts MLflow's ModelVersion."""
    return Version(
        name=found.name,
        number=int(found.version),
        run_id=found.run_id or "",
        decision=found.tags.get(DECISION, ""),
        created=found.creation_timestamp / 1000,
        against=found.tags.get(AGAINST, ""),
        why=found.description or "",
    )
