import keras
import numpy as np
import pytest
import tensorflow as tf

from brain_tumor.config import HEADS, Head, ModelConfig, PhaseConfig
from brain_tumor.config.training import LossWeights
from brain_tumor.losses import BOX_LOSSES, DetectionLoss
from brain_tumor.model.dense_head import BoxVoting, dense_box_head
from brain_tumor.model.detector import build_detector, freeze, training_model
from brain_tumor.model.graphs import flatten_graphs
from brain_tumor.model.heads import label_head, pooled_box_head
from brain_tumor.training.compile import compile_model

pytestmark = pytest.mark.slow

CLASS_WEIGHTS = {"core": 1.0, "edema (old)": 2.0, "rim": 3.0}


def heads_alone(dense: bool, heads: list[Head]) -> keras.Model:
    """The result of `training_model`, without a backbone."""
    keras.utils.set_random_seed(0)
    features = keras.Input((4, 4, 8))
    outputs = {}
    if "labels" in heads:
        label_head([keras.layers.GlobalAveragePooling2D()(features)], 3, 0.0)
        pooled = keras.layers.GlobalAveragePooling2D()(features)
        outputs["labels"] = keras.layers.Dense(3, name="labels_logits")(pooled)
    if "boxes" in heads and dense:
        outputs["boxes_map"] = dense_box_head(features, 3, 16)
        outputs["boxes"] = BoxVoting(name="boxes_best")(outputs["boxes_map"])
    elif "boxes" in heads:
        outputs["boxes"] = pooled_box_head([features], 3, 16)
    return keras.Model(features, outputs)


def truth_for(model: keras.Model, count: int = 5) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    boxes: np.ndarray = np.sort(rng.random((count, 3, 2, 2), np.float32), axis=2).reshape(count, 3, 4)
    boxes[rng.random((count, 3)) < 0.3] = 0
    labels = np.asarray(boxes.any(axis=-1), np.float32)
    return {name: labels if name == "labels" else boxes for name in model.output}


@pytest.mark.parametrize("name", BOX_LOSSES)
def test_the_box_loss_is_the_phases(name: str) -> None:
    phase = PhaseConfig(box_loss=name, loss_weights=LossWeights(boxes=3.0, scores=0.5))  # type: ignore[arg-type]
    pooled, dense = heads_alone(False, ["boxes"]), heads_alone(True, ["boxes"])
    compile_model(pooled, phase, CLASS_WEIGHTS, 10)
    compile_model(dense, phase, CLASS_WEIGHTS, 10, reduction="sum")

    assert {head: type(loss) for head, loss in pooled.loss.items()} == {"boxes": BOX_LOSSES[name]}
    assert set(dense.loss) == {"boxes_map"}
    loss = dense.loss["boxes_map"]
    assert type(loss) is DetectionLoss
    assert (loss.box_loss, loss.box_weight, loss.score_weight, loss.reduction) == (name, 3.0, 0.5, "sum")


@pytest.mark.parametrize("dense", [True, False], ids=["dense", "pooled"])
def test_each_heads_loss_has_its_weight(dense: bool) -> None:
    phase = PhaseConfig(loss_weights=LossWeights(labels=0.3, boxes=5.0, scores=0.7))
    model = heads_alone(dense, list(HEADS))
    compile_model(model, phase, CLASS_WEIGHTS, 10)
    images, truth = np.random.default_rng(1).random((5, 4, 4, 8), np.float32), truth_for(model)
    figures = model.evaluate(images, truth, verbose=0, return_dict=True)

    answers = model(images, training=False)
    own = {name: float(loss(truth[name], answers[name])) for name, loss in model.loss.items()}
    of_boxes = own["boxes_map"] if dense else 5 * own["boxes"]
    assert figures["loss"] == pytest.approx(0.3 * own["labels"] + of_boxes, rel=1e-5)
    assert model.loss["labels"].class_weights == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("dense", "heads"),
    [(True, HEADS), (True, ["boxes"]), (False, HEADS), (False, ["boxes"]), (True, ["labels"])],
)
def test_metrics_are_named_by_head_and_label(dense: bool, heads: list[Head]) -> None:
    model = heads_alone(dense, list(heads))
    compile_model(model, PhaseConfig(), CLASS_WEIGHTS, 10)
    figures = model.evaluate(np.ones((5, 4, 4, 8)), truth_for(model), verbose=0, return_dict=True)

    names = ("core", "edema _old_", "rim")
    expected = {"loss"}
    if "labels" in heads:
        expected |= {"labels_auc"}
    if "boxes" in heads:
        expected |= {f"boxes_{name}" for name in ("iou", "recall_at_50", "mse", "mae")}
        expected |= {f"boxes_iou_{name}" for name in names}
    if "boxes" in heads and dense:
        expected |= {f"boxes_ap50_{name}" for name in names}
    if len(heads) > 1:
        expected |= {f"{name}_loss" for name in model.loss}
    assert set(figures) == expected


def test_a_label_missing_in_validation_has_no_box_metric() -> None:
    """Otherwise it would be 0, as if all its boxes were wrong."""
    model = heads_alone(True, list(HEADS))
    compile_model(model, PhaseConfig(), CLASS_WEIGHTS, 10, measured_labels=["core", "rim"])
    figures = model.evaluate(np.ones((5, 4, 4, 8)), truth_for(model), verbose=0, return_dict=True)
    assert {name for name in figures if "edema" in name} == set()
    assert {"boxes_iou_core", "boxes_iou_rim", "boxes_ap50_rim", "boxes_iou"} <= set(figures)


@pytest.mark.parametrize("one_graph", [True, False])
def test_a_step_is_traced_once(one_graph: bool) -> None:
    """Keras would trace it twice if the first trace created a variable of the optimizer or a metric."""
    config = ModelConfig(backbone="resnet50", weights="none", image_size=32, head_width=16)
    detector = build_detector(config, 3, list(HEADS))
    freeze(detector, list(HEADS), 20)
    model = training_model(detector, list(HEADS))
    compile_model(model, PhaseConfig(clip_norm=1.0), CLASS_WEIGHTS, 4, False)
    steps: list[str] = []
    for name in ("train_step", "test_step"):
        step = getattr(model, name)
        setattr(model, name, lambda data, name=name, step=step: (steps.append(name), step(data))[1])
    if one_graph:
        flatten_graphs(model, training=True)
    examples = np.ones((5, 32, 32, 1), np.uint8), truth_for(model)
    batches = tf.data.Dataset.from_tensor_slices(examples).batch(2)

    history = model.fit(
        batches.repeat(), steps_per_epoch=2, epochs=2, validation_data=batches, verbose=0, shuffle=False
    )

    assert steps == ["train_step", "test_step"]
    assert len(history.history["val_loss"]) == 2
