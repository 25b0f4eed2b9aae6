"""The page of pictures, from a predictions artifact and real JPEGs on disk."""

import base64
import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from brain_tumor.config import SyntheticDataset, VisualizeConfig
from brain_tumor.data.sources.synthetic import write_export
from brain_tumor.drawing import choose_slices
from brain_tumor.errors import InputError
from brain_tumor.evaluation.table import FILE, PREDICTED_BOX, TRUE_BOX
from brain_tumor.storage import publish
from brain_tumor.visualization.gallery import gallery_figure
from brain_tumor.visualization.page import visualize

LABELS = ["label0", "label1", "label2"]
MODELS = ["final", "baseline_classification", "baseline_box", "constant"]
NOTICE = "These figures are about synthetic patients."
HISTORIES = {
    "phase_1_box": [
        {"epoch": 1, "loss": 2.0, "val_loss": 2.1, "val_boxes_iou": 0.1, "learning_rate": 0.001},
        {"epoch": 2, "loss": 1.0, "val_loss": 1.3, "val_boxes_iou": 0.3, "learning_rate": 0.001},
    ],
    "phase_2_classification": [{"epoch": 1, "loss": 0.7, "val_loss": 0.8, "val_labels_auc": 0.6}],
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    """A dataset's images/test with the slices of three synthetic patients, annotations beside them."""
    folder = tmp_path_factory.mktemp("export")
    config = SyntheticDataset(
        source="synthetic",
        labels=LABELS,
        filename_pattern="",
        duplicate_boxes="error",
        max_bad_fraction=0.0,
        split="provided",
        split_fractions={"train": 0.7, "valid": 0.2, "test": 0.1},
        split_seed=0,
        near_duplicate_distance=4,
        seed=2,
        train_patients=1,
        valid_patients=1,
        test_patients=3,
        slices_per_patient=6,
    )
    write_export(folder / "images", config)
    return folder


@pytest.fixture(scope="module")
def predictions(dataset, tmp_path_factory) -> Path:
    """Made-up predictions on those slices, near the truth."""
    rng = np.random.default_rng(0)
    images = dataset / "images" / "test"
    boxes = pd.read_csv(images / "_annotations.csv").set_index(["filename", "class"])
    rows = []
    for model in MODELS:
        for path in sorted(images.glob("*.jpg")):
            width, height = Image.open(path).size
            _, patient, _, number, *_ = path.name.split("_")
            for label in LABELS:
                present = (path.name, label) in boxes.index
                box = (
                    boxes.loc[(path.name, label), ["xmin", "ymin", "xmax", "ymax"]]
                    if present
                    else [np.nan] * 4
                )
                guess = np.array(box, float) if present else np.array([30.0, 30, 60, 60])
                rows.append(
                    {
                        "model": model,
                        "split": "test",
                        "source_id": f"test/{path.name}",
                        "filename": path.name,
                        "patient_id": patient,
                        "slice": int(number),
                        "width": width,
                        "height": height,
                        "label": label,
                        "present": present,
                        "probability": np.clip(0.4 * present + 0.6 * rng.random(), 0, 1),
                        **dict(zip(TRUE_BOX, box, strict=True)),
                        **dict(zip(PREDICTED_BOX, guess + rng.normal(0, 3, 4), strict=True)),
                    }
                )
    table = pd.DataFrame(rows).astype({"slice": "Int64"})
    table.loc[table["model"] == "baseline_box", "probability"] = np.nan
    table.loc[table["model"] == "baseline_classification", PREDICTED_BOX] = np.nan
    return publish_predictions(tmp_path_factory.mktemp("run") / "predictions", table)


def publish_predictions(path: Path, table: pd.DataFrame) -> Path:
    with publish(path, "predictions") as draft:
        table.to_parquet(draft.path / FILE)
        draft.manifest |= {
            "labels": LABELS,
            "notice": NOTICE,
            "threshold": 0.5,
            "models": {model: {"title": model.replace("_", " "), "heads": []} for model in MODELS},
        }
    return path


def images_of(page: str) -> list[Image.Image]:
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    return [Image.open(io.BytesIO(base64.b64decode(data))) for data in found]


def test_page(dataset, predictions, tmp_path):
    output = tmp_path / "new" / "page.html"
    visualize(VisualizeConfig(gallery_images=8, seed=1), predictions, dataset, HISTORIES, output)
    page = output.read_text()
    assert output.stat().st_size < 2_000_000
    assert NOTICE in page
    for title in ("final", "baseline classification", "baseline box", "constant"):
        assert f"<td>{title}</td>" in page
    assert len(images_of(page)) == 4  # gallery, ROC curves, IoU histograms, training
    assert all(image.width > 900 and np.asarray(image.convert("L")).std() > 5 for image in images_of(page))
    # Nothing to fetch: no address, no file beside it.
    assert "http://" not in page and "https://" not in page and "url(" not in page
    assert all(value.startswith("data:") for value in re.findall(r'(?:src|href)="([^"]*)"', page))
    assert list(output.parent.iterdir()) == [output]


def test_without_histories_there_is_no_training_section(dataset, predictions, tmp_path):
    visualize(VisualizeConfig(gallery_images=2, seed=1), predictions, dataset, {}, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert len(images_of(page)) == 3 and "<h2>Training</h2>" not in page


def test_a_label_in_no_slice_has_no_curve_and_no_histogram(dataset, predictions, tmp_path):
    table = pd.read_parquet(predictions / FILE)
    table.loc[table["label"] == "label0", "present"] = False
    table.loc[table["label"] == "label0", TRUE_BOX] = np.nan
    path = publish_predictions(tmp_path / "predictions", table)
    visualize(VisualizeConfig(gallery_images=4, seed=1), path, dataset, HISTORIES, tmp_path / "page.html")
    assert len(images_of((tmp_path / "page.html").read_text())) == 4


def test_a_page_too_large_for_the_dashboard_is_refused(dataset, predictions, tmp_path, monkeypatch):
    monkeypatch.setattr("brain_tumor.visualization.page.LARGEST_PAGE", 1000)
    with pytest.raises(InputError, match="gallery_images, which is 2"):
        visualize(VisualizeConfig(gallery_images=2, seed=1), predictions, dataset, {}, tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_image_is_named(predictions, tmp_path):
    with pytest.raises(InputError, match=r"volume_\d+_slice_\d+_jpg\.rf\.\w+\.jpg is missing"):
        visualize(
            VisualizeConfig(gallery_images=2, seed=1), predictions, tmp_path, {}, tmp_path / "page.html"
        )


def test_gallery_draws_boxes_in_pixels_of_the_original_image(dataset, predictions):
    table = pd.read_parquet(predictions / FILE)
    final = table[table["model"] == "final"]
    counts = final[final["present"]].groupby("source_id").size()
    name = counts.idxmax()
    rows = final[final["source_id"] == name]
    # The image is where it came from, whichever split it is used in.
    figure = gallery_figure(final.assign(split="valid"), [name], dataset, LABELS, 0.5)
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


def make_slices(patients: dict[str, tuple[int, int]]) -> pd.DataFrame:
    """Rows of slices: by patient, how many with and how many without a box."""
    rows = [
        {
            "patient_id": patient,
            "slice": number,
            "source_id": f"test/{patient}_{number}.jpg",
            "has_box": number < with_box,
        }
        for patient, (with_box, without_box) in patients.items()
        for number in range(with_box + without_box)
    ]
    return pd.DataFrame(rows)


def test_slices_are_spread_over_patients_and_some_have_no_box():
    table = make_slices({"1": (40, 40), "2": (3, 60), "10": (5, 5)})
    chosen = choose_slices(table, 10, seed=0)
    rows = table.set_index("source_id").loc[chosen]
    assert rows["has_box"].sum() == 8
    assert set(rows[rows["has_box"]]["patient_id"].value_counts()) == {3, 2}
    assert rows[~rows["has_box"]]["patient_id"].nunique() == 2
    assert list(dict.fromkeys(rows["patient_id"])) == ["1", "2", "10"]
    assert chosen == choose_slices(table, 10, seed=0) != choose_slices(table, 10, seed=1)


def test_slices_that_are_lacking_are_made_up_for_by_the_others():
    assert len(choose_slices(make_slices({"1": (9, 0)}), 8, seed=0)) == 8
    assert len(choose_slices(make_slices({"1": (1, 9)}), 8, seed=0)) == 8
    assert len(choose_slices(make_slices({"1": (1, 2)}), 8, seed=0)) == 3


def test_needs_neither_tensorflow_nor_a_window_system():
    code = (
        "import sys, brain_tumor.visualization.page\n"
        "print(sorted({'tensorflow', 'keras', 'kfp', 'matplotlib.pyplot'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
