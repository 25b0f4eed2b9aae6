"""`brain-tumor predict` on images from anywhere. `test_train` does it with a trained model."""

import csv
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.patches import Rectangle
from PIL import Image

from brain_tumor.artifacts.folder import artifact_id
from brain_tumor.artifacts.model import Model
from brain_tumor.cli import main
from brain_tumor.config import EvaluateConfig, Head, RecordsConfig
from brain_tumor.inference.images import BadImage, LoadedImage, find_images, load_image
from brain_tumor.inference.models import Predictor
from brain_tumor.inference.predict import BATCH, predict_images
from brain_tumor.ingest.ingest import ingest
from brain_tumor.records.build import build_tfrecords
from brain_tumor.records.read import load_split
from brain_tumor.reports.prediction_pictures import prediction_figure
from brain_tumor.runtime.errors import InputError
from tests.unit.exports import directory_config
from tests.unit.recorded_runs import make_answers, write_run
from tests.unit.stand_ins import BOXES, LABELS, PROBABILITIES, SCORES, SIZE, write_stand_in

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model artifact with known predictions."""
    return write_stand_in(tmp_path_factory.mktemp("models") / "both", ["labels", "boxes"], scored=True)


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Images of all accepted kinds, 64 x 20 pixels."""
    folder = tmp_path / "scans"
    (folder / "more").mkdir(parents=True)
    rng = np.random.default_rng(0)
    grey = Image.fromarray(rng.integers(0, 256, (20, 64), dtype=np.uint8))
    color = Image.fromarray(rng.integers(0, 256, (20, 64, 3), dtype=np.uint8))
    grey.save(folder / "grey.jpg")
    color.save(folder / "color.jpg")
    color.convert("CMYK").save(folder / "cmyk.JPEG")
    color.save(folder / "color.png")
    color.convert("RGBA").save(folder / "alpha.png")
    Image.fromarray(rng.integers(0, 65536, (20, 64), dtype=np.uint16)).save(folder / "sixteen.png")
    grey.save(folder / "more" / "grey.jpg")
    (folder / "notes.txt").write_text("no image")
    return folder


