import functools
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from mlflow import MlflowClient

from brain_tumor import tracking
from brain_tumor.cli import main
from brain_tumor.compose import compose, step_configs
from brain_tumor.config import PhaseConfig, TrainConfig, from_json
from brain_tumor.data.dataset import SYNTHETIC_NOTICE
from brain_tumor.errors import InputError
from brain_tumor.geometry import box_iou
from brain_tumor.model.artifact import MODEL_FILE, load_model, read_description, read_histories
from brain_tumor.storage import MANIFEST
from brain_tumor.training import trainer
from brain_tumor.training.callbacks import Checkpointer, EpochLog, FiniteLoss, Progress
from brain_tumor.training.checkpoints import Checkpoints
from brain_tumor.training.input_pipeline import load_split, to_model_input
from brain_tumor.training.learner import select_learner
from brain_tumor.training.tensorboard import PREDICTED, TRUE
from brain_tumor.training.trainer import out_of_memory_explained, train

TOP_LAYERS = 20


@pytest.fixture(scope="module")
def config(tiny_overrides: list[str]) -> Callable[..., TrainConfig]:
    """Makes a phase's tiny config, with changes of the phase's own keys."""

    def make(name: str, *overrides: str, **phase: Any) -> TrainConfig:
        changes = [f"phases.{name}.{key}={value}" for key, value in phase.items()]
        sections = step_configs(compose([*tiny_overrides, *overrides, *changes]))
        return from_json(TrainConfig, sections[name])

    return make


# On features that are computed once, at a rate so high that the model soon gets worse again.
HASTY: dict[str, Any] = {"trainable_fraction": 0.0, "augment": "false", "learning_rate": 1e-2}


