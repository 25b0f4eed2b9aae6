"""The page of pictures, from predictions and real JPEGs on disk."""

import base64
import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import same_color
from matplotlib.figure import Figure
from PIL import Image

from brain_tumor.artifacts.dataset import Dataset, open_dataset
from brain_tumor.artifacts.evaluation import Evaluation
from brain_tumor.artifacts.predictions import (
    PREDICTED_BOX,
    TRUE_BOX,
    PredictingModel,
    Predictions,
    PredictionsManifest,
    write_predictions,
)
from brain_tumor.artifacts.tables import COORDINATES
from brain_tumor.config import EvaluateConfig, VisualizeConfig
from brain_tumor.config.fields import CONSTANT, FINAL
from brain_tumor.evaluation.figures import with_iou
from brain_tumor.evaluation.judge import judge
from brain_tumor.reports.gallery import gallery_figure
from brain_tumor.reports.plots import FINAL_COLOR, OTHER_COLOR, iou_figure, roc_figure
from brain_tumor.reports.prediction_report import write_prediction_report
from brain_tumor.runtime.errors import InputError

LABELS = ["label0", "label1", "label2"]
# No name but the first and the last one is known to the report.
MODELS = [FINAL, "only_boxes", "only_labels", "joint", CONSTANT]
TITLES = ["final", "only boxes", "only labels", "joint", "constant"]
IMAGE_COLUMNS = ["source_id", "filename", "patient_id", "slice", "width", "height"]
NOTICE = "These figures are about synthetic patients."
TRAININGS = {
    "phase_1_box": [
        {"epoch": 1, "loss": 2.0, "val_loss": 2.1, "val_boxes_iou": 0.1, "learning_rate": 0.001},
        {"epoch": 2, "loss": 1.0, "val_loss": 1.3, "val_boxes_iou": 0.3, "learning_rate": 0.001},
    ],
    "phase_2_classification": [{"epoch": 1, "loss": 0.7, "val_loss": 0.8, "val_labels_auc": 0.6}],
}


@pytest.fixture(scope="module")
def dataset(tiny_dataset: Path) -> Dataset:
    return open_dataset(tiny_dataset)


