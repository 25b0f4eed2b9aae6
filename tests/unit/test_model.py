import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from brain_tumor import compose
from brain_tumor.config import ModelConfig
from brain_tumor.errors import InputError
from brain_tumor.model import backbone as backbones
from brain_tumor.model.artifact import load_model, read_description, save_model
from brain_tumor.model.backbone import build_backbone, load_weights
from brain_tumor.model.detector import (
    build_detector,
    count_trainable_layers,
    freeze,
    select_heads,
    split_at_backbone,
)
from brain_tumor.model.heads import BOX_HEADS, BoxVotes, SizedBoxes, spatial_box_head

CLASSES = 5


def model_config(**changes: Any) -> ModelConfig:
    values: dict[str, Any] = {
        "backbone": "resnet50",
        "weights": "none",
        "image_size": 32,
        "batchnorm_momentum": 0.87,
        "box_head": "spatial",
        "head_width": 16,
        "dropout": 0.2,
    }
    return ModelConfig(**(values | changes))


def answer(model: keras.Model, inputs: np.ndarray) -> dict[str, np.ndarray]:
    """A model's answers by head. A plain call: `predict` would trace a graph first."""
    return {head: values.numpy() for head, values in model(inputs, training=False).items()}


def images(count: int, size: int = 32) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (count, size, size, 3)).astype(np.float32)


def check_boxes(boxes: np.ndarray) -> None:
    """Valid: 0 <= xmin <= xmax <= 1, likewise y."""
    assert np.isfinite(boxes).all()
    assert (boxes >= 0).all() and (boxes <= 1).all()
    assert (boxes[..., :2] <= boxes[..., 2:]).all()


@pytest.fixture(scope="module")
def detector() -> keras.Model:
    keras.utils.set_random_seed(0)
    return build_detector(model_config(), CLASSES, ["labels", "boxes"])


@pytest.fixture(scope="module")
def saved(detector: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the detector as `detector.keras` and its backbone's weights as `backbone.weights.h5`."""
    folder = tmp_path_factory.mktemp("saved")
    detector.save(folder / "detector.keras")
    detector.get_layer("backbone").save_weights(folder / "backbone.weights.h5")
    return folder


@pytest.fixture(scope="module")
def pooled() -> keras.Model:
    """A detector with the other box head."""
    keras.utils.set_random_seed(0)
    return build_detector(model_config(box_head="pooled"), CLASSES, ["labels", "boxes"])


@pytest.fixture(scope="module")
def resnet101() -> keras.Model:
    return build_detector(model_config(backbone="resnet101"), 3, ["labels", "boxes"])


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
def test_a_model_with_one_head_has_nothing_of_the_other(head: str) -> None:
    model = build_detector(model_config(), CLASSES, [head])
    other = {"labels": "boxes", "boxes": "labels"}[head]
    assert set(model.output) == {head}
    assert not [layer.name for layer in model.layers if layer.name.startswith(other)]
    assert answer(model, images(2))[head].shape[:2] == (2, CLASSES)


@pytest.mark.parametrize("heads", [[], ["mask"], ["labels", "mask"]])
def test_unknown_heads_are_refused(heads: list[str]) -> None:
    with pytest.raises(InputError, match="give one or both of labels, boxes"):
        build_detector(model_config(), CLASSES, heads)


def test_preprocessing_is_keras_s_own(detector: keras.Model) -> None:
    preprocessing = keras.Model(detector.input, detector.get_layer("preprocessing").output)
    x = images(2)
    expected = keras.applications.resnet.preprocess_input(x.copy())
    np.testing.assert_allclose(preprocessing(x), expected, rtol=0, atol=1e-4)


def test_a_second_resnet_has_its_own_preprocessing() -> None:
    model = build_detector(model_config(backbone="resnet101v2"), CLASSES, ["labels", "boxes"])
    preprocessing = keras.Model(model.input, model.get_layer("preprocessing").output)
    x = images(2)
    expected = keras.applications.resnet_v2.preprocess_input(x.copy())
    np.testing.assert_allclose(preprocessing(x), expected, rtol=0, atol=1e-6)
    check_boxes(answer(model, x)["boxes"])


def test_an_unknown_box_head_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"model\.box_head=voting is not known; choose one of pooled, spatial"
    ):
        build_detector(model_config(box_head="voting"), CLASSES, ["boxes"])


@pytest.mark.parametrize("scale", [1, 100, 10_000])
def test_boxes_are_valid_whatever_the_votes(scale: int) -> None:
    votes = np.random.default_rng(scale).normal(0, scale, (20, 4, 7, 3 * 5)).astype(np.float32)
    boxes = np.array(BoxVotes(3)(votes))
    assert boxes.shape == (20, 3, 4)
    check_boxes(boxes)