@pytest.fixture(scope="module")
def boxes_model(
    config: Callable[..., TrainConfig], tiny_records: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The box head's training on a frozen random backbone, until the first epoch that is not better."""
    output = tmp_path_factory.mktemp("models") / "boxes"
    train(config("phase1_box", **HASTY, epochs=40, early_stopping_patience=1), tiny_records, output)
    return output


@pytest.fixture(scope="module")
def labels_model(config: Callable[..., TrainConfig], tiny_records: Path, boxes_model: Path) -> Path:
    """Then the class head's, through the frozen backbone, since its images change."""
    output = boxes_model.parent / "labels"
    train(config("phase2_classification", augment="true"), tiny_records, output, boxes_model)
    return output


@pytest.fixture(scope="module")
def tracked(labels_model: Path) -> str:
    """The address of an MLflow store for the last training."""
    return f"sqlite:///{labels_model.parent / 'mlflow.db'}"


@pytest.fixture(scope="module")
def tuned_model(
    config: Callable[..., TrainConfig], tiny_records: Path, labels_model: Path, tracked: str
) -> Path:
    """Then both heads' and the top of the backbone, tracked as a part of a pipeline run."""
    output = labels_model.parent / "tuned"
    location = (labels_model.parent / "mlflow-artifacts").as_uri()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", tracked)
        with tracking.open_run("pipeline", artifact_location=location) as parent:
            patch.setenv(tracking.PARENT, parent.id)
            published = labels_model.parent / "published"
            tuned = config("phase3_finetune", trainable_layers=TOP_LAYERS, publish_to=published)
            train(tuned, tiny_records, output, labels_model)
    return output


@functools.cache
def loaded(path: Path) -> keras.Model:
    """The model of an artifact that stays as it is."""
    return load_model(path)


def changed_weights(before: keras.Model, after: keras.Model) -> set[str]:
    """Paths of the weights that are not bit-identical."""
    pairs = list(zip(before.weights, after.weights, strict=True))
    assert all(weight.path == other.path for weight, other in pairs)
    return {weight.path for weight, other in pairs if weight.numpy().tobytes() != other.numpy().tobytes()}


def valid_examples(records: Path) -> tuple[np.ndarray, np.ndarray]:
    """The validation images (float32) and their true boxes."""
    examples = list(load_split(records, "valid", 3, 32).as_numpy_iterator())
    images = to_model_input(np.stack([example["image"] for example in examples])).numpy()
    return images, np.stack([example["boxes"] for example in examples])


def predict(model: Path, head: str, images: np.ndarray) -> np.ndarray:
    return loaded(model)(images, training=False)[head].numpy()


def test_the_class_heads_training_leaves_the_boxes_as_they_are(
    boxes_model: Path, labels_model: Path, tiny_records: Path
) -> None:
    assert changed_weights(loaded(boxes_model), loaded(labels_model)) == {"labels/kernel", "labels/bias"}
    images, _ = valid_examples(tiny_records)
    np.testing.assert_array_equal(
        predict(boxes_model, "boxes", images), predict(labels_model, "boxes", images)
    )


def test_the_best_epochs_weights_are_handed_on(boxes_model: Path, tiny_records: Path) -> None:
    description = read_description(boxes_model)
    phase = description["phases"][0]
    scores = [epoch["val_boxes_iou"] for epoch in phase["epochs"]]
    best = int(np.argmax(scores))
    assert phase["best_epoch"] == best + 1
    assert len(scores) == best + 2 < 40, "early stopping ended it an epoch after the best"
    assert scores[best] - scores[-1] > 1e-4, "else the last weights would do as well"

    images, truth = valid_examples(tiny_records)
    there = truth.any(axis=-1)
    iou = box_iou(predict(boxes_model, "boxes", images)[there], truth[there]).mean()
    assert iou == pytest.approx(scores[best], abs=1e-5)


def test_the_class_heads_figure_is_that_of_the_model(labels_model: Path, tiny_records: Path) -> None:
    examples = list(load_split(tiny_records, "valid", 3, 32).as_numpy_iterator())
    images, _ = valid_examples(tiny_records)
    auc = keras.metrics.AUC(multi_label=True, num_labels=3)
    auc.update_state([example["labels"] for example in examples], predict(labels_model, "labels", images))
    metrics = read_description(labels_model)["metrics"]
    assert set(metrics) == {"val_loss", "val_labels_auc"}
    assert metrics["val_labels_auc"] == pytest.approx(float(auc.result()), abs=1e-3)


def test_the_same_seed_gives_the_same_figures_and_weights(
    config: Callable[..., TrainConfig], boxes_model: Path, tiny_records: Path, tmp_path: Path
) -> None:
    """And the best epoch's weights are handed on without early stopping too."""
    description = read_description(boxes_model)
    epochs = description["phases"][0]["epochs"]
    again = config("phase1_box", **HASTY, epochs=len(epochs), early_stopping_patience=30)

    metrics = train(again, tiny_records, tmp_path / "model")

    repeated = read_description(tmp_path / "model")["phases"][0]["epochs"]
    assert [_figures(epoch) for epoch in repeated] == [_figures(epoch) for epoch in epochs]
    assert metrics == description["metrics"]
    assert changed_weights(loaded(boxes_model), load_model(tmp_path / "model")) == set()


def _figures(epoch: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in epoch.items() if name != "seconds"}


def test_the_description_says_what_the_model_is(
    config: Callable[..., TrainConfig], boxes_model: Path, labels_model: Path, tuned_model: Path
) -> None:
    description = read_description(tuned_model)
    assert description["title"] == "phase3 finetune"
    assert description["labels"] == ["label0", "label1", "label2"]
    assert description["heads"] == ["labels", "boxes"]
    assert description["image_size"] == 32
    assert description["backbone"] == {"name": "resnet50", "weights": "none"}
    assert description["notice"] == SYNTHETIC_NOTICE
    phases = description["phases"]
    assert [phase["name"] for phase in phases] == ["phase1_box", "phase2_classification", "phase3_finetune"]
    assert [phase["trainable_layers"] for phase in phases] == [0, 0, TOP_LAYERS]
    assert phases[:2] == read_description(labels_model)["phases"]
    assert phases[:1] == read_description(boxes_model)["phases"]
    assert phases[2]["config"]["phase"]["trainable_layers"] == TOP_LAYERS
    assert phases[2]["best_epoch"] == 1
    assert set(description["metrics"]) == {
        "val_loss",
        "val_boxes_loss",
        "val_labels_loss",
        "val_boxes_iou",
        "val_boxes_recall_at_50",
        "val_boxes_mse",
        "val_boxes_mae",
        "val_labels_auc",
    }
    assert description["metrics"].items() <= phases[2]["epochs"][0].items()

    assert read_histories([boxes_model, tuned_model]) == {phase["name"]: phase["epochs"] for phase in phases}


def test_the_title_tells_of_a_backbone_that_never_learned(boxes_model: Path, labels_model: Path) -> None:
    assert read_description(boxes_model)["title"] == "phase1 box (frozen random backbone)"
    assert read_description(labels_model)["title"] == "phase2 classification (frozen random backbone)"


def test_a_model_file_has_no_optimizer_state(tuned_model: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tuned_model / MODEL_FILE) as archive:
        assert not json.loads(archive.read("config.json"))["compile_config"]
        archive.extract("model.weights.h5", tmp_path)
    with h5py.File(tmp_path / "model.weights.h5") as file:
        assert "optimizer" not in file
        sizes: list[int] = []
        file.visititems(lambda _, item: sizes.append(item.size) if isinstance(item, h5py.Dataset) else None)
    weights = loaded(tuned_model).count_params()
    assert weights <= sum(sizes) < weights + 100  # the random generators' seeds come on top


def test_a_training_is_tracked_inside_of_the_pipelines_run(
    tuned_model: Path, tracked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracked)
    client = MlflowClient()
    description = read_description(tuned_model)
    run = client.get_run(description["mlflow_run_id"])
    parent = client.get_run(run.data.tags["mlflow.parentRunId"])

    assert parent.info.run_name == "pipeline"
    assert run.info.run_name == "phase3_finetune"
    assert run.info.status == parent.info.status == "FINISHED"
    assert run.data.params["phase.learning_rate"] == "0.0003"
    assert run.data.params["model.backbone"] == "resnet50"
    [point] = client.get_metric_history(run.info.run_id, "val_boxes_iou")
    assert (point.step, point.value) == (1, description["metrics"]["val_boxes_iou"])
    assert run.data.metrics["best_val_boxes_iou"] == point.value
    assert run.data.tags["data"] == "synthetic"
    assert len(client.search_logged_models([run.info.experiment_id])) == 1


def test_a_model_is_published_where_its_phase_says(tuned_model: Path, tracked: str) -> None:
    [copy] = (tuned_model.parent / "published").iterdir()
    for name in (MANIFEST, MODEL_FILE):
        assert (copy / name).read_bytes() == (tuned_model / name).read_bytes()
    run = MlflowClient(tracked).get_run(read_description(tuned_model)["mlflow_run_id"])
    assert run.data.tags["published"] == str(copy)


@pytest.fixture
def untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails the test if a training gets so far as to load its start model."""
    monkeypatch.setattr(trainer, "load_model", lambda path: pytest.fail(f"{path} was loaded"))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.image_size=64", ["image_size 32", "needs 64"]),
        ("model.backbone=resnet101", ["backbone is resnet50", "resnet101"]),
        ("model.box_head=pooled", ["box head is spatial", "pooled"]),
        ("phases.phase2_classification.heads=[labels]", ["heads", "needs ['labels']"]),
    ],
)
def test_a_start_model_that_does_not_fit_is_refused_before_training(
    config: Callable[..., TrainConfig],
    boxes_model: Path,
    tiny_records: Path,
    tmp_path: Path,
    untouched: None,
    override: str,
    words: list[str],
) -> None:
    with pytest.raises(InputError, match="phase2_classification: the start model") as caught:
        train(config("phase2_classification", override), tiny_records, tmp_path / "model", boxes_model)
    for word in words:
        assert word in str(caught.value)
    assert not (tmp_path / "model").exists()


def test_a_start_model_of_other_labels_is_refused_before_training(
    config: Callable[..., TrainConfig],
    boxes_model: Path,
    tiny_records: Path,
    tmp_path: Path,
    untouched: None,
) -> None:
    records = Path(shutil.copytree(tiny_records, tmp_path / "records"))
    manifest = json.loads((records / MANIFEST).read_text())
    (records / MANIFEST).write_text(json.dumps(manifest | {"labels": ["core", "edema", "rim"]}))
    with pytest.raises(InputError, match=r"labels \['label0', .*needs \['core', 'edema', 'rim'\]"):
        train(config("phase2_classification"), records, tmp_path / "model", boxes_model)


def test_a_start_that_is_no_model_is_refused(
    config: Callable[..., TrainConfig], tiny_records: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="holds a records artifact where a model artifact"):
        train(config("phase2_classification"), tiny_records, tmp_path / "model", tiny_records)


@pytest.mark.parametrize(
    ("phase", "words"),
    [
        ({"loss_weights": "{labels: 0.0, boxes: 1.0}"}, "learn nothing with loss_weights"),
        ({"loss_weights": "{labels: -1.0}"}, "give numbers from 0 for labels and boxes alone"),
        ({"monitor": "val_boxes_iou"}, "choose val_labels_auc"),  # the frozen head's figure
        ({"monitor": "val_loss"}, "choose val_labels_auc"),  # of which more is worse
    ],
)
def test_a_phase_that_cannot_learn_or_be_watched_is_refused(
    config: Callable[..., TrainConfig], boxes_model: Path, phase: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        select_learner(loaded(boxes_model), config("phase2_classification", **phase).phase)


def test_a_loss_weight_of_no_head_is_refused(config: Callable[..., TrainConfig], boxes_model: Path) -> None:
    phase = config("phase2_classification").phase
    phase.loss_weights["masks"] = 1.0
    with pytest.raises(InputError, match="give numbers from 0 for labels and boxes alone"):
        select_learner(loaded(boxes_model), phase)


def endless_batches(broken: int) -> tf.data.Dataset:
    """Batches without end, of which one (from 0) has an infinite target."""
    return tf.data.Dataset.counter().map(
        lambda index: (tf.ones([2, 1]), tf.where(index == broken, np.inf, 1.0) * tf.ones([2, 1]))
    )


def test_a_loss_that_is_not_finite_stops_the_training_at_its_batch(tmp_path: Path) -> None:
    """And leaves the last good checkpoint."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", loss="mse")
    log = EpochLog("phase1_box", tracking.Run())
    phase = PhaseConfig(monitor="loss", early_stopping_patience=9, reduce_rate_patience=9)
    progress = Progress(phase, model.weights)
    checkpoints = Checkpoints(str(tmp_path))
    saved = Checkpointer(checkpoints, model.weights, log, progress)
    with pytest.raises(InputError, match=r"phase1_box: the loss is inf at batch 3 of epoch 2 \(step 13\)"):
        model.fit(
            endless_batches(12),
            steps_per_epoch=10,
            epochs=4,
            verbose=0,
            callbacks=[FiniteLoss("phase1_box"), log, progress, saved],
        )
    assert [epoch["epoch"] for epoch in log.epochs] == [1]
    checkpoint = checkpoints.load()
    assert checkpoint is not None
    assert all(np.isfinite(array).all() for array in checkpoint.arrays["variables"])


