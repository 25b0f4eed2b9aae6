from pathlib import Path

import keras
import numpy as np
import pytest

from brain_tumor.artifacts.model import Backbone, ModelDescription, open_model, write_model
from brain_tumor.config import Head
from brain_tumor.model.detector import (
    build_detector,
    freeze,
    leaf_layers,
    resolve_trainable_layers,
    set_batchnorm_momentum,
    split_frozen_part,
    training_model,
)
from brain_tumor.model.saving import load_model
from brain_tumor.runtime.errors import InputError
from tests.unit.models import (
    BOTH,
    CLASSES,
    answer,
    backbone_paths,
    check_boxes,
    images,
    model_config,
    small_detector,
)

pytestmark = pytest.mark.slow


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
    assert set(answers) == {"labels", "boxes"} | ({"scores"} if head == "detector" else set())
    assert answers["labels"].shape == (6, CLASSES)
    assert answers["boxes"].shape == (6, CLASSES, 4)
    assert ((answers["labels"] > 0) & (answers["labels"] < 1)).all()
    check_boxes(answers["boxes"])
    # Images and slots have different predictions.
    assert len(np.unique(answers["boxes"].reshape(-1, 4), axis=0)) == 6 * CLASSES


def test_a_boxs_score_is_its_own_times_the_labels_probability(detector: keras.Model) -> None:
    answers = answer(detector, images(4))
    own = answer(training_model(detector, ["boxes"]), images(4))["boxes"][..., 4]
    assert answers["scores"].shape == (4, CLASSES)
    np.testing.assert_allclose(answers["scores"], answers["labels"] / (1 + np.exp(-own)), rtol=1e-4)

    alone = build_detector(model_config(), CLASSES, ["boxes"])
    own = answer(training_model(alone, ["boxes"]), images(4))["boxes"][..., 4]
    np.testing.assert_allclose(answer(alone, images(4))["scores"], 1 / (1 + np.exp(-own)), rtol=1e-4)


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_may_be_grey_or_rgb_bytes_or_floats(
    detector: keras.Model, channels: int, kind: type
) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 1))
    expected = answer(detector, np.repeat(grey, 3, axis=-1).astype(np.float32))
    found = answer(detector, np.repeat(grey, channels, axis=-1).astype(kind))
    for name, values in found.items():
        np.testing.assert_array_equal(values, expected[name])
    color = answer(detector, images(3))
    assert not np.allclose(color["labels"], answer(detector, images(3)[..., ::-1])["labels"], atol=1e-6)


def test_an_image_may_have_any_size() -> None:
    """With maps of odd sizes: 9, 5, 3 and 2 positions per side."""
    answers = answer(small_detector(image_size=33), images(2, 33))
    check_boxes(answers["boxes"])


@pytest.mark.parametrize("head", ["labels", "boxes"])
def test_a_model_with_one_head_has_no_layers_of_the_other(head: Head) -> None:
    model = build_detector(model_config(), CLASSES, [head])
    other = {"labels": "boxes", "boxes": "labels"}[head]
    assert set(model.output) == {"labels": {"labels"}, "boxes": {"boxes", "scores"}}[head]
    assert not [layer.name for layer in model.layers if layer.name.startswith(other)]
    assert answer(model, images(2))[head].shape[:2] == (2, CLASSES)