@pytest.mark.parametrize("scale", [1, 100, 10_000])
def test_boxes_are_valid_whatever_the_dense_layers_say(scale: int) -> None:
    numbers = np.random.default_rng(scale).normal(0, scale, (200, 3 * 4)).astype(np.float32)
    boxes = np.array(SizedBoxes(3)(numbers))
    assert boxes.shape == (200, 3, 4)
    check_boxes(boxes)


def test_every_valid_box_has_its_four_numbers() -> None:
    rng = np.random.default_rng(0)
    boxes = np.sort(rng.uniform(0.01, 0.99, (50, 2, 2)), axis=1).reshape(50, 4)
    size = boxes[:, 2:] - boxes[:, :2]
    shares = np.hstack([boxes[:, :2] / (1 - size), size])
    numbers = np.log(shares / (1 - shares)).astype(np.float32)  # the sigmoid's inverse
    np.testing.assert_allclose(SizedBoxes(1)(numbers)[:, 0], boxes, atol=1e-5)


@pytest.mark.parametrize("name", BOX_HEADS)
def test_what_moves_the_boxes(name: str) -> None:
    """Features that change places change a spatial head's boxes, and no pooled head's."""
    rng = np.random.default_rng(0)
    maps = [rng.random((1, size, size, 8), dtype=np.float32) for size in (8, 4, 2)]
    inputs = [keras.Input(values.shape[1:]) for values in maps]
    keras.utils.set_random_seed(0)
    head = keras.Model(inputs, BOX_HEADS[name](inputs, 3, 16))
    before, after = np.array(head(maps)), np.array(head([values[:, :, ::-1] for values in maps]))
    assert np.allclose(before, after, atol=1e-6) == (name == "pooled")


def test_a_vote_comes_from_where_it_stands() -> None:
    rows, columns, classes = 2, 5, 3
    votes = np.zeros((1, rows, columns, classes, 5), np.float32)
    votes[..., 1:] = -BoxVotes.INITIAL_DISTANCE  # each side half of the way to the image's edge
    for slot, (row, column) in enumerate([(0, 0), (0, 4), (1, 3)]):
        votes[0, row, column, slot, 0] = 100

    boxes = np.array(BoxVotes(classes)(votes.reshape(1, rows, columns, -1)))[0]

    # The centers of these positions: (0.1, 0.25), (0.9, 0.25) and (0.7, 0.75).
    expected = [[0.05, 0.125, 0.55, 0.625], [0.45, 0.125, 0.95, 0.625], [0.35, 0.375, 0.85, 0.875]]
    np.testing.assert_allclose(boxes, expected, atol=1e-6)


def test_resnet101_trains_its_top_150_layers_not_all_but_the_first_150(resnet101: keras.Model) -> None:
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
def test_freeze_leaves_nothing_else_trainable(detector: keras.Model, heads: list[str], layers: int) -> None:
    freeze(detector, ["labels", "boxes"], 175)  # what an earlier phase set must not matter
    freeze(detector, heads, layers)

    backbone = detector.get_layer("backbone")
    top = {layer.name for layer in backbone.layers[175 - layers :]}
    paths = [weight.path for weight in detector.trainable_weights]
    assert {path.split("/")[-2] for path in paths if path in _paths(backbone)} <= top
    assert bool([path for path in paths if path in _paths(backbone)]) == bool(layers)
    learning_heads = {path.split("/")[0].split("_")[0] for path in paths if path not in _paths(backbone)}
    assert learning_heads == set(heads)


def _paths(backbone: keras.Model) -> set[str]:
    return {weight.path for weight in backbone.weights}


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
        (None, 55 / 345, 55),  # whose product is 54.99999999999999
    ],
)
def test_how_many_layers_learn(layers: int | None, fraction: float | None, expected: int) -> None:
    assert count_trainable_layers(345, layers, fraction) == expected


@pytest.mark.parametrize(
    ("layers", "fraction", "words"),
    [
        (None, None, "exactly one of trainable_layers and trainable_fraction"),
        (150, 0.5, "exactly one of trainable_layers and trainable_fraction"),
        (0, 0.0, "exactly one of trainable_layers and trainable_fraction"),
        (346, None, "trainable_layers=346 is out of range: the backbone has 345"),
        (-1, None, "trainable_layers=-1 is out of range"),
        (None, 1.01, "trainable_fraction=1.01 is out of range"),
        (None, -0.1, "trainable_fraction=-0.1 is out of range"),
    ],
)
def test_how_many_layers_cannot_learn(layers: int | None, fraction: float | None, words: str) -> None:
    with pytest.raises(InputError, match=words):
        count_trainable_layers(345, layers, fraction)