def test_a_figure_that_is_not_finite_stops_the_training() -> None:
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", loss="mse")
    log = EpochLog("phase1_box", tracking.Run())
    with pytest.raises(InputError, match="phase1_box: val_loss is not finite after epoch 1"):
        model.fit(
            np.ones((2, 1)),
            np.ones((2, 1)),
            validation_data=(np.ones((2, 1)), np.full((2, 1), np.inf)),
            epochs=3,
            verbose=0,
            callbacks=[log],
        )
    assert log.epochs == []


@pytest.mark.parametrize(("batch_size", "advice"), [(64, "try 32"), (1, "try a smaller model.image_size")])
def test_out_of_memory_names_the_batch_size(
    config: Callable[..., TrainConfig], batch_size: int, advice: str
) -> None:
    tuned = config("phase3_finetune", f"training.batch_size={batch_size}")
    words = f"phase3_finetune: out of memory with training.batch_size={batch_size} at 32 px; {advice}"
    with pytest.raises(InputError, match=words), out_of_memory_explained(tuned):
        tf.zeros([1 << 50])


def test_a_phase_goes_on_from_the_phase_it_names(
    config: Callable[..., TrainConfig],
    boxes_model: Path,
    tiny_records: Path,
    tmp_path: Path,
    untouched: None,
) -> None:
    with pytest.raises(InputError, match="phase2_classification goes on from the model of phase1_box; give"):
        train(config("phase2_classification"), tiny_records, tmp_path / "model")
    for start in ("null", "phase3_finetune"):
        other = config("phase2_classification", start=start)
        with pytest.raises(
            InputError, match="the start model is that of phase1_box, this phase goes on from"
        ):
            train(other, tiny_records, tmp_path / "model", boxes_model)
    assert not (tmp_path / "model").exists()


