import functools
import json
import zipfile
from pathlib import Path

import h5py
import keras
import mlflow
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from mlflow import MlflowClient

from brain_tumor.artifacts.folder import MANIFEST, artifact_id
from brain_tumor.artifacts.model import MODEL_FILE, Backbone, ModelDescription, open_model
from brain_tumor.artifacts.predictions import PREDICTED_BOX
from brain_tumor.artifacts.records import open_records
from brain_tumor.artifacts.tables import COORDINATES
from brain_tumor.boxes.measures import iou, present
from brain_tumor.cli import main
from brain_tumor.config import EvaluateConfig, PhaseConfig
from brain_tumor.evaluation.predict import predict as evaluation_predict
from brain_tumor.ingest.ingest import SYNTHETIC_NOTICE
from brain_tumor.model.saving import load_model
from brain_tumor.records.read import load_split
from brain_tumor.runtime import environment
from brain_tumor.runtime.registry import CHAMPION, Registry
from brain_tumor.training.tensorboard import PREDICTED, TRUE
from brain_tumor.training.train import train
from tests.unit.trainings import HASTY, changed_weights, make_config, without_seconds

pytestmark = pytest.mark.slow

TOP_LAYERS = 20


@pytest.fixture(scope="module")
def boxes_model(
    tiny_overrides: list[str], tiny_records: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Trains the box head on a frozen random backbone, until the first epoch without improvement."""
    output = tmp_path_factory.mktemp("models") / "boxes"
    config = make_config(tiny_overrides, "phase1_box", **HASTY, epochs=40, early_stopping_patience=1)
    train(config, open_records(tiny_records), output)
    return output


@pytest.fixture(scope="module")
def labels_model(tiny_overrides: list[str], tiny_records: Path, boxes_model: Path) -> Path:
    """Then trains the class head through the frozen backbone, since images are augmented."""
    output = boxes_model.parent / "labels"
    # So few patients allow almost no generalization: many epochs with large steps.
    changes = {"augment": "true", "learning_rate": 3e-2, "epochs": 16, "early_stopping_patience": 16}
    config = make_config(tiny_overrides, "phase2_classification", "training.batch_size=4", **changes)
    train(config, open_records(tiny_records), output, open_model(boxes_model))
    return output


@pytest.fixture(scope="module")
def tracked(labels_model: Path) -> str:
    """The address of the last training's MLflow store."""
    return f"sqlite:///{labels_model.parent / 'mlflow.db'}"


@pytest.fixture(scope="module")
def tuned_model(tiny_overrides: list[str], tiny_records: Path, labels_model: Path, tracked: str) -> Path:
    """Then trains both heads and the top of the backbone, tracked as part of a pipeline run."""
    output = labels_model.parent / "tuned"
    published = labels_model.parent / "published"
    changes = {"trainable_layers": TOP_LAYERS, "publish_to": published}
    config = make_config(tiny_overrides, "phase3_finetune", **changes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(environment.MLFLOW, str(labels_model.parent))
        patch.setenv(environment.RUN, "pipeline")
        train(config, open_records(tiny_records), output, open_model(labels_model))
    return output


def described(path: Path) -> ModelDescription:
    return open_model(path).description


@functools.cache
def loaded(path: Path) -> keras.Model:
    """The model of an artifact that is not modified."""
    return load_model(open_model(path))


def valid_examples(records: Path) -> tuple[np.ndarray, np.ndarray]:
    """The validation images (float32) and their true boxes."""
    examples = list(load_split(open_records(records), "valid", 32).as_numpy_iterator())
    images = np.stack([example["image"] for example in examples])
    return images, np.stack([example["boxes"] for example in examples])


def predict(model: Path, head: str, images: np.ndarray) -> np.ndarray:
    return loaded(model)(images, training=False)[head].numpy()


def test_training_the_class_head_does_not_change_the_boxes(
    boxes_model: Path, labels_model: Path, tiny_records: Path
) -> None:
    changed = changed_weights(loaded(boxes_model), loaded(labels_model))
    assert changed and {path.split("/")[0] for path in changed} == {"labels_norm", "labels_logits"}
    images, _ = valid_examples(tiny_records)
    np.testing.assert_array_equal(
        predict(boxes_model, "boxes", images), predict(labels_model, "boxes", images)
    )


def test_the_best_epochs_weights_are_the_result(boxes_model: Path, tiny_records: Path) -> None:
    phase = described(boxes_model).phases[0]
    scores = [epoch["val_boxes_iou"] for epoch in phase.epochs]
    best = int(np.argmax(scores))
    assert phase.best_epoch == best + 1
    assert len(scores) == best + 2 < 40, "early stopping ended it an epoch after the best"
    assert scores[best] - scores[-1] > 1e-4, "otherwise the last weights would be as good"

    images, truth = valid_examples(tiny_records)
    there = present(truth)
    mean = iou(predict(boxes_model, "boxes", images)[there], truth[there]).mean()
    assert mean == pytest.approx(scores[best], abs=1e-5)


def test_the_class_heads_figure_equals_that_of_the_model(labels_model: Path, tiny_records: Path) -> None:
    examples = list(load_split(open_records(tiny_records), "valid", 32).as_numpy_iterator())
    images, _ = valid_examples(tiny_records)
    auc = keras.metrics.AUC(multi_label=True, num_labels=3)
    auc.update_state([example["labels"] for example in examples], predict(labels_model, "labels", images))
    metrics = described(labels_model).metrics
    assert set(metrics) == {"val_loss", "val_labels_auc"}
    assert metrics["val_labels_auc"] == pytest.approx(float(auc.result()), abs=1e-3)


def test_a_phase_that_does_not_improve_its_start_model_outputs_it(
    tiny_overrides: list[str],
    labels_model: Path,
    tiny_records: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    hasty = {**HASTY, "learning_rate": 100, "trainable_fraction": "null", "trainable_layers": 0}
    config = make_config(tiny_overrides, "phase3_finetune", **hasty, epochs=2)

    metrics = train(config, open_records(tiny_records), tmp_path / "model", open_model(labels_model))

    phase = described(tmp_path / "model").phases[-1]
    start, *others = (config.phase.monitored_value(epoch) for epoch in phase.epochs)
    assert start > max(others) and phase.best_epoch == 0
    assert config.phase.monitored_value(metrics) == start
    assert changed_weights(loaded(labels_model), loaded(tmp_path / "model")) == set()
    assert (
        "phase3_finetune: no epoch was better than the start model, which is the result." in caplog.messages
    )


def test_the_same_seed_gives_the_same_figures_and_weights(
    tiny_overrides: list[str], boxes_model: Path, tiny_records: Path, tmp_path: Path
) -> None:
    """The best epoch's weights are the result without early stopping, too."""
    first = described(boxes_model)
    epochs = first.phases[0].epochs
    again = make_config(tiny_overrides, "phase1_box", **HASTY, epochs=len(epochs), early_stopping_patience=30)

    metrics = train(again, open_records(tiny_records), tmp_path / "model")

    repeated = described(tmp_path / "model").phases[0].epochs
    assert without_seconds(repeated) == without_seconds(epochs)
    assert metrics == first.metrics
    assert changed_weights(loaded(boxes_model), loaded(tmp_path / "model")) == set()


def test_the_description_is_complete(boxes_model: Path, labels_model: Path, tuned_model: Path) -> None:
    description = described(tuned_model)
    assert description.title == "phase3 finetune"
    assert description.labels == ["label0", "label1", "label2"]
    assert description.heads == ["labels", "boxes"]
    assert description.image_size == 32
    assert description.backbone == Backbone(name="resnet50", weights="none")
    assert description.box_head == "dense"
    assert description.notice == SYNTHETIC_NOTICE
    phases = description.phases
    assert [phase.name for phase in phases] == ["phase1_box", "phase2_classification", "phase3_finetune"]
    assert [phase.trainable_layers for phase in phases] == [0, 0, TOP_LAYERS]
    assert phases[:2] == described(labels_model).phases
    assert phases[:1] == described(boxes_model).phases
    assert phases[2].config["phase"]["trainable_layers"] == TOP_LAYERS
    assert phases[2].config["model"]["dropout"] == 0.2, "defaults are included"
    best = max(phases[2].epochs, key=PhaseConfig(**phases[2].config["phase"]).monitored_value)
    assert phases[2].best_epoch == best["epoch"]
    labels = [f"{name}_{label}" for name in ("iou", "ap50") for label in description.labels]
    of_boxes = ["map_loss", "iou", "recall_at_50", "mse", "mae", *labels]
    of_both = {"val_loss", "val_labels_loss", "val_labels_auc", *(f"val_boxes_{name}" for name in of_boxes)}
    assert set(description.metrics) == of_both
    assert description.metrics.items() <= best.items()


def test_the_title_says_if_the_backbone_was_never_trained(boxes_model: Path, labels_model: Path) -> None:
    assert described(boxes_model).title == "phase1 box (frozen random backbone)"
    assert described(labels_model).title == "phase2 classification (frozen random backbone)"


def test_a_model_file_has_no_optimizer_state(tuned_model: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tuned_model / MODEL_FILE) as archive:
        assert not json.loads(archive.read("config.json"))["compile_config"]
        archive.extract("model.weights.h5", tmp_path)
    with h5py.File(tmp_path / "model.weights.h5") as file:
        assert "optimizer" not in file
        sizes: list[int] = []
        file.visititems(lambda _, item: sizes.append(item.size) if isinstance(item, h5py.Dataset) else None)
    weights = loaded(tuned_model).count_params()
    assert weights <= sum(sizes) < weights + 100  # plus the seeds of random generators


def test_a_training_is_tracked_in_the_pipelines_run(
    tuned_model: Path, tracked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracked)
    client = MlflowClient()
    description = described(tuned_model)
    run = client.get_run(description.mlflow_run_id)
    parent = client.get_run(run.data.tags["mlflow.parentRunId"])

    assert parent.info.run_name == "pipeline"
    assert run.info.run_name == "phase3_finetune"
    assert (run.info.status, parent.info.status) == ("FINISHED", "RUNNING"), "the pipeline's run continues"
    assert run.data.params["phase.learning_rate"] == "0.001"
    assert run.data.params["model.backbone"] == "resnet50"
    assert run.data.params["model.dropout"] == "0.2", "defaults are included"
    points = client.get_metric_history(run.info.run_id, "val_boxes_iou")
    assert [point.step for point in points] == [0, 1], "the start model's figure is included"
    best = points[description.phases[-1].best_epoch].value
    assert run.data.metrics["best_val_boxes_iou"] == description.metrics["val_boxes_iou"] == best
    assert run.data.tags["data"] == "synthetic"
    assert len(client.search_logged_models([run.info.experiment_id])) == 1


def test_a_model_is_published_to_its_phases_address(tuned_model: Path, tracked: str) -> None:
    [copy] = (tuned_model.parent / "published").iterdir()
    for name in (MANIFEST, MODEL_FILE):
        assert (copy / name).read_bytes() == (tuned_model / name).read_bytes()
    run = MlflowClient(tracked).get_run(described(tuned_model).mlflow_run_id)
    assert run.data.tags["published"] == str(copy)


def test_mlflow_gets_a_copy_of_the_model(
    tuned_model: Path, tiny_records: Path, tracked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It includes the model's metadata. `test_served` loads such a copy without the library."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracked)
    run = MlflowClient().get_run(described(tuned_model).mlflow_run_id)
    [logged] = MlflowClient().search_logged_models([run.info.experiment_id])
    model = mlflow.pyfunc.load_model(logged.model_uri)
    images, _ = valid_examples(tiny_records)
    answers = model.predict(images)
    assert set(answers) == {"boxes", "labels", "scores"}
    for head, values in answers.items():
        np.testing.assert_allclose(values, predict(tuned_model, head, images), atol=1e-6)
    metadata = model.metadata.metadata
    assert metadata["labels"] == ["label0", "label1", "label2"]
    assert metadata["code"] == {**open_model(tuned_model).manifest.versions, "image": ""}
    assert metadata["data"] == {"source": "synthetic", "records": artifact_id(tiny_records)}
    assert metadata["precision"] == {"training": "float32", "weights": "float32"}
    shapes = {spec.name: spec.shape for spec in model.metadata.signature.outputs}
    assert shapes == {"boxes": (-1, 3, 4), "labels": (-1, 3), "scores": (-1, 3)}


def test_predictions_for_image_files_equal_those_of_the_evaluation(
    tuned_model: Path,
    tiny_dataset: Path,
    tiny_records: Path,
    tracked: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """For the artifact, and the model in MLflow, from its run and by an alias."""
    records = open_records(tiny_records)
    models = {"final": open_model(tuned_model)}
    table = evaluation_predict(EvaluateConfig(), records, models, tmp_path / "predictions").table
    rows = table[(table["model"] == "final") & (table["split"] == "test")].reset_index(drop=True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracked)
    client = MlflowClient()
    run = client.get_run(described(tuned_model).mlflow_run_id)
    registry = Registry(client, "brain-tumor")
    version = registry.register(run.info.run_id)
    registry.decide(version, CHAMPION)
    thresholds = {"label0": 0.125, "label1": 0.5, "label2": 0.75}
    registry.set_thresholds(version, thresholds)
    images = [str(tiny_dataset / "images" / name) for name in rows["source_id"].drop_duplicates()]
    addresses = [f"runs:/{run.info.run_id}/model", "brain-tumor@champion"]
    for number, address in enumerate([str(tuned_model), *addresses]):
        output = tmp_path / f"{number}.csv"
        main(["predict", *images, "--model", address, "--output", str(output)])
        found = pd.read_csv(output)
        assert found["image"].tolist() == [image for image in images for _ in range(3)]
        np.testing.assert_allclose(found["probability"], rows["probability"], atol=2e-6)
        np.testing.assert_allclose(found["score"], rows["score"], atol=2e-6)
        # An artifact that no run has evaluated uses the default threshold.
        expected = thresholds if number else dict.fromkeys(thresholds, 0.5)
        assert found["threshold"].tolist() == [expected[label] for label in found["label"]]
        assert found["present"].tolist() == (found["probability"] >= found["threshold"]).tolist()
        np.testing.assert_allclose(found[list(COORDINATES)], rows[PREDICTED_BOX], atol=0.0051)


SIXTH_PHASE = {
    "start": "phase3_finetune",
    "heads": "[labels,boxes]",
    "train_heads": "[boxes]",
    "trainable_layers": "0",
    "loss_weights": "{boxes: 1.0}",
    "learning_rate": "1e-3",
    "schedule": "cosine",
    "weight_decay": "0.0",
    "epochs": "4",
    "monitor": "val_boxes_iou",
    "early_stopping_patience": "4",
    "reduce_rate_patience": "3",
    "augment": "false",
}


def test_a_sixth_phase_needs_only_configuration(
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

    description = described(output)
    assert [phase.name for phase in description.phases] == [
        "phase1_box",
        "phase2_classification",
        "phase3_finetune",
        "phase4_polish",
    ]
    assert json.loads(capsys.readouterr().out) == description.metrics
    changed = changed_weights(loaded(tuned_model), loaded(output))
    box_head = {weight.path for weight in loaded(output).weights if weight.path.startswith("boxes_")}
    # So few patients allow little generalization: perhaps no epoch is better than the start model.
    assert changed == (box_head if description.phases[-1].best_epoch else set())
    start, *epochs = description.phases[-1].epochs
    rates = [epoch["learning_rate"] for epoch in epochs]
    assert 0 < rates[0] < 1e-3 and rates[-1] == 0, "the cosine ends at 0"

    figures, pictures = read_events(logs / "phase4_polish" / "valid")
    assert figures["boxes_iou"] == pytest.approx(
        {epoch["epoch"]: epoch["val_boxes_iou"] for epoch in (start, *epochs)}
    )
    assert set(read_events(logs / "phase4_polish" / "train")[0]["learning_rate"]) == {1, 2, 3, 4}
    assert [step for step, _ in pictures] == [1, 2, 3, 4]
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
