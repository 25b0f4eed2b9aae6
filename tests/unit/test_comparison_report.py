"""The page, the Markdown and the terminal output of a comparison, and the command that writes them."""

import base64
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.patches import Rectangle
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score

from brain_tumor.artifacts.dataset import open_dataset
from brain_tumor.artifacts.predictions import PREDICTED_BOX, TRUE_BOX
from brain_tumor.cli import main
from brain_tumor.comparison.compare import compare
from brain_tumor.comparison.images import read_images
from brain_tumor.comparison.pairs import compare_pair, disagreements
from brain_tumor.comparison.runs import open_run
from brain_tumor.reports.before import print_before
from brain_tumor.reports.comparison_plots import (
    precision_recall_picture,
    roc_picture,
    slice_picture,
    training_pictures,
)
from brain_tumor.reports.comparison_report import LONGEST_NAME, file_name, write_comparison
from brain_tumor.runtime.tracking import open_run as open_tracked_run
from brain_tumor.runtime.tracking import pipeline_run
from tests.unit.recorded_runs import NOTICE, make_answers, write_run

EPOCHS = [{"epoch": 1, "loss": 2.0, "val_loss": 2.1, "val_boxes_iou": 0.1}, {"epoch": 2, "val_loss": 1.3}]


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("brain_tumor.comparison.pairs.RESAMPLES", 100)


