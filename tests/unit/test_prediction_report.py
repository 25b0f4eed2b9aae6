"""The report page, made from predictions and real JPEGs on disk."""

import base64
import io
import re
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import same_color
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from brain_tumor.artifacts.dataset import Dataset, open_dataset
from brain_tumor.artifacts.evaluation import Evaluation
from brain_tumor.artifacts.figures import LABEL_FIGURES, OVERALL_FIGURES
from brain_tumor.artifacts.predictions import (
    PREDICTED_BOX,
    TRUE_BOX,
    PredictingModel,
    Predictions,
    PredictionsManifest,
    open_predictions,
    write_predictions,
)
from brain_tumor.artifacts.tables import COORDINATES
from brain_tumor.config import EvaluateConfig, VisualizeConfig
from brain_tumor.config.fields import CONSTANT, FINAL
from brain_tumor.evaluation.evaluate import evaluate_predictions
from brain_tumor.evaluation.figures import with_iou
from brain_tumor.reports.gallery import choose_cases, choose_strip, gallery_figure, slice_pictures
from brain_tumor.reports.plots import (
    FINAL_COLOR,
    OTHER_COLOR,
    calibration_figure,
    froc_figure,
    iou_figure,
    precision_recall_figure,
    roc_figure,
    training_figure,
)
from brain_tumor.reports.prediction_report import write_prediction_report
from brain_tumor.runtime.errors import InputError

LABELS = ["label0", "label1", "label2"]
# The report has special names only for the first and the last one.
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
    """Artificial predictions on its test split, close to the truth."""
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
    return evaluate_predictions(EvaluateConfig(bootstrap_samples=20), predictions)


@cache
def judged(path: Path) -> Evaluation:
    """The evaluation of predictions, cached since several tests use the same."""
    return evaluate_predictions(EvaluateConfig(bootstrap_samples=20), open_predictions(path))


def write_page(path: Path, images: int, predictions: Predictions, dataset: Dataset) -> str:
    """The page of these predictions, with a gallery of `images` images."""
    evaluation = judged(predictions.path)
    config = VisualizeConfig(gallery_images=images, seed=1)
    write_prediction_report(path, config, predictions, evaluation, dataset)
    return path.read_text()