SIXTH_PHASE = {
    "start": "phase3_finetune",
    "heads": "[labels,boxes]",
    "train_heads": "[boxes]",
    "trainable_layers": "0",
    "loss_weights": "{boxes: 1.0}",
    "learning_rate": "1e-3",
    "schedule": "cosine",
    "weight_decay": "0.0",
    "epochs": "2",
    "monitor": "val_boxes_iou",
    "early_stopping_patience": "3",
    "reduce_rate_patience": "3",
    "augment": "false",
}


def test_a_sixth_phase_is_a_change_of_configuration(
    tiny_overrides: list[str],
    tuned_model: Path,
    tiny_records: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    keys = ", ".join(f"{key}: {value}" for key, value in SIXTH_PHASE.items())
    output, logs = tmp_path / "model", tmp_path / "logs"
    arguments = ["--records", str(tiny_records), "--start", str(tuned_model), "--output", str(output)]

    main(
        [
            "train",
            "phase4_polish",
            *arguments,
            "--logs",
            str(logs),
            *tiny_overrides,
            f"+phases.phase4_polish={{{keys}}}",
        ]
    )

    description = read_description(output)
    assert [phase["name"] for phase in description["phases"]] == [
        "phase1_box",
        "phase2_classification",
        "phase3_finetune",
        "phase4_polish",
    ]
    assert json.loads(capsys.readouterr().out) == description["metrics"]
    changed = changed_weights(loaded(tuned_model), loaded(output))
    assert changed == {weight.path for weight in loaded(output).weights if weight.path.startswith("boxes_")}
    rates = [epoch["learning_rate"] for epoch in description["phases"][-1]["epochs"]]
    assert 0 < rates[0] < 1e-3 and rates[1] == 0, "the cosine ends at 0"

    figures, pictures = read_events(logs / "phase4_polish" / "valid")
    assert figures["boxes_iou"] == pytest.approx(
        {epoch["epoch"]: epoch["val_boxes_iou"] for epoch in description["phases"][-1]["epochs"]}
    )
    assert set(read_events(logs / "phase4_polish" / "train")[0]["learning_rate"]) == {1, 2}
    assert [step for step, _ in pictures] == [1, 2]
    for _, images in pictures:
        assert len(images) == 4
        for image in images:
            assert image.shape == (256, 256, 3)
            assert {TRUE, PREDICTED} <= {tuple(color) for color in image.reshape(-1, 3)}


def read_events(folder: Path) -> tuple[dict[str, dict[int, float]], list[tuple[int, list[np.ndarray]]]]:
    """The scalars of TensorBoard's files, by name and step, and the images, by step."""
    scalars: dict[str, dict[int, float]] = {}
    pictures = []
    for file in sorted(folder.iterdir()):
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            for value in event.summary.value:
                array = tf.make_ndarray(value.tensor)
                if value.metadata.plugin_data.plugin_name == "images":
                    pictures.append((event.step, [tf.image.decode_png(png).numpy() for png in array[2:]]))
                elif array.shape == ():
                    scalars.setdefault(value.tag, {})[event.step] = float(array)
    return scalars, pictures


LOADED_BY_MLFLOW_ALONE = """
import sys

class NoLibrary:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "brain_tumor" and path is None and not any("code" in p for p in sys.path):
            raise ModuleNotFoundError("brain_tumor is not installed here")

sys.meta_path.insert(0, NoLibrary())
sys.path = [path for path in sys.path if not path.rstrip("/").endswith("src")]
import mlflow

model = mlflow.pyfunc.load_model(sys.argv[1])
example = model.input_example
answers = model.predict(example)
print(type(model.metadata.signature).__name__, example.shape)
print({name: value.shape for name, value in sorted(answers.items())})
import brain_tumor
print(brain_tumor.__file__)
"""