def real_answers(dataset: Path, noise: float) -> pd.DataFrame:
    """Artificial predictions for the test images of a dataset."""
    images = open_dataset(dataset).images
    images = images[images["split"] == "test"]
    answers = make_answers(patients=2, slices=len(images) // 2, noise=noise)
    for name in ("source_id", "filename", "patient_id", "width", "height"):
        answers[name] = images[name].repeat(2).tolist()
    return answers


@pytest.fixture(scope="module")
def runs(tiny_dataset: Path, tiny_records: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs on real images. Do not modify."""
    folder = tmp_path_factory.mktemp("project") / "runs"
    artifacts = {"dataset": tiny_dataset, "records": tiny_records}
    for minute, (name, noise) in enumerate((("blurred-0504", 12.0), ("lr=<b>-0504", 3.0))):
        answers = real_answers(tiny_dataset, noise)
        write_run(folder, name, answers, minute, artifacts=artifacts, overrides=["seed=1", f"x={minute}"])
    return folder


@pytest.fixture(scope="module")
def written(runs: Path) -> tuple[str, str]:
    """The page and the Markdown of these two runs."""
    main(["compare", "last", "2", "--runs", str(runs)])
    [page], [text] = (list((runs / "reports").glob(f"*.{suffix}")) for suffix in ("html", "md"))
    assert page.stem == text.stem == "compare-blurred-0504-lr=_b_-0504"
    assert page.stat().st_size < 2_000_000
    return page.read_text(), text.read_text()


def test_the_page_is_self_contained(written: tuple[str, str]) -> None:
    page, _ = written
    assert "http:" not in page and "https:" not in page and "url(" not in page and "<script" not in page
    assert all(value.startswith("data:") for value in re.findall(r'(?:src|href)="([^"]*)"', page))
    assert "prefers-color-scheme: dark" in page and "width=device-width" in page
    assert "<b>" not in page, "a run's name is escaped"
    assert all(re.findall(r'<img alt="(.*?)"', page)), "pictures have an alt text"


def test_the_page_shows_the_differences(written: tuple[str, str]) -> None:
    page, text = written
    assert NOTICE in page and NOTICE in text
    headings = re.findall(r"<h2>(.*?)</h2>", page)
    assert headings == [
        *("Runs", "Figures: B and A", "Configuration", "Data", "Code and packages"),
        *("Where B differs most from A", "ROC and precision-recall curves"),
        *("Figures of each label: B and A", "Artifacts, compared with A&#39;s"),
    ]
    for content in (page, text):
        assert "Both runs were evaluated on the same 16 images (by checksum)." in content
        assert "All runs have seed=1." in content and "x=0" in content
        assert "only 2 patients, 10 are needed" in content and "=\u00a0inconclusive" in content
        assert "The same images and boxes, by checksum, in the same splits." in content
        assert "the same, cached" in content
    # 12 slices, and two curves of each of two labels.
    kinds = re.findall(r'src="data:image/(\w+);base64', page)
    assert kinds == ["webp"] * 12 + ["png"] * 4
    for data in re.findall(r'base64,([^"]+)"', page):
        image = Image.open(io.BytesIO(base64.b64decode(data)))
        assert min(image.size) > 200 and np.asarray(image.convert("L")).std() > 5


def test_the_command_prints_it_in_the_terminal(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["compare", "blurred-0504", "lr=<b>-0504", "--runs", str(runs)])
    said = capsys.readouterr().out
    assert said.startswith("A  blurred-0504 (x=0)\nB  lr=<b>-0504 (x=1)\n\nConfiguration: ")
    assert re.search(r"^mean_iou +=\s+inconclusive +\+0\.\d{3} +0\.\d{3} +0\.\d{3}$", said, re.MULTILINE)
    assert re.search(r"^Page: .*compare-.*\.html\nText: .*compare-.*\.md$", said, re.MULTILINE)
    assert max(len(line) for line in said.split("\nPage")[0].splitlines()) <= 100


@pytest.mark.parametrize("arguments", [["one"], ["last", "9"], ["a", "b"]])
def test_bad_input_is_one_sentence(
    tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["compare", *arguments, "--runs", str(tmp_path / "runs")])
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_it_needs_no_tensorflow(runs: Path) -> None:
    script = (
        "import sys\nfrom brain_tumor.cli import main\nmain(sys.argv[1:])\n"
        "print('LOADED', {'tensorflow', 'keras', 'mlflow', 'kfp'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", script, "compare", "last", "2", "--runs", str(runs)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "LOADED set()"
    assert done.stderr == ""


def test_images_come_from_the_records_if_the_dataset_is_deleted(
    runs: Path, tiny_dataset: Path, tiny_records: Path, tmp_path: Path
) -> None:
    run = open_run(runs, "blurred-0504")
    assert run.predictions
    wanted = set(run.predictions.table["source_id"][:6])
    whole = read_images(run, wanted)
    run.dataset = None
    again = read_images(run, wanted)
    assert whole.keys() == again.keys() == wanted and len(wanted) == 3
    for name in wanted:
        content = (tiny_dataset / "images" / name).read_bytes()
        assert whole[name].getvalue() == again[name].getvalue() == content
    assert read_images(run, {"test/another.jpg"}) == {}

    records = shutil.copytree(tiny_records, tmp_path / "records")
    for shard in records.glob("test-*"):
        shard.write_bytes(shard.read_bytes()[:30])
    write_run(tmp_path, "cut", None, artifacts={"records": records})
    assert read_images(open_run(tmp_path, "cut"), wanted) == {}
    run.records = None
    assert read_images(run, wanted) == {}


def test_without_images_the_page_says_so(runs: Path, tmp_path: Path) -> None:
    for path in (runs / "history").glob("*.json"):
        record = json.loads(path.read_text())
        record["artifacts"] = {
            k: v for k, v in record["artifacts"].items() if k not in ("dataset", "records")
        }
        (tmp_path / "history").mkdir(exist_ok=True)
        (tmp_path / "history" / path.name).write_text(json.dumps(record))
    main(["compare", "last", "2", "--runs", str(tmp_path)])
    [page] = (tmp_path / "reports").glob("*.html")
    assert (
        "12 of them are not shown, since they are in neither run&#39;s dataset or records" in page.read_text()
    )


def test_models_with_equal_predictions_have_no_gallery(tmp_path: Path) -> None:
    for minute, name in enumerate(("one", "two")):
        write_run(tmp_path, name, make_answers(patients=2), minute)
    page, _ = write_comparison(tmp_path, compare(tmp_path, ["last", "2"]))
    content = page.read_text()
    assert "A and B have the same predictions for all images." in content and "image/webp" not in content


def test_a_page_that_would_be_too_large_has_fewer_slices(
    runs: Path, written: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = len(written[0].encode()) - 20_000
    monkeypatch.setattr("brain_tumor.reports.comparison_report.LARGEST_PAGE", limit)
    page, _ = write_comparison(tmp_path, compare(runs, ["last", "2"]))
    content = page.read_text()
    assert len(content.encode()) <= limit
    assert 0 < content.count("data:image/webp") < 12 and content.count("left out to keep the page") == 1


def test_a_slice_shows_the_truth_and_both_predictions_in_pixels(runs: Path) -> None:
    pair = compare_pair(open_run(runs, "blurred-0504"), open_run(runs, "lr=<b>-0504"))
    rows = disagreements(pair, 16)
    row = rows[rows["present"]].iloc[0]
    content = read_images(pair.first, {row["source_id"]})[row["source_id"]]
    figure = slice_picture(row, content, ["A", "B"])
    [axis] = figure.axes
    boxes = [patch for patch in axis.patches if isinstance(patch, Rectangle)]
    assert len(boxes) == len(axis.patches)
    drawn = [(*box.get_xy(), box.get_width(), box.get_height()) for box in boxes]
    expected = []
    for names in (TRUE_BOX, PREDICTED_BOX, [f"{name}_other" for name in PREDICTED_BOX]):
        xmin, ymin, xmax, ymax = row[names].to_numpy(float)
        expected.append((xmin, ymin, xmax - xmin, ymax - ymin))
    np.testing.assert_allclose(drawn, expected)
    assert axis.get_xlim() == (0, row["width"]) and axis.get_ylim() == (row["height"], 0)
    texts = [text.get_text() for text in axis.texts]
    assert texts[0] == f"{row['label']}: present"
    yes = "yes" if row["probability"] >= 0.5 else "no"
    assert texts[1] == f"A: {row['probability']:.2f}, {yes}; IoU {row['iou']:.2f}"
    # For an absent label, a box is drawn only if the label is predicted.
    absent = row.copy()
    absent["present"], absent["predicted"], absent["predicted_other"] = False, False, True
    assert len(slice_picture(absent, content, ["A", "B"]).axes[0].patches) == 1


def test_curves_have_every_point() -> None:
    rows = make_answers(patients=30, skill=0.2)
    rows = rows[rows["label"] == "label0"]
    rows = rows.assign(probability=rows["probability"].rank(method="first") / len(rows))
    present, probability = rows["present"], rows["probability"]
    roc = roc_picture("label0", {"A": rows, "B": rows})
    assert roc
    _, first, second = roc.axes[0].lines
    fpr, tpr = map(np.asarray, first.get_data())
    assert len(fpr) == len(rows) + 1, "no point is left out"
    assert all((np.diff(fpr) == 0) | (np.diff(tpr) == 0)), "without ties there are only steps"
    assert np.trapezoid(tpr, fpr) == pytest.approx(roc_auc_score(present, probability))
    assert first.get_color() != second.get_color() and first.get_linestyle() != second.get_linestyle()
    assert str(first.get_label()).startswith("A: AUC 0.")

    curve = precision_recall_picture("label0", {"A": rows})
    assert curve
    base, line = curve.axes[0].lines
    assert line.get_drawstyle() == "steps-post"
    recall, precision = map(np.asarray, line.get_data())
    assert -np.sum(np.diff(recall) * precision[:-1]) == pytest.approx(
        average_precision_score(present, probability)
    )
    assert np.asarray(base.get_ydata())[0] == pytest.approx(present.mean())
    everywhere = rows.assign(present=True)
    assert roc_picture("label0", {"A": everywhere}) is None
    assert precision_recall_picture("label0", {"A": everywhere}) is None


def test_training_curves_are_overlaid() -> None:
    pictures = training_pictures("phase1_box", {"A": EPOCHS, "B": EPOCHS[:1], "C": []})
    assert list(pictures) == ["phase1_box: loss", "phase1_box: IoU on validation"]
    labels = [line.get_label() for line in pictures["phase1_box: loss"].axes[0].lines]
    assert labels == ["A", "A training", "B", "B training"]


def test_a_long_file_name_is_cut() -> None:
    name = file_name(["x" * 90, "y" * 90, "z"])
    assert len(name) < LONGEST_NAME and name != file_name(["x" * 90, "y" * 90, "w"])


# The line at the end of a run.


def test_a_run_names_the_previous_one_and_the_differences(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = write_run(tmp_path, "one", make_answers(noise=12.0), 0, overrides=["seed=1"])
    print_before(tmp_path, Path(first["artifacts"]["evaluation"]))
    assert capsys.readouterr().out == ""
    second = write_run(tmp_path, "two", make_answers(noise=3.0), 1)
    print_before(tmp_path, Path(second["artifacts"]["evaluation"]))
    [line] = capsys.readouterr().out.splitlines()
    assert line.startswith(
        "Before: one (seed=1): macro_f1 +0.000 (+0.000 to +0.000) inconclusive, mean_iou +0."
    )
    assert re.search(r"mean_iou \+0\.\d{3} \(\+0\.\d{3} to \+0\.\d{3}\) better, recall_at_50", line)


def test_a_damaged_record_of_another_run_does_not_fail_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = write_run(tmp_path, "one", make_answers(patients=1))
    (tmp_path / "history" / "broken.json").write_text("{")
    print_before(tmp_path, Path(record["artifacts"]["evaluation"]))
    said = capsys.readouterr().out
    assert said.startswith("Before: not compared. ") and "broken.json is not a valid run record" in said


# Runs that only MLflow has.


@pytest.mark.slow
def test_a_run_without_a_record_is_read_from_mlflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """For example one deleted by `make clean-runs`: figures without a verdict, settings and curves."""
    ids = []
    for number, rate in enumerate((0.1, 0.01)):
        monkeypatch.setenv("BRAIN_TUMOR_MLFLOW", str(tmp_path))
        monkeypatch.setenv("BRAIN_TUMOR_RUN", f"cleaned-{number}")
        monkeypatch.setenv("BRAIN_TUMOR_OVERRIDES", f"rate={rate}")
        with open_tracked_run("phase1_box") as training:
            training.log_params({"phase": {"learning_rate": rate, "epochs": 2}})
            for epoch in (1, 2):
                training.log_metrics({"val_boxes_iou": 0.1 * epoch + number / 10, "loss": 1.0}, epoch)
        parent = pipeline_run()
        figures = {"mean_iou": 0.5, "final/a_label/f1": 0.25, "final/a_label/coordinate_mae": 0.5}
        parent.log_metrics({**figures, "coordinate_mae": 0.1, "constant/mean_iou": 0.0})
        parent.end()
        ids.append((parent.id, training.id))
    monkeypatch.delenv("BRAIN_TUMOR_RUN")

    # By its name, and by the id of one of its trainings.
    main(["compare", "cleaned-0", ids[1][1], "--runs", str(tmp_path)])
    said = capsys.readouterr().out
    assert said.startswith("A  cleaned-0 (rate=0.1)\nB  cleaned-1 (rate=0.01)\n\nA: It has no record here")
    assert "A: MLflow has no predictions of it: it was not evaluated, or by an earlier version." in said
    assert "    phase1_box: phase.learning_rate: 0.1 -> 0.01\n" in said and "epochs" not in said
    assert re.search(r"^mean_iou +\u2013 +\u2013 +0\.500 +0\.500$", said, re.MULTILINE)
    assert "Data: not known for all runs\nCode: not known for all runs\n" in said
    assert "without a verdict" in " ".join(said.split())
    [page] = (tmp_path / "reports").glob("*.html")
    content = page.read_text()
    assert "<td>a_label</td>" in content and "phase1_box: IoU on validation" in content
    assert ids[0][0] in content and ids[1][0] in content

    # A run with a record but without artifacts also gets its figures from there.
    write_run(tmp_path, "cleaned-0", None, artifacts={"evaluation": tmp_path / "gone"})
    run = open_run(tmp_path, ids[0][0])
    assert run.name == "cleaned-0" and run.image == "1f" and run.figures["mean_iou"] == 0.5
    assert run.all_settings["phase1_box"]["phase.learning_rate"] == "0.1"


@pytest.mark.slow
def test_predictions_in_mlflow_give_a_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a machine without records and artifacts, or with only the record."""
    for name, noise in (("blurred", 12.0), ("sharp", 3.0)):
        monkeypatch.setenv("BRAIN_TUMOR_MLFLOW", str(tmp_path))
        monkeypatch.setenv("BRAIN_TUMOR_RUN", name)
        record = write_run(tmp_path / "elsewhere", name, make_answers(noise=noise))
        run = pipeline_run()
        for artifact, path in record["artifacts"].items():
            run.log_folder(Path(path), artifact)
        run.end()
    monkeypatch.delenv("BRAIN_TUMOR_RUN")
    write_run(tmp_path, "sharp", None, artifacts={"evaluation": tmp_path / "gone"})

    for _ in range(2):  # the second time the copies exist
        main(["compare", "blurred", "sharp", "--runs", str(tmp_path)])
        said = capsys.readouterr().out
        assert "A: Its predictions are from MLflow." in said and "B: Its predictions" in said
        assert "Both runs were evaluated on the same 42 images (by name)." in " ".join(said.split())
        assert re.search(r"^mean_iou .*\sbetter ", said, re.MULTILINE)
    copies = tmp_path / "artifacts" / "blurred" / "mlflow"
    assert sorted(path.name for path in copies.iterdir()) == ["evaluation", "predictions"]


def test_a_store_that_cannot_be_read_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:9/")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(SystemExit) as ended:
        main(["compare", "a", "b", "--runs", str(tmp_path)])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("MLflow's store http://127.0.0.1:9/: ") and said.count("\n") == 1
    assert "secret" not in said