@pytest.fixture(scope="module")
def predictions(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Predictions:
    """Made-up predictions on its test split, near the truth."""
    rng = np.random.default_rng(0)
    images = dataset.images[dataset.images["split"] == "test"]
    boxes = dataset.annotations.set_index(["source_id", "label"])[list(COORDINATES)]
    rows = []
    for model in MODELS:
        for image in images.to_dict("records"):
            for label in LABELS:
                present = (image["source_id"], label) in boxes.index
                box = boxes.loc[(image["source_id"], label)].to_numpy() if present else np.full(4, np.nan)
                guess = box if present else np.array([30.0, 30, 60, 60])
                rows.append(
                    {
                        "model": model,
                        "split": "test",
                        **{name: image[name] for name in IMAGE_COLUMNS},
                        "label": label,
                        "present": present,
                        "probability": np.clip(0.4 * present + 0.6 * rng.random(), 0, 1),
                        **dict(zip(TRUE_BOX, box, strict=True)),
                        **dict(zip(PREDICTED_BOX, guess + rng.normal(0, 3, 4), strict=True)),
                    }
                )
    table = pd.DataFrame(rows).astype({"slice": "Int64"})
    table["score"] = table["probability"]
    table.loc[table["model"] == "only_boxes", "probability"] = np.nan
    table.loc[table["model"] == "only_labels", [*PREDICTED_BOX, "score"]] = np.nan
    return publish(tmp_path_factory.mktemp("run") / "predictions", table)


def publish(path: Path, table: pd.DataFrame, trainings: bool = True) -> Predictions:
    models = {
        name: PredictingModel(title=title, heads=[], mlflow_run_id="", trainings={})
        for name, title in zip(MODELS, TITLES, strict=True)
    }
    if trainings:
        models[FINAL] = models[FINAL].model_copy(update={"trainings": TRAININGS})
    manifest = PredictionsManifest(labels=LABELS, notice=NOTICE, models=models, config={})
    return write_predictions(path, with_iou(table), manifest)


@pytest.fixture(scope="module")
def evaluation(predictions: Predictions) -> Evaluation:
    return judge(EvaluateConfig(bootstrap_samples=20), predictions)


def write_page(path: Path, images: int, predictions: Predictions, dataset: Dataset) -> str:
    """The page of these predictions, with a gallery of so many images."""
    evaluation = judge(EvaluateConfig(bootstrap_samples=20), predictions)
    config = VisualizeConfig(gallery_images=images, seed=1)
    write_prediction_report(path, config, predictions, evaluation, dataset)
    return path.read_text()


def images_of(page: str) -> list[Image.Image]:
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    return [Image.open(io.BytesIO(base64.b64decode(data))) for data in found]


def test_page(dataset: Dataset, predictions: Predictions, tmp_path: Path) -> None:
    output = tmp_path / "new" / "page.html"
    page = write_page(output, 8, predictions, dataset)
    assert output.stat().st_size < 2_000_000
    assert NOTICE in page
    for title in TITLES:
        assert f"<td>{title}</td>" in page
    assert "<th>label, final model</th>" in page and all(f"<td>{label}</td>" in page for label in LABELS)
    assert len(images_of(page)) == 4  # gallery, ROC curves, IoU histograms, training
    assert all(image.width > 900 and np.asarray(image.convert("L")).std() > 5 for image in images_of(page))
    # Nothing to fetch: no address, no file beside it.
    assert "http://" not in page and "https://" not in page and "url(" not in page
    assert all(value.startswith("data:") for value in re.findall(r'(?:src|href)="([^"]*)"', page))
    assert list(output.parent.iterdir()) == [output]


def test_without_trainings_there_is_no_training_section(
    dataset: Dataset, predictions: Predictions, tmp_path: Path
) -> None:
    untrained = publish(tmp_path / "predictions", predictions.table, trainings=False)
    page = write_page(tmp_path / "page.html", 2, untrained, dataset)
    assert len(images_of(page)) == 3 and "<h2>Training</h2>" not in page


def test_without_images_there_is_no_gallery(
    dataset: Dataset, predictions: Predictions, tmp_path: Path
) -> None:
    page = write_page(tmp_path / "page.html", 0, predictions, dataset)
    assert len(images_of(page)) == 3 and "True and predicted boxes" not in page


def test_a_label_in_no_slice_has_no_curve_and_no_histogram(
    dataset: Dataset, predictions: Predictions, tmp_path: Path
) -> None:
    table = predictions.table.copy()
    table.loc[table["label"] == "label0", "present"] = False
    table.loc[table["label"] == "label0", TRUE_BOX] = np.nan
    without = publish(tmp_path / "predictions", table)
    assert len(images_of(write_page(tmp_path / "page.html", 4, without, dataset))) == 4
    evaluation = judge(EvaluateConfig(bootstrap_samples=20), without)
    for figure, words in (
        (roc_figure(evaluation), "present in all slices or in none:\nno curve"),
        (iou_figure(with_iou(table), evaluation), "no true box"),
    ):
        texts = [[text.get_text() for text in axis.texts] for axis in figure.axes]
        assert texts[0] == [words] and [words] not in texts[1:]


def test_a_page_too_large_for_the_dashboard_is_refused(
    dataset: Dataset, predictions: Predictions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brain_tumor.reports.prediction_report.LARGEST_PAGE", 1000)
    with pytest.raises(InputError, match="gallery_images, which is 2"):
        write_page(tmp_path / "page.html", 2, predictions, dataset)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_image_is_named(dataset: Dataset, predictions: Predictions, tmp_path: Path) -> None:
    elsewhere = Dataset(tmp_path, dataset.manifest)
    with pytest.raises(InputError, match=r"volume_\d+_slice_\d+_jpg\.rf\.\w+\.jpg is missing"):
        write_page(tmp_path / "page.html", 2, predictions, elsewhere)


def drawn_models(figure: Figure) -> dict[str, str]:
    """The titles in the legend above the panels, with their colors."""
    (legend,) = figure.legends
    lines = [line.get_color() for line in legend.get_lines()]
    return dict(zip([text.get_text() for text in legend.get_texts()], lines, strict=True))


def test_roc_curves_are_of_the_final_model_and_the_first_other_that_learned_labels(
    predictions: Predictions, evaluation: Evaluation
) -> None:
    figure = roc_figure(evaluation)
    assert drawn_models(figure) == {"final": FINAL_COLOR, "only labels": OTHER_COLOR}
    for axis, label in zip(figure.axes, LABELS, strict=True):
        for name, color in ((FINAL, FINAL_COLOR), ("only_labels", OTHER_COLOR)):
            curve, dot = [line for line in axis.lines if same_color(line.get_color(), color)]
            found = evaluation.models[name].curves[label]
            assert found.roc is not None
            np.testing.assert_array_equal(curve.get_xydata(), np.transpose([found.roc.fpr, found.roc.tpr]))
            rows = predictions.table.query("model == @name and label == @label")
            shares = (rows["probability"] >= 0.5).groupby(rows["present"]).mean()
            np.testing.assert_allclose(dot.get_xydata(), [[shares[False], shares[True]]])
            auc = evaluation.models[name].labels[label]["roc_auc"]
            assert curve.get_label() == f"AUC {auc:.3f}"


def test_histograms_are_of_the_final_model_and_the_constant_one(
    predictions: Predictions, evaluation: Evaluation
) -> None:
    figure = iou_figure(predictions.table, evaluation)
    assert drawn_models(figure) == {"final": FINAL_COLOR, "constant": OTHER_COLOR}
    truth = predictions.table[predictions.table["model"] == FINAL]
    for axis, label in zip(figure.axes, LABELS, strict=True):
        bars = [patch.get_height() for patch in axis.patches if hasattr(patch, "get_height")]
        assert sum(bars) == truth.loc[truth["label"] == label, "present"].sum()


def test_gallery_draws_boxes_in_pixels_of_the_original_image(
    dataset: Dataset, predictions: Predictions
) -> None:
    table = predictions.table
    final = table[table["model"] == FINAL]
    counts = final[final["present"]].groupby("source_id").size()
    name = counts.idxmax()
    rows = final[final["source_id"] == name]
    # The image is where it came from, whichever split it is used in.
    figure = gallery_figure(final.assign(split="valid"), [name], dataset, LABELS, dict.fromkeys(LABELS, 0.5))
    (axis,) = figure.axes
    assert axis.get_xlim() == (0, rows["width"].iloc[0]) and axis.get_ylim() == (rows["height"].iloc[0], 0)
    drawn = [
        (*patch.get_xy(), *(patch.get_xy() + np.array([patch.get_width(), patch.get_height()])))
        for patch in axis.patches
    ]
    shown = rows[rows["probability"] >= 0.5]
    expected = [*rows.loc[rows["present"], TRUE_BOX].to_numpy(), *shown[PREDICTED_BOX].to_numpy()]
    assert len(expected) > counts.max()
    np.testing.assert_allclose(sorted(drawn), sorted(map(tuple, expected)))
    solid = [patch for patch in axis.patches if patch.get_linestyle() in ("-", "solid")]
    assert len(solid) == counts.max()
    assert len({patch.get_edgecolor() for patch in solid}) == counts.max()  # a color a label
