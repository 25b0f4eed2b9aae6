from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from brain_tumor.artifacts.predictions import PREDICTED_BOX, TRUE_BOX, Predictions
from brain_tumor.artifacts.records import Records
from brain_tumor.boxes.measures import iou
from brain_tumor.config import EvaluateConfig, RecordsConfig
from brain_tumor.config.fields import CONSTANT
from brain_tumor.evaluation.predict import predict
from brain_tumor.ingest.ingest import ingest
from brain_tumor.records.build import build_tfrecords
from brain_tumor.runtime.errors import InputError
from tests.unit.exports import directory_config, write_export, write_image
from tests.unit.stand_ins import EPOCHS, LABELS, PROBABILITIES, SCORES, write_stand_in

pytestmark = pytest.mark.slow

CONFIG = EvaluateConfig(batch_size=3)


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Records:
    """40 x 30 images, and one of 64 x 20 in test. Test: four images, two of them with one box each."""
    folder = tmp_path_factory.mktemp("records")
    export = write_export(folder / "export")
    write_image(export / "test" / "volume_5_slice_9.jpg", 64, 20)
    for split, rows in {
        "train": [
            "volume_1_slice_1.jpg,40,30,label0,0,0,20,15",
            "volume_1_slice_2.jpg,40,30,label0,20,15,40,30",
            "volume_2_slice_1.jpg,40,30,label1,4,3,8,6",
        ],
        "valid": ["volume_3_slice_1.jpg,40,30,label2,0,0,40,30"],
        "test": [
            "volume_4_slice_1.jpg,40,30,label1,10,6,20,27",
            "volume_5_slice_9.jpg,64,20,label0,1,2.3,33,20",
        ],
    }.items():
        text = (export / split / "_annotations.csv").read_text()
        (export / split / "_annotations.csv").write_text(text + "\n".join(rows) + "\n")
    ingested = ingest(directory_config(export), folder / "dataset")
    return build_tfrecords(RecordsConfig(), ingested.dataset, folder / "records")


@pytest.fixture(scope="module")
def predictions(records: Records, tmp_path_factory: pytest.TempPathFactory) -> Predictions:
    """Predictions of four stand-ins."""
    folder = tmp_path_factory.mktemp("predictions")
    models = {
        "final": write_stand_in(folder / "final", ["labels", "boxes"], scored=True),
        "pooled": write_stand_in(folder / "pooled", ["labels", "boxes"]),
        "baseline_classification": write_stand_in(folder / "labels", ["labels"]),
        "baseline_box": write_stand_in(folder / "boxes", ["boxes"]),
    }
    return predict(CONFIG, records, models, folder / "predictions")


@pytest.fixture(scope="module")
def table(predictions: Predictions) -> pd.DataFrame:
    """The rows of the evaluated split."""
    return predictions.table[predictions.table["split"] == "test"]


def rows(table: pd.DataFrame, model: str, filename: str) -> pd.DataFrame:
    """A model's three rows for an image, by label."""
    found = table[(table["model"] == model) & (table["filename"] == filename)]
    assert list(found["label"]) == LABELS
    return found.set_index("label")


def test_every_model_predicts_every_image_and_class(table: pd.DataFrame) -> None:
    """Four images in batches of three: this includes a smaller last batch."""
    models = ["final", "pooled", "baseline_classification", "baseline_box", CONSTANT]
    assert list(table["model"].unique()) == models
    images = [*(f"volume_4_slice_{index}.jpg" for index in (1, 2, 3)), "volume_5_slice_9.jpg"]
    for model in models:
        part = table[table["model"] == model]
        assert list(part["filename"]) == [name for name in images for _ in LABELS]
        assert list(part["source_id"]) == [f"test/{name}" for name in part["filename"]]
        assert list(part["label"]) == LABELS * 4


def test_valid_is_predicted_too_so_that_thresholds_can_be_tuned(
    records: Records, predictions: Predictions, tmp_path: Path
) -> None:
    table = predictions.table
    assert table.groupby("split").size().to_dict() == {"test": 5 * 4 * 3, "valid": 5 * 3 * 3}
    valid = table[(table["split"] == "valid") & table["present"]]
    assert valid[["source_id", "label"]].drop_duplicates().to_numpy().tolist() == [
        ["valid/volume_3_slice_1.jpg", "label2"]
    ]
    models = {"final": write_stand_in(tmp_path / "final", ["boxes"])}
    only = predict(EvaluateConfig(split="valid"), records, models, tmp_path / "predictions").table
    assert only.groupby(["model", "split"]).size().to_dict() == {
        ("constant", "valid"): 9,
        ("final", "valid"): 9,
    }


def test_the_table_has_the_iou(table: pd.DataFrame) -> None:
    final = rows(table, "final", "volume_4_slice_1.jpg")
    true, predicted = (final.loc[["label1"], names].to_numpy(float) for names in (TRUE_BOX, PREDICTED_BOX))
    assert final.loc["label1", "iou"] == iou(true, predicted)[0] > 0
    assert final.loc[["label0", "label2"], "iou"].isna().all()


