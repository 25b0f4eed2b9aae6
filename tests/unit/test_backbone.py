import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import keras
import numpy as np
import pytest

from brain_tumor.config import ModelConfig
from brain_tumor.config.compose import FILES, compose
from brain_tumor.model import backbone as backbones
from brain_tumor.model.backbone import build_backbone, load_weights
from brain_tumor.model.detector import build_detector
from brain_tumor.runtime.errors import InputError
from tests.unit.models import BOTH, CLASSES, answer, check_boxes, images, model_config, small_detector

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def detector() -> keras.Model:
    return small_detector()


@pytest.fixture(scope="module")
def saved(detector: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the detector as `detector.keras` and its backbone's weights as `backbone.weights.h5`."""
    folder = tmp_path_factory.mktemp("saved")
    detector.save(folder / "detector.keras")
    detector.get_layer("backbone").save_weights(folder / "backbone.weights.h5")
    return folder


def test_preprocessing_equals_that_of_keras(detector: keras.Model) -> None:
    preprocessing = keras.Model(detector.input, detector.get_layer("preprocessing").output)
    x = images(2)
    expected = keras.applications.resnet.preprocess_input(x.copy())
    np.testing.assert_allclose(preprocessing(x), expected, rtol=0, atol=1e-4)


def test_a_second_resnet_has_its_own_preprocessing() -> None:
    model = build_detector(model_config(backbone="resnet101v2"), CLASSES, BOTH)
    preprocessing = keras.Model(model.input, model.get_layer("preprocessing").output)
    x = images(2)
    expected = keras.applications.resnet_v2.preprocess_input(x.copy())
    np.testing.assert_allclose(preprocessing(x), expected, rtol=0, atol=1e-6)
    check_boxes(answer(model, x)["boxes"])


@pytest.mark.parametrize("name", ["detector.keras", "backbone.weights.h5"])
def test_start_weights_come_from_a_file(detector: keras.Model, saved: Path, name: str) -> None:
    keras.utils.set_random_seed(1)
    # At another size, on which the backbone's weights do not depend.
    model = build_detector(model_config(weights=str(saved / name), image_size=48), CLASSES, ["labels"])
    pairs = zip(
        model.get_layer("backbone").get_weights(), detector.get_layer("backbone").get_weights(), strict=True
    )
    assert all(np.array_equal(weight, other) for weight, other in pairs)
    assert not np.array_equal(
        model.get_layer("labels_logits").get_weights()[0],
        detector.get_layer("labels_logits").get_weights()[0][:2048],
    )


@pytest.mark.filterwarnings("ignore:Skipping nested container")
def test_weights_that_do_not_fit_are_refused(saved: Path, tmp_path: Path) -> None:
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    other.save(tmp_path / "other.keras")
    (tmp_path / "broken.weights.h5").write_text("no HDF5")
    (tmp_path / "broken.keras").write_text("no archive")
    (tmp_path / "weights.pt").write_text("of another framework")

    shutil.copy(saved / "detector.keras", tmp_path / "resnet50.keras")
    shutil.copy(saved / "backbone.weights.h5", tmp_path / "resnet50.weights.h5")

    resnet101 = build_backbone(model_config(backbone="resnet101"))
    for file in sorted(tmp_path.iterdir()):
        with pytest.raises(InputError, match=rf"{file.name} does not fit the 42,658,176-weight backbone"):
            load_weights(resnet101, str(file))
    with pytest.raises(InputError, match=r"missing\.keras does not exist; give imagenet, none or the path"):
        build_backbone(model_config(weights=str(tmp_path / "missing.keras")))


@pytest.mark.parametrize("name", backbones.BACKBONES)
@pytest.mark.parametrize(("weights", "asked"), [("imagenet", "imagenet"), ("none", None)])
def test_a_backbone_is_that_of_keras(
    monkeypatch: pytest.MonkeyPatch, name: str, weights: str, asked: str | None
) -> None:
    """The constructor is replaced to avoid a download: it builds without weights."""
    known = backbones.BACKBONES[name]
    calls, built = [], []

    def constructor(**options: Any) -> keras.Model:
        calls.append(options)
        built.append(known.build(**(options | {"weights": None})))
        return built[0]

    monkeypatch.setitem(backbones.BACKBONES, name, replace(known, build=constructor))
    backbone = build_backbone(model_config(backbone=name, weights=weights, image_size=64))

    assert calls == [{"include_top": False, "weights": asked, "input_shape": (64, 64, 3)}]
    assert [layer.name for layer in backbone.layers] == [layer.name for layer in built[0].layers]
    assert backbone.output_names[-1] == built[0].layers[-1].name
    maps = backbone(known.preprocess(images(1, 64)), training=False)
    assert [tuple(features.shape) for features in maps] == [
        (1, 16, 16, 256),
        (1, 8, 8, 512),
        (1, 4, 4, 1024),
        (1, 2, 2, 2048),
    ]
    for features in maps:
        assert features.numpy().min() == 0 < features.numpy().max(), "the activation is applied"


def test_the_backbones_of_the_configuration_are_those_of_the_library() -> None:
    assert set(get_args(ModelConfig.model_fields["backbone"].annotation)) == set(backbones.BACKBONES)
    assert {path.stem for path in (FILES / "model").glob("*.yaml")} == set(backbones.BACKBONES)
    for name in backbones.BACKBONES:
        assert compose([f"model={name}"]).model.backbone == name