def test_selected_heads_share_the_weights(detector: keras.Model) -> None:
    labels = select_heads(detector, ["labels"])
    assert set(labels.output) == {"labels"}
    assert not [layer.name for layer in labels.layers if layer.name.startswith("boxes")]
    assert labels.get_layer("backbone") is detector.get_layer("backbone")
    with pytest.raises(InputError, match="has no boxes head; it has: labels"):
        select_heads(labels, ["boxes"])


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
    head: str, heads: list[str], maps: int, request: pytest.FixtureRequest
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
    assert not {weight.path for weight in rest.weights} & _paths(detector.get_layer("backbone"))


@pytest.mark.parametrize("name", ["detector.keras", "backbone.weights.h5"])
def test_start_weights_come_from_a_file(detector: keras.Model, saved: Path, name: str) -> None:
    keras.utils.set_random_seed(1)
    # At another size: the backbone's weights do not know it.
    model = build_detector(model_config(weights=str(saved / name), image_size=48), CLASSES, ["labels"])
    pairs = zip(
        model.get_layer("backbone").get_weights(), detector.get_layer("backbone").get_weights(), strict=True
    )
    assert all(np.array_equal(weight, other) for weight, other in pairs)
    assert not np.array_equal(
        model.get_layer("labels").get_weights()[0], detector.get_layer("labels").get_weights()[0]
    )
    assert momenta(model) == [0.87] * 53


def momenta(model: keras.Model) -> list[float]:
    """The momentum of each of a backbone's normalizations."""
    layers = model.get_layer("backbone").layers
    return [layer.momentum for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]


def test_the_momentum_of_all_moving_statistics_is_the_configs(detector: keras.Model) -> None:
    assert momenta(detector) == [0.87] * 53


@pytest.mark.filterwarnings("ignore:Skipping nested container")
def test_weights_that_do_not_fit_are_refused(resnet101: keras.Model, saved: Path, tmp_path: Path) -> None:
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    other.save(tmp_path / "other.keras")
    (tmp_path / "broken.weights.h5").write_text("no HDF5")
    (tmp_path / "broken.keras").write_text("no archive")
    (tmp_path / "weights.pt").write_text("of another framework")

    shutil.copy(saved / "detector.keras", tmp_path / "resnet50.keras")
    shutil.copy(saved / "backbone.weights.h5", tmp_path / "resnet50.weights.h5")

    for file in sorted(tmp_path.iterdir()):
        with pytest.raises(InputError, match=rf"{file.name} does not fit the 42,658,176-weight backbone"):
            load_weights(resnet101.get_layer("backbone"), file)
    with pytest.raises(InputError, match=r"missing\.keras is not there; give imagenet, none or the path"):
        build_backbone(model_config(weights=str(tmp_path / "missing.keras")))


@pytest.mark.parametrize("name", backbones.BACKBONES)
@pytest.mark.parametrize(("weights", "asked"), [("imagenet", "imagenet"), ("none", None)])
def test_a_backbone_is_that_of_keras(
    monkeypatch: pytest.MonkeyPatch, name: str, weights: str, asked: str | None
) -> None:
    """Its constructor is intercepted, since a test downloads nothing: it builds without weights."""
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
        (1, 8, 8, 512),
        (1, 4, 4, 1024),
        (1, 2, 2, 2048),
    ]
    for features in maps:
        assert features.numpy().min() == 0 < features.numpy().max(), "it is activated"


def test_the_backbones_of_the_configuration_are_those_of_the_library() -> None:
    files = Path(compose.CONF / "model").glob("*.yaml")
    assert {path.stem for path in files} == set(backbones.BACKBONES)
    for name in backbones.BACKBONES:
        assert compose.compose([f"model={name}"]).model.backbone == name


def test_a_width_that_cannot_be_grouped_is_refused() -> None:
    features = [keras.Input((8, 8, 4))]
    with pytest.raises(InputError, match=r"head_width is 12; give a multiple of 8"):
        spatial_box_head(features, 3, 12)


def test_an_unknown_backbone_is_refused() -> None:
    with pytest.raises(InputError, match=r"model\.backbone=vgg16 is not known; choose one of .*resnet101"):
        build_backbone(model_config(backbone="vgg16"))


@pytest.mark.parametrize("head", ["detector", "pooled"])
def test_a_model_artifact_predicts_as_the_model_did(
    head: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    detector = request.getfixturevalue(head)
    save_model(detector, {"title": "a title"}, tmp_path / "model")
    loaded = load_model(tmp_path / "model")

    assert read_description(tmp_path / "model") == {"title": "a title"}
    assert list(loaded.output) == list(detector.output)
    expected = answer(detector, images(4))
    for head, answers in answer(loaded, images(4)).items():
        np.testing.assert_allclose(answers, expected[head], rtol=0, atol=1e-6)


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no model artifact"):
        load_model(tmp_path)
    with pytest.raises(InputError, match="is no model artifact"):
        read_description(tmp_path)