def test_the_truth_equals_the_export(table: pd.DataFrame) -> None:
    for model in table["model"].unique():
        truth = rows(table, model, "volume_4_slice_1.jpg")
        assert list(truth["present"]) == [False, True, False]
        assert list(truth.loc["label1", TRUE_BOX]) == [10, 6, 20, 27]
        assert truth.loc[["label0", "label2"], TRUE_BOX].isna().all(axis=None)
        assert set(truth["patient_id"]) == {"4"} and set(truth["slice"]) == {1}
        wide = rows(table, model, "volume_5_slice_9.jpg")
        assert list(wide.loc["label0", TRUE_BOX]) == [1, 2.3, 33, 20]
        assert set(wide["width"]) == {64} and set(wide["height"]) == {20}
        assert not rows(table, model, "volume_4_slice_2.jpg")["present"].any()


@pytest.mark.parametrize("model", ["final", "baseline_box"])
def test_boxes_are_in_original_pixels(table: pd.DataFrame, model: str) -> None:
    # 40 x 30 in a square of 40: nothing is resized, five rows of padding above and below.
    found = rows(table, model, "volume_4_slice_1.jpg")[PREDICTED_BOX].to_numpy(float)
    np.testing.assert_allclose(found, [[10, 5, 30, 15], [0, 0, 40, 30], [20, 15, 20, 15]], atol=1e-4)
    # 64 x 20: 40 x 13 (12.5 rounded up) below 13 rows of padding. Parts on the padding are clipped.
    found = rows(table, model, "volume_5_slice_9.jpg")[PREDICTED_BOX].to_numpy(float)
    y = (20 - 13) / 13 * 20
    expected = np.array([[16, 0, 48, y], [0, 0, 64, 20], [32, y, 32, y]])
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_probabilities_belong_to_their_label(table: pd.DataFrame) -> None:
    for model in ("final", "baseline_classification"):
        for filename in ("volume_4_slice_2.jpg", "volume_5_slice_9.jpg"):
            np.testing.assert_allclose(rows(table, model, filename)["probability"], PROBABILITIES)


def test_boxes_are_ranked_by_their_scores_or_a_substitute(table: pd.DataFrame) -> None:
    """The labels' probabilities, if the box head has no scores; without either, all boxes rank equally."""
    expected: dict[str, Any] = {
        "final": SCORES,
        "pooled": PROBABILITIES,
        "baseline_box": [1] * 3,
        CONSTANT: [1] * 3,
    }
    for model, scores in expected.items():
        for filename in ("volume_4_slice_2.jpg", "volume_5_slice_9.jpg"):
            np.testing.assert_allclose(rows(table, model, filename)["score"], scores)


def test_values_that_a_model_does_not_predict_are_null(table: pd.DataFrame) -> None:
    labels_alone = table[table["model"] == "baseline_classification"]
    assert labels_alone[[*PREDICTED_BOX, "score"]].isna().all(axis=None)
    assert labels_alone["probability"].notna().all()
    boxes_alone = table[table["model"] == "baseline_box"]
    assert boxes_alone["probability"].isna().all()
    assert boxes_alone[PREDICTED_BOX].notna().all(axis=None)


def test_the_constant_baseline_has_the_training_sets_mean_boxes(table: pd.DataFrame) -> None:
    # label0: the mean of (0, 0, 0.5, 0.5) and (0.5, 0.5, 1, 1); label2 is in no training image.
    expected = np.array([[0.25, 0.25, 0.75, 0.75], [0.1, 0.1, 0.2, 0.2], [0.0, 0.0, 1.0, 1.0]])
    for filename, scale in (("volume_4_slice_3.jpg", [40, 30] * 2), ("volume_5_slice_9.jpg", [64, 20] * 2)):
        found = rows(table, CONSTANT, filename)
        np.testing.assert_allclose(found[PREDICTED_BOX].to_numpy(float), expected * scale, rtol=1e-6)
        assert list(found["probability"]) == [1.0] * 3


def test_the_manifest_names_the_models(predictions: Predictions) -> None:
    manifest = predictions.manifest
    assert manifest.labels == LABELS
    assert manifest.config == CONFIG.model_dump(mode="json")
    assert manifest.notice == ""
    assert {name: (model.title, model.heads) for name, model in manifest.models.items()} == {
        "final": ("final model", ["labels", "boxes"]),
        "pooled": ("stand-in with labels and boxes", ["labels", "boxes"]),
        "baseline_classification": ("stand-in with labels", ["labels"]),
        "baseline_box": ("stand-in with boxes", ["boxes"]),
        CONSTANT: ("constant baseline", ["labels", "boxes"]),
    }
    assert manifest.models["final"].mlflow_run_id == "the id"
    assert manifest.models["final"].trainings == {"training of final": EPOCHS}
    assert manifest.models[CONSTANT].trainings == {}


def test_a_model_with_other_labels_is_refused(records: Records, tmp_path: Path) -> None:
    model = write_stand_in(tmp_path / "model", ["labels"], ["label0", "label2", "label1"])
    with pytest.raises(InputError, match=r"The final model has the labels .*the records have"):
        predict(CONFIG, records, {"final": model}, tmp_path / "predictions")
    assert not (tmp_path / "predictions").exists()