def images_of(page: str) -> list[Image.Image]:
    found = re.findall(r'src="data:image/(?:png|webp);base64,([^"]+)"', page)
    return [Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB") for data in found]


def pictures_of(page: str) -> dict[str, list[Image.Image]]:
    """The pictures of each section, by its heading."""
    sections = re.findall(r"<h2>(.*?)</h2>(.*?)(?=<h2>|</body>)", page, re.DOTALL)
    return {heading: images_of(part) for heading, part in sections}


def test_page(dataset: Dataset, predictions: Predictions, tmp_path: Path) -> None:
    output = tmp_path / "new" / "page.html"
    page = write_page(output, 8, predictions, dataset)
    assert output.stat().st_size < 2_000_000
    assert NOTICE in page
    for title in TITLES:
        assert f"<td>{title}</td>" in page
    assert "<th>label, final model</th>" in page and all(f"<td>{label}</td>" in page for label in LABELS)
    pictures = pictures_of(page)
    assert {heading: len(own) for heading, own in pictures.items() if own} == {
        "True and predicted boxes": 8,
        "Slices of one patient": 8,
        **dict.fromkeys(("ROC curves", "Precision and recall", "Calibration", "IoU of the boxes"), 3),
        "FROC": 4,  # one per label, and one for all labels
        "Training": 4,
    }
    assert all(image.width > 150 and np.asarray(image).std() > 5 for image in images_of(page))
    # The verdict comes first, and every name in a table is explained.
    assert list(pictures)[:2] == ["What the figures mean", "Models"]
    heads = set(re.findall(r"<th>(\w+)</th>", page.replace("<wbr>", "")))
    explained = set(re.findall(r"<tr><td>(\w+)</td>", page[page.index("Names of the figures") :]))
    assert heads & {*OVERALL_FIGURES, *LABEL_FIGURES} <= explained | {"true_boxes"}
    # Nothing to download: no addresses, no other files.
    assert "http://" not in page and "https://" not in page and "url(" not in page
    assert all(value.startswith("data:") for value in re.findall(r'(?:src|href)="([^"]*)"', page))
    assert list(output.parent.iterdir()) == [output]


def test_without_trainings_there_is_no_training_section(
    dataset: Dataset, predictions: Predictions, tmp_path: Path
) -> None:
    untrained = publish(tmp_path / "predictions", predictions.table, trainings=False)
    page = write_page(tmp_path / "page.html", 2, untrained, dataset)
    assert "ROC curves" in pictures_of(page) and "Training" not in pictures_of(page)


def test_without_images_there_is_no_gallery(
    dataset: Dataset, predictions: Predictions, tmp_path: Path
) -> None:
    page = write_page(tmp_path / "page.html", 0, predictions, dataset)
    assert "ROC curves" in pictures_of(page) and "True and predicted boxes" not in page


def test_a_label_in_no_slice_has_no_curve_and_no_histogram(
    dataset: Dataset, predictions: Predictions, tmp_path: Path
) -> None:
    table = predictions.table.copy()
    table.loc[table["label"] == "label0", "present"] = False
    table.loc[table["label"] == "label0", TRUE_BOX] = np.nan
    without = publish(tmp_path / "predictions", table)
    assert len(pictures_of(write_page(tmp_path / "page.html", 4, without, dataset))["FROC"]) == 4
    evaluation = evaluate_predictions(EvaluateConfig(bootstrap_samples=20), without)
    for figure, words in (
        (roc_figure(evaluation), "present in all slices or in none:\nno curve"),
        (precision_recall_figure(table, evaluation), "present in no slice:\nno curve"),
        (iou_figure(with_iou(table), evaluation), "no true box"),
        (froc_figure(with_iou(table), evaluation), "no true box"),
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
    return dict(zip([text.get_text() for text in legend.get_texts()], map(str, lines), strict=True))


def test_roc_curves_show_the_final_model_and_the_first_other_with_a_class_head(
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
            np.testing.assert_allclose(np.asarray(dot.get_xydata()), [[shares[False], shares[True]]])
            auc = evaluation.models[name].labels[label]["roc_auc"]
            assert curve.get_label() == f"AUC {auc:.3f}"


def test_histograms_show_the_final_model_and_the_constant_baseline(
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
    name = str(counts.idxmax())
    rows = final[final["source_id"] == name]
    # The image is in the folder of its original split, whichever split it is used in.
    figure = gallery_figure(final.assign(split="valid"), [name], dataset, LABELS, dict.fromkeys(LABELS, 0.5))
    (axis,) = figure.axes
    assert axis.get_xlim() == (0, rows["width"].iloc[0]) and axis.get_ylim() == (rows["height"].iloc[0], 0)
    drawn = [
        (*patch.get_xy(), *(patch.get_xy() + np.array([patch.get_width(), patch.get_height()])))
        for patch in axis.patches
        if isinstance(patch, Rectangle)
    ]
    shown = rows[rows["probability"] >= 0.5]
    expected = [*rows.loc[rows["present"], TRUE_BOX].to_numpy(), *shown[PREDICTED_BOX].to_numpy()]
    assert len(expected) > counts.max()
    np.testing.assert_allclose(sorted(drawn), sorted(map(tuple, expected)))
    solid = [patch for patch in axis.patches if patch.get_linestyle() in ("-", "solid")]
    assert len(solid) == counts.max()
    assert len({patch.get_edgecolor() for patch in solid}) == counts.max()  # one color per label


def test_curves_agree_with_the_figures(predictions: Predictions, evaluation: Evaluation) -> None:
    final = evaluation.models[FINAL]
    figure = froc_figure(predictions.table, evaluation)
    for axis, label in zip(figure.axes, [*LABELS, "all labels"], strict=True):
        curve, _ = axis.lines
        figures = final.figures if label == "all labels" else final.labels[label]
        x, y = np.transpose(curve.get_xydata())
        assert y[x <= 0.25].max() == figures["froc_1_4"] and y[-1] == figures["froc_8"]
        assert curve.get_label() == f"score {figures['froc_score']:.3f}"
    for axis, label in zip(calibration_figure(predictions.table, evaluation).axes, LABELS, strict=True):
        assert axis.lines[1].get_label() == f"error {final.labels[label]['calibration_error']:.3f}"
    for axis, label in zip(precision_recall_figure(predictions.table, evaluation).axes, LABELS, strict=True):
        assert axis.lines[0].get_label() == f"AP {final.labels[label]['average_precision']:.3f}"


def test_a_single_epoch_is_a_point_with_its_value() -> None:
    figure = training_figure(TRAININGS)
    texts = [[text.get_text() for text in axis.texts] for axis in figure.axes]
    assert texts == [[], [], ["0.700", "0.800"], ["0.600"]]
    for axis in figure.axes:
        assert all(line.get_marker() == "o" for line in axis.lines)


def test_the_gallery_shows_each_kind_of_case(dataset: Dataset, predictions: Predictions) -> None:
    final = predictions.table[predictions.table["model"] == FINAL]
    thresholds = dict.fromkeys(LABELS, 0.5)
    cases = choose_cases(final, thresholds, 8, seed=0)
    assert len({case.source_id for case in cases}) == len(cases) == 8
    assert {case.kind for case in cases} == {"best", "median", "worst", "missed", "false alarm"}
    found = final[final["present"] & (final["probability"] >= 0.5)]
    best, worst = (next(case for case in cases if case.kind == kind) for kind in ("best", "worst"))
    assert found["iou"].max() in found.loc[found["source_id"] == best.source_id, "iou"].tolist()
    assert found["iou"].min() in found.loc[found["source_id"] == worst.source_id, "iou"].tolist()
    for case in cases:
        own = final[final["source_id"] == case.source_id]
        predicted = own["probability"] >= 0.5
        assert {
            "missed": (own["present"] & ~predicted).any(),
            "false alarm": (~own["present"] & predicted).any(),
        }.get(case.kind, (own["present"] & predicted).any())
    pictures = slice_pictures(final, cases, dataset, LABELS, thresholds)
    for picture, case in zip(pictures, cases, strict=True):
        assert picture.caption.startswith(f"<b>{case.kind}</b><br>patient ")
        assert case.kind not in ("missed", "false alarm") or f": {case.kind}<" in picture.caption


def test_a_strip_shows_one_patient_in_order(predictions: Predictions) -> None:
    final = predictions.table[predictions.table["model"] == FINAL]
    rows = final.drop_duplicates("source_id").set_index("source_id").loc[choose_strip(final)]
    assert rows["patient_id"].nunique() == 1 and rows["slice"].is_monotonic_increasing and len(rows) == 8
    assert choose_strip(final.assign(patient_id=pd.array([None] * len(final), "str"))) == []
