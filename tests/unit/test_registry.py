"""Versions of a model in a real MLflow store."""

import shutil
import threading
import time
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from brain_tumor.runtime import registry as registries
from brain_tumor.runtime.errors import InputError
from brain_tumor.runtime.registry import CHALLENGER, CHAMPION, FAILED, Registry, Version
from tests.unit.programs import PROGRAMS

pytestmark = pytest.mark.slow

# The shortest model code that MLflow accepts.


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    address = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    client = MlflowClient(address)
    client.create_experiment("tests", artifact_location=(tmp_path / "artifacts").as_uri())
    shutil.copyfile(PROGRAMS / "echo_model.py", tmp_path / "echo.py")
    return client


def log_model(client: MlflowClient, folder: Path) -> str:
    """Creates a run with a model. Returns its id."""
    [experiment] = client.search_experiments(filter_string="name = 'tests'")
    with mlflow.start_run(experiment_id=experiment.experiment_id) as run:
        mlflow.pyfunc.log_model(name="model", python_model=str(folder / "echo.py"), pip_requirements=[])
    return str(run.info.run_id)


@pytest.fixture
def registry(client: MlflowClient) -> Registry:
    return Registry(client, "brain-tumor")


def test_at_first_there_is_no_champion(registry: Registry) -> None:
    assert registry.champion() is None


def test_a_version_becomes_the_champion_and_is_replaced_by_another(
    registry: Registry, client: MlflowClient, tmp_path: Path
) -> None:
    first = registry.register(log_model(client, tmp_path))
    assert (first.number, first.decision) == (1, "")
    registry.decide(first, CHAMPION)
    champion = registry.champion()
    assert champion
    assert (champion.number, champion.decision, champion.run_id) == (1, CHAMPION, first.run_id)
    assert mlflow.pyfunc.load_model(champion.uri).predict(["word"]) == ["word"]

    second = registry.register(log_model(client, tmp_path))
    registry.decide(second, CHALLENGER)
    assert registry.champion() == champion
    registry.decide(registry.version(2), CHAMPION)
    assert registry.champion() == registry.version(2)
    with pytest.raises(InputError, match=r"The model brain-tumor has no version 9; it has 1, 2\."):
        registry.version(9)


def test_a_run_without_a_model_cannot_be_registered(registry: Registry, client: MlflowClient) -> None:
    run = client.create_run("0")
    with pytest.raises(InputError, match=rf"{run.info.run_id} has no model to register; set log_model=true"):
        registry.register(run.info.run_id)


def test_of_two_runs_ending_at_once_the_second_is_compared_with_the_firsts_champion(
    registry: Registry, client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registries, "POLL", 0.05)
    versions = [registry.register(log_model(client, tmp_path)) for _ in range(2)]
    met: dict[int, Version | None] = {}

    def decide(version: Version) -> None:
        with registry.turn(version):
            met[version.number] = registry.champion()
            time.sleep(0.5)
            registry.decide(version, CHAMPION)

    threads = [threading.Thread(target=decide, args=[version]) for version in reversed(versions)]
    for thread in threads:
        thread.start()
        time.sleep(0.1)
    for thread in threads:
        thread.join(60)
    assert met[1] is None
    second = met[2]
    assert second and second.number == 1, "the second run was compared with the first one's version"
    assert registry.champion() == registry.version(2)


def test_a_failed_or_killed_run_does_not_block_others(
    registry: Registry, client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed, dead, last = (registry.register(log_model(client, tmp_path)) for _ in range(3))
    with pytest.raises(RuntimeError), registry.turn(failed):
        raise RuntimeError
    assert registry.version(1).decision == FAILED
    monkeypatch.setattr(registries, "DECISION_TIMEOUT", time.time() - dead.created - 0.001)
    with registry.turn(last):
        assert registry.champion() is None
