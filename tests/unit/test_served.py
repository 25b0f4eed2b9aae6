"""The model in MLflow, loaded without this library."""

import json
import os
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import keras
import mlflow
import numpy as np
import pytest

from brain_tumor.model.saving import LAYER_FILES, LOADER_FILE
from brain_tumor.runtime.tracking import open_run
from tests.unit.models import CLASSES, answer, images, small_detector
from tests.unit.programs import PROGRAMS

pytestmark = [pytest.mark.slow, pytest.mark.heavy]

SIZE = 32

# Predicts in a process that cannot import the library.


@pytest.fixture(scope="module", params=["dense", "pooled"])
def detector(request: pytest.FixtureRequest) -> keras.Model:
    """A detector with each of the box heads: together they use all custom layers."""
    return small_detector(box_head=request.param)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a SQLite store; creating its tables takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture(scope="module")
def logged(detector: keras.Model, store: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of the logged model."""
    folder = tmp_path_factory.mktemp("model")
    detector.save(folder / "model.keras")
    shapes = {name: (-1, *output.shape[1:]) for name, output in detector.output.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", store)
        patch.chdir(folder)
        with open_run("phase3_finetune") as run:
            files = [folder / "model.keras", *LAYER_FILES]
            run.log_model(LOADER_FILE, files, SIZE, shapes, {"labels": ["a", "b"], "data": {"records": "1f"}})
        client = mlflow.MlflowClient()
        experiment = client.get_run(run.id).info.experiment_id
        [model] = client.search_logged_models([experiment], filter_string=f"source_run_id = '{run.id}'")
    return str(model.model_uri)


@pytest.fixture
def loaded(logged: str, store: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The model loaded by MLflow in this process, which also has the library."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    return mlflow.pyfunc.load_model(logged)


def test_it_predicts_like_the_keras_model_without_the_library(
    detector: keras.Model, logged: str, store: str, tmp_path: Path
) -> None:
    """For uint8 and floats, RGB and grey, including a smaller batch. Nothing is printed on stdout."""
    floats = images(35)
    inputs: dict[str, Any] = {
        "floats": floats,
        "bytes": floats.astype(np.uint8),
        "grey": floats[..., :1].astype(np.uint8),
        "grey floats": floats[:2, ..., :1],
    }
    np.savez(tmp_path / "inputs.npz", **inputs)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [
            sys.executable,
            PROGRAMS / "serve_elsewhere.py",
            logged,
            tmp_path / "inputs.npz",
            tmp_path / "outputs.npz",
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**environment, "MLFLOW_TRACKING_URI": store},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    found = np.load(tmp_path / "outputs.npz")
    inputs["example"] = np.zeros((1, SIZE, SIZE, 3), np.uint8)
    heads = {"labels": (CLASSES,), "boxes": (CLASSES, 4), "scores": (CLASSES,)}
    names = set(detector.output)
    assert names == ({*heads} if len(names) == 3 else {"labels", "boxes"})
    assert set(found.files) == {f"{name} {head}" for name in inputs for head in names}
    for name, array in inputs.items():
        for head, values in answer(detector, array).items():
            assert found[f"{name} {head}"].shape == (len(array), *heads[head])
            np.testing.assert_allclose(found[f"{name} {head}"], values, atol=1e-5)


def test_mlflow_has_its_output_signature(detector: keras.Model, loaded: Any) -> None:
    metadata = loaded.metadata
    assert metadata.metadata == {"labels": ["a", "b"], "data": {"records": "1f"}}
    assert metadata.signature.inputs is None, "it would allow only one type of images"
    found = {spec.name: (spec.type, spec.shape) for spec in metadata.signature.outputs}
    assert found == {name: (np.float32, (-1, *output.shape[1:])) for name, output in detector.output.items()}
    assert loaded.input_example.shape == (1, SIZE, SIZE, 3)
    assert not loaded.input_example.any(), "it must not be a patient's image"


def test_it_works_with_a_servers_json(detector: keras.Model, loaded: Any) -> None:
    """JSON integers as input, JSON numbers as output."""
    from mlflow.pyfunc.scoring_server import infer_and_parse_data, predictions_to_json

    array = images(2).astype(np.uint8)
    text = StringIO()
    predictions_to_json(loaded.predict(infer_and_parse_data({"inputs": array.tolist()})), text)
    found = json.loads(text.getvalue())["predictions"]
    for head, values in answer(detector, array).items():
        np.testing.assert_allclose(found[head], values, atol=1e-5)


@pytest.mark.parametrize("shape", [(32, 32, 3), (1, 32, 31, 3), (1, 32, 32, 4), (1, 32, 32)])
def test_images_of_another_shape_are_refused(loaded: Any, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"shape \(.*the model takes \(batch, 32, 32, 1 or 3\)"):
        loaded.predict(np.zeros(shape, np.uint8))


def test_the_librarys_own_layers_stay_registered(loaded: Any) -> None:
    """A logged model may come from another version of them."""
    from brain_tumor.model import dense_head, heads, rgb

    registered = keras.saving.get_custom_objects()
    layers = {
        "Rgb": rgb.Rgb,
        "BoxFromPlaceAndSize": heads.BoxFromPlaceAndSize,
        # Saved models contain the registered names, which therefore must not change.
        "PositionAnswers": dense_head.BoxDecoder,
        "BestAnswers": dense_head.BoxVoting,
    }
    for name, layer in layers.items():
        assert registered[f"brain_tumor>{name}"] is layer