def predict(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[str, str]:
    """The command's output on stdout and stderr."""
    main(["predict", *map(str, arguments)])
    said = capsys.readouterr()
    return said.out, said.err


def test_json_has_every_label_of_every_image(
    model: Model, scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, _ = predict(capsys, scans / "grey.jpg", "--model", model.path)
    found = json.loads(out)
    assert found["model"] == {
        "name": str(model.path),
        "labels": LABELS,
        "thresholds": dict.fromkeys(LABELS, 0.5),
        "thresholds_from": "the default, as the model was not evaluated",
    }
    [image] = found["images"]
    assert (image["image"], image["width"], image["height"]) == (str(scans / "grey.jpg"), 64, 20)
    # Letterboxed to 40 px, the image fills the rows 13 to 26: the square's center is 7 of these 13 rows down.
    boxes = [[16.0, 0.0, 48.0, 10.77], [0.0, 0.0, 64.0, 20.0], [32.0, 10.77, 32.0, 10.77]]
    assert len(boxes) == len(BOXES)
    for label, name, probability, box, score in zip(
        image["labels"], LABELS, PROBABILITIES, boxes, SCORES, strict=True
    ):
        assert label == {
            "label": name,
            "probability": probability,
            "threshold": 0.5,
            "present": probability >= 0.5,
            "box": pytest.approx(box, abs=0.01),
            "score": score,
        }


def test_a_label_is_present_from_the_threshold_of_the_models_evaluation(
    model: Model,
    scans: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The newest run that evaluated the model counts; a copy is the same model."""
    monkeypatch.chdir(tmp_path)
    answers = make_answers(labels=LABELS)
    for minute, (threshold, artifact) in enumerate(
        [(0.6, artifact_id(model.path)), (0.7, artifact_id(model.path)), (0.8, "another")]
    ):
        config = EvaluateConfig(bootstrap_samples=20, threshold=threshold)
        write_run(Path("runs"), f"run-{minute}", answers, minute, labels=LABELS, config=config, of=artifact)
    copy = shutil.copytree(model.path, tmp_path / "copy")
    out, err = predict(capsys, scans / "grey.jpg", "--model", copy)
    found = json.loads(out)
    assert found["model"]["thresholds"] == dict.fromkeys(LABELS, 0.7)
    assert found["model"]["thresholds_from"] == "the evaluation of the run run-1"
    assert "thresholds: label0 0.700, label1 0.700, label2 0.700 (the evaluation of the run run-1)." in err
    labels = found["images"][0]["labels"]
    assert [label["threshold"] for label in labels] == [0.7] * 3
    assert [label["present"] for label in labels] == [False, False, True], PROBABILITIES


def test_csv_has_a_row_per_image_and_label(model: Model, scans: Path, tmp_path: Path, capsys: Any) -> None:
    output = tmp_path / "new" / "answers.csv"
    out, err = predict(capsys, scans, "--model", model.path, "--output", output)
    assert out == "" and "could not be read" not in err
    rows = list(csv.DictReader(output.open()))
    names = ["alpha.png", "cmyk.JPEG", "color.jpg", "color.png", "grey.jpg", "more/grey.jpg", "sixteen.png"]
    assert [row["image"] for row in rows] == [str(scans / name) for name in names for _ in LABELS]
    assert [row["label"] for row in rows[:3]] == LABELS
    assert rows[0] | {"image": ""} == {
        "image": "",
        "width": "64",
        "height": "20",
        "label": "label0",
        "probability": "0.25",
        "threshold": "0.5",
        "present": "False",
        "xmin": "16.0",
        "ymin": "0.0",
        "xmax": "48.0",
        "ymax": "10.77",
        "score": "0.75",
        "error": "",
    }
    again, _ = predict(capsys, scans / "*.jpg", scans / "grey.jpg", "--model", model.path, "--format", "csv")
    assert len(again.splitlines()) == 1 + 2 * 3, "a pattern is expanded, and an image counts once"


def test_a_model_with_one_head_omits_the_others_values(scans: Path, tmp_path: Path, capsys: Any) -> None:
    cases: dict[Head, set[str]] = {
        "labels": {"box", "score"},
        "boxes": {"probability", "threshold", "present"},
    }
    for head, empty in cases.items():
        one = write_stand_in(tmp_path / head, [head])
        out, _ = predict(capsys, scans / "grey.jpg", "--model", one.path)
        label = json.loads(out)["images"][0]["labels"][0]
        assert {name for name, value in label.items() if value is None} == empty
        out, _ = predict(capsys, scans / "grey.jpg", "--model", one.path, "--format", "csv")
        [row, *_] = csv.DictReader(out.splitlines())
        assert (row["xmin"] == "") == (head == "labels") and (row["probability"] == "") == (head == "boxes")


def test_bad_images_are_reported_and_do_not_stop_others(
    model: Model, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (scans / "color.jpg").read_bytes()
    (scans / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (scans / "text.png").write_text("no image")
    (scans / "empty.jpg").touch()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(scans / "grey.jpg").save(scans / "turned.jpg", exif=exif)
    (tmp_path / "nothing").mkdir()
    named = ["cut.jpg", "text.png", "grey.jpg", "empty.jpg", "turned.jpg", "absent.jpg"]
    arguments = [*(scans / name for name in named), tmp_path / "nothing", tmp_path / "*.gif"]
    with pytest.raises(SystemExit) as ended:
        predict(capsys, *arguments, "--model", model.path, "--draw", tmp_path / "drawn")
    assert ended.value.code == 1, "the output is incomplete"
    said = capsys.readouterr()
    images = json.loads(said.out)["images"]
    problems = {Path(image["image"]).name: image["error"] for image in images if "error" in image}
    assert list(problems) == [
        "cut.jpg",
        "text.png",
        "empty.jpg",
        "turned.jpg",
        "absent.jpg",
        "nothing",
        "*.gif",
    ]
    for name, words in {
        "cut.jpg": "cannot be decoded",
        "text.png": "it is not a JPEG or PNG",
        "empty.jpg": "it is empty",
        "turned.jpg": "is rotated by its EXIF orientation (6)",
        "absent.jpg": "No such file",
        "nothing": "contains no JPEG or PNG files",
        "*.gif": "contains no JPEG or PNG files",
    }.items():
        assert words in problems[name] and name in problems[name] and problems[name] in said.err
    assert "7 of 8 images could not be read." in said.err
    assert [image["labels"][0]["score"] for image in images if "labels" in image] == [0.75]
    assert os.listdir(tmp_path / "drawn") == ["grey.png"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--model", "nowhere"], "nowhere holds no model artifact: no manifest.json"),
        (
            ["--model", "models:/brain-tumor@champion"],
            "models:/brain-tumor@champion is an MLflow model, but",
        ),
        (["--model", "brain-tumor@champion"], "models:/brain-tumor@champion is an MLflow model, but"),
        (["--model", "runs:/0a1b/model"], "MLFLOW_TRACKING_URI is not set"),
        (["--model", "MODEL", "--output", "answers.txt"], "answers.txt does not end with .json or .csv"),
        (["--model", "MODEL", "--output", "scans/grey.jpg", "--format", "csv"], "overlaps the input"),
        (["--model", "MODEL", "--draw", "scans"], "overlaps the input"),
        (["--model", "MODEL", "--draw", "full"], "full is not empty, so nothing is drawn there"),
    ],
)
def test_bad_input_is_one_sentence_and_loses_nothing(
    model: Model,
    scans: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "grey.png").write_text("mine")
    before = (scans / "grey.jpg").read_bytes()
    words = [str(model.path) if word == "MODEL" else word for word in arguments]
    with pytest.raises(SystemExit) as ended:
        main(["predict", "scans/grey.jpg", "scans/color.jpg", *words])
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert said.out == "" and sentence in said.err and said.err.count("\n") == 1
    assert (scans / "grey.jpg").read_bytes() == before and (
        tmp_path / "full" / "grey.png"
    ).read_text() == "mine"
    assert sorted(os.listdir(tmp_path)) == ["full", "scans"], "and no store is created"


def test_images_are_read_as_in_training(scans: Path, tmp_path: Path) -> None:
    """Bit-identical for each kind: larger and smaller than the square, grey ones in three equal channels."""
    (scans / "notes.txt").unlink()
    (scans / "more" / "grey.jpg").unlink()
    (scans / "more").rmdir()
    export = tmp_path / "export"
    for split in ("train", "valid", "test"):
        (export / split).mkdir(parents=True)
        (export / split / "_annotations.csv").write_text("filename,width,height,class,xmin,ymin,xmax,ymax\n")
        Image.new("L", (8, 8)).save(export / split / "other.png")
    for path in scans.iterdir():
        path.rename(export / "test" / path.name)
    config = directory_config(export)
    dataset = ingest(config, tmp_path / "dataset").dataset
    records = build_tfrecords(RecordsConfig(), dataset, tmp_path / "records")
    for size in (40, 96):
        examples = {
            example["filename"].decode(): example["image"]
            for example in load_split(records, "test", size).as_numpy_iterator()
        }
        assert len(examples) == 7
        for name, expected in examples.items():
            loaded = load_image(export / "test" / name, size)
            assert isinstance(loaded, LoadedImage), name
            np.testing.assert_array_equal(loaded.pixels, expected, err_msg=name)


def test_many_images_are_predicted_in_batches_and_keep_their_order(scans: Path) -> None:
    sizes = []

    def answer(images: np.ndarray) -> dict[str, np.ndarray]:
        sizes.append(len(images))
        return {"labels": images.mean(axis=(1, 2, 3))[:, None] / 255}

    paths: list[Path | BadImage] = []
    for number in range(150):
        path = scans / f"{number}.png"
        if number % 50 == 20:
            paths.append(BadImage(path, "bad"))
            continue
        Image.new("L", (16, 16), number).save(path)
        paths.append(path)
    predictor = Predictor("model", ["label"], 16, {"label": 0.5}, "", "", answer)
    found = list(predict_images(predictor, paths))
    assert sizes == [63, 62, 22] and BATCH == 64
    for number, each in enumerate(found):
        assert each.path == scans / f"{number}.png"
        if number % 50 != 20:
            assert not isinstance(each, BadImage)
            assert each.labels[0].probability == pytest.approx(number / 255)


def test_predictions_that_are_not_finite_are_refused(scans: Path) -> None:
    predictor = Predictor("m", ["label"], 16, {}, "", "", lambda images: {"labels": np.full((1, 1), np.nan)})
    with pytest.raises(InputError, match="The labels that m predicts are not finite"):
        list(predict_images(predictor, [scans / "grey.jpg"]))


def test_pictures_show_the_boxes_of_present_labels_in_pixels(
    model: Model, scans: Path, tmp_path: Path
) -> None:
    drawn = tmp_path / "drawn"
    main(
        [
            "predict",
            str(scans),
            "--model",
            str(model.path),
            "--draw",
            str(drawn),
            "--output",
            str(drawn) + ".json",
        ]
    )
    assert sorted(os.listdir(drawn)) == [
        *("alpha.png", "cmyk.png", "color-2.png", "color.png", "grey-2.png", "grey.png", "sixteen.png")
    ]
    assert all(np.asarray(Image.open(path).convert("L")).std() > 5 for path in drawn.iterdir())

    predictor = Predictor(
        "m",
        LABELS,
        SIZE,
        dict.fromkeys(LABELS, 0.5),
        "",
        "",
        lambda images: {
            "labels": np.array([PROBABILITIES]),
            "boxes": np.array([BOXES]),
            "scores": np.array([SCORES]),
        },
    )
    [answer] = predict_images(predictor, find_images([str(scans / "color.png")]))
    assert not isinstance(answer, BadImage)
    [axis] = prediction_figure(answer).axes
    boxes = [patch for patch in axis.patches if isinstance(patch, Rectangle)]
    drawn_boxes = [(*box.get_xy(), box.get_width(), box.get_height()) for box in boxes]
    np.testing.assert_allclose(drawn_boxes, [(0, 0, 64, 20), (32, 10.77, 0, 0)], atol=0.01)
    assert axis.get_xlim() == (0, 64) and axis.get_ylim() == (20, 0)
    texts = [text.get_text() for text in axis.texts]
    assert texts[:2] == LABELS[1:], "names at the boxes of present labels"
    assert texts[2] == "label0: not present, probability 0.25, box score 0.75"