@pytest.mark.parametrize("head", ["detector", "pooled"])
def test_the_momentum_of_all_moving_statistics_is_the_configs(
    head: str, request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(head)
    norms = [layer for layer in leaf_layers(model) if isinstance(layer, keras.layers.BatchNormalization)]
    assert {layer.momentum for layer in norms} == {0.87}
    of_heads = {layer.name.split("_")[0] for layer in norms if layer in model.layers}
    assert of_heads == ({"labels", "boxes"} if head == "detector" else {"labels"})
    try:
        set_batchnorm_momentum(model, 0.6)
        assert {layer.momentum for layer in norms} == {0.6}
    finally:
        set_batchnorm_momentum(model, 0.87)


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
    freeze(detector, ["labels", "boxes"], 175)  # settings of an earlier phase must not matter
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
def test_how_many_layers_are_trainable(layers: int | None, fraction: float | None, expected: int) -> None:
    assert resolve_trainable_layers(345, layers, fraction) == expected


def test_more_layers_than_the_backbone_has_are_refused() -> None:
    with pytest.raises(InputError, match="trainable_layers=346 is out of range: the backbone has 345"):
        resolve_trainable_layers(345, 346, None)


def test_a_training_model_shares_weights_and_has_only_its_heads_outputs(detector: keras.Model) -> None:
    boxes = training_model(detector, ["boxes"])
    assert set(boxes.output) == {"boxes", "boxes_map"}
    assert not [layer.name for layer in boxes.layers if layer.name.startswith("labels")]
    labels = training_model(detector, ["labels"])
    assert set(labels.output) == {"labels"}
    for part in (boxes, labels):
        assert {id(weight) for weight in part.weights} <= {id(weight) for weight in detector.weights}


@pytest.mark.parametrize("head", ["detector", "pooled"])
def test_a_training_model_predicts_as_the_detector(head: str, request: pytest.FixtureRequest) -> None:
    detector = request.getfixturevalue(head)
    expected = answer(detector, images(3))
    found = answer(training_model(detector, BOTH), images(3))
    np.testing.assert_allclose(1 / (1 + np.exp(-found["labels"])), expected["labels"], atol=1e-6)
    np.testing.assert_allclose(found["boxes"][..., :4], expected["boxes"], atol=1e-6)
    if head == "pooled":
        assert set(found) == {"labels", "boxes"}
        return
    assert found["boxes_map"].shape == (3, 8, 8, CLASSES, 5)
    best = found["boxes_map"][..., 4].max(axis=(1, 2))
    np.testing.assert_array_equal(found["boxes"][..., 4], best)


@pytest.mark.parametrize(
    ("head", "heads", "layers", "kept"),
    [
        # The mean of the last map, the maximum of the pyramid and each class's score, in one vector.
        ("detector", ["labels"], 0, [(2048 + 16 + CLASSES,)]),
        ("detector", ["boxes"], 0, [(8, 8, 256), (4, 4, 512), (2, 2, 1024), (1, 1, 2048)]),
        ("detector", BOTH, 0, [(8, 8, 256), (4, 4, 512), (2, 2, 1024), (1, 1, 2048), (2048,)]),
        ("pooled", ["labels"], 0, [(2048,)]),
        ("pooled", ["boxes"], 0, [(2048,)]),
        ("pooled", BOTH, 0, [(2048,), (2048,)]),
        ("detector", BOTH, 20, [(32, 32, 3)]),
    ],
)
def test_a_model_is_the_sum_of_its_parts(
    head: str,
    heads: list[Head],
    layers: int,
    kept: list[tuple[int, ...]],
    request: pytest.FixtureRequest,
) -> None:
    detector = request.getfixturevalue(head)
    freeze(detector, heads, layers)
    whole = training_model(detector, heads)
    extractor, rest = split_frozen_part(whole)

    features = extractor(images(3), training=False)
    shapes = [tuple(each.shape[1:]) for each in keras.tree.flatten(features)]
    assert sorted(shapes) == sorted(kept)
    answers, expected = answer(rest, features), answer(whole, images(3))
    assert set(answers) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(answers[name], values, rtol=0, atol=1e-6)

    assert {id(weight) for weight in rest.weights} <= {id(weight) for weight in detector.weights}
    learned = {weight.path for weight in whole.trainable_weights}
    assert {weight.path for weight in rest.trainable_weights} == learned
    assert {path.split("_")[0] for path in learned if not path.startswith("conv")} >= set(heads)
    if not layers:
        assert not {weight.path for weight in rest.weights} & backbone_paths(detector.get_layer("backbone"))


def test_dropout_changes_in_each_epoch(pooled: keras.Model) -> None:
    """So features after it are not cached, even if everything there is frozen."""
    freeze(pooled, ["boxes"], 0)
    extractor, rest = split_frozen_part(training_model(pooled, BOTH))
    kept = [tuple(each.shape[1:]) for each in keras.tree.flatten(extractor.output)]
    assert kept == [(2048,), (2048,)]
    assert "labels_dropout" in {layer.name for layer in rest.layers}


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
        box_head="dense",
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
