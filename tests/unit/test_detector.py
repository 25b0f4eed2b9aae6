from pathlib import Path

import keras
import numpy as np
import pytest
from models import BOTH, CLASSES, answer, backbone_paths, check_boxes, images, model_config, small_detector

from brain_tumor.artifacts.model import Backbone, ModelDescription, open_model, write_model
from brain_tumor.config import Head
from brain_tumor.model.detector import (
    build_detector,
    count_trainable_layers,
    freeze,
    select_heads,
    split_at_backbone,
)
from brain_tumor.model.saving import load_model
from brain_tumor.runtime.errors import InputError


@pytest.fixture(scope="module")
def detector() -> keras.Model:
    return small_detector()


@pytest.fixture(scope="module")
def pooled() -> keras.Model:
    """A detector with the other box head."""
    return small_detector(box_head="pooled")


@pytest.mark.parametrize("head", ["detector", "pooled"])
def test_one_pass_gives_labels_and_boxes_in_class_slots(head: str, request: pytest.FixtureRequest) -> None:
    answers = answer(request.getfixturevalue(head), images(6))
    assert set(answers) == {"labels", "boxes"}
    assert answers["labels"].shape == (6, CLASSES)
    assert answers["boxes"].shape == (6, CLASSES, 4)
    assert ((answers["labels"] > 0) & (answers["labels"] < 1)).all()
    check_boxes(answers["boxes"])
    # Images and slots have answers of their own.
    assert len(np.unique(answers["boxes"].reshape(-1, 4), axis=0)) == 6 * CLASSES


@pytest.mark.parametrize("head", ["labels", "boxes"])
def test_a_model_with_one_head_has_nothing_of_the_other(head: Head) -> None:
    model = build_detector(model_config(), CLASSES, [head])
    other = {"labels": "boxes", "boxes": "labels"}[head]
    assert set(model.output) == {head}
    assert not [layer.name for layer in model.layers if layer.name.startswith(other)]
    assert answer(model, images(2))[head].shape[:2] == (2, CLASSES)


def test_resnet101_trains_its_top_150_layers_not_all_but_the_first_150() -> None:
    resnet101 = build_detector(model_config(backbone="resnet101"), 3, BOTH)
    backbone = resnet101.get_layer("backbone")
    assert len(backbone.layers) == 345

    freeze(resnet101, ["labels", "boxes"], 150)

    trainable = [layer.name for layer in backbone.layers if layer.trainable]
    assert len(trainable) == 150
    assert trainable[0] == "conv4_block12_1_relu"  # in the middle of a residual block
    assert trainable[-1] == "conv5_block3_out"
    assert trainable == [layer.name for layer in backbone.layers[-150:]]
    top = {weight.path for layer in backbone.layers[-150:] for weight in layer.weights}
    learned = {weight.path for weight in backbone.trainable_weights}
    assert learned == {path for path in top if "moving_" not in path}
    assert learned


@pytest.mark.parametrize("heads", [["labels"], ["boxes"], ["labels", "boxes"], []])
@pytest.mark.parametrize("layers", [0, 20, 175])
def test_freeze_leaves_nothing_else_trainable(detector: keras.Model, heads: list[Head], layers: int) -> None:
    freeze(detector, ["labels", "boxes"], 175)  # what an earlier phase set must not matter
    freeze(detector, heads, layers)

    backbone = detector.get_layer("backbone")
    top = {layer.name for layer in backbone.layers[175 - layers :]}
    paths = [weight.path for weight in detector.trainable_weights]
    assert {path.split("/")[-2] for path in paths if path in backbone_paths(backbone)} <= top
    assert bool([path for path in paths if path in backbone_paths(backbone)]) == bool(layers)
    learning_heads = {
        path.split("/")[0].split("_")[0] for path in paths if path not in backbone_paths(backbone)
    }
    assert learning_heads == set(heads)


@pytest.mark.parametrize(
    ("layers", "fraction", "expected"),
    [
        (150, None, 150),
        (0, None, 0),
        (345, None, 345),
        (None, 0.0, 0),
        (None, 1.0, 345),
        (None, 0.5, 172),
        (None, 0.001, 0),
        (None, 0.43, 148),
        (None, 0.29, 100),
        (None, None, 345),
        (None, 55 / 345, 55),  # whose product is 54.99999999999999
    ],
)
def test_how_many_layers_learn(layers: int | None, fraction: float | None, expected: int) -> None:
    assert count_trainable_layers(345, layers, fraction) == expected


def test_more_layers_than_there_are_cannot_learn() -> None:
    with pytest.raises(InputError, match="trainable_layers=346 is out of range: the backbone has 345"):
        count_trainable_layers(345, 346, None)


def test_selected_heads_share_the_weights(detector: keras.Model) -> None:
    labels = select_heads(detector, ["labels"])
    assert set(labels.output) == {"labels"}
    assert not [layer.name for layer in labels.layers if layer.name.startswith("boxes")]
    assert labels.get_layer("backbone") is detector.get_layer("backbone")


@pytest.mark.parametrize(
    ("head", "heads", "maps"),
    [
        ("detector", ["labels"], 1),
        ("detector", ["boxes"], 3),
        ("detector", ["labels", "boxes"], 3),
        ("pooled", ["boxes"], 1),
        ("pooled", ["labels", "boxes"], 1),
    ],
)
def test_a_model_is_the_sum_of_its_parts(
    head: str, heads: list[Head], maps: int, request: pytest.FixtureRequest
) -> None:
    detector = request.getfixturevalue(head)
    extractor, rest = split_at_backbone(select_heads(detector, heads))
    features = extractor(images(3), training=False)
    assert len(keras.tree.flatten(features)) == maps
    answers = answer(rest, features)
    assert set(answers) == set(heads)
    whole = answer(detector, images(3))
    for head in heads:
        np.testing.assert_allclose(answers[head], whole[head], rtol=0, atol=1e-6)
    detectors = {id(weight) for weight in detector.weights}
    assert {id(weight) for weight in rest.weights} <= detectors
    assert not {weight.path for weight in rest.weights} & backbone_paths(detector.get_layer("backbone"))


@pytest.mark.parametrize("head", ["detector", "pooled"])
def test_a_model_artifact_predicts_as_the_model_did(
    head: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    detector = request.getfixturevalue(head)
    description = ModelDescription(
        title="a title",
        labels=[f"label{slot}" for slot in range(CLASSES)],
        heads=BOTH,
        image_size=32,
        notice="",
        backbone=Backbone(name="resnet50", weights="none"),
        box_head="spatial",
        phases=[],
        metrics={},
        mlflow_run_id="",
    )
    write_model(tmp_path / "model", description, detector.save)
    model = open_model(tmp_path / "model")
    loaded = load_model(model)

    assert model.description == description
    assert list(loaded.output) == list(detector.output)
    expected = answer(detector, images(4))
    for head, answers in answer(loaded, images(4)).items():
        np.testing.assert_allclose(answers, expected[head], rtol=0, atol=1e-6)
