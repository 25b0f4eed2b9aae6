"""The evaluation of predictions: figures and metrics, the artifact, the terminal table and the Markdown."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from brain_tumor.artifacts.dataset import Leakage, SharedBySplits
from brain_tumor.artifacts.evaluation import ALL, FILE, Evaluation, read_evaluation, write_evaluation
from brain_tumor.artifacts.figures import DASHBOARD, LABEL_FIGURES, OVERALL_FIGURES, VERSUS
from brain_tumor.artifacts.predictions import (
    TRUE_BOX,
    EvaluationData,
    open_predictions,
    write_predictions,
)
from brain_tumor.artifacts.records import SplitRecords
from brain_tumor.config import EvaluateConfig
from brain_tumor.evaluation.evaluate import evaluate_predictions
from brain_tumor.reports.evaluation_tables import (
    DASH,
    TERMINAL_LABEL_COLUMNS,
    difference_table,
    label_table,
    summary_table,
)
from brain_tumor.reports.model_card import model_card
from brain_tumor.runtime.errors import InputError
from tests.unit.small_predictions import LABELS, NOTICE, TITLES, TRAININGS, make_predictions

CONFIG = EvaluateConfig(bootstrap_samples=200, seed=1)


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    """The evaluation of twelve patients."""
    return evaluate_predictions(
        CONFIG, make_predictions(tmp_path_factory.mktemp("run") / "predictions", 12, NOTICE)
    )


def test_it_has_its_metadata(evaluation: Evaluation) -> None:
    assert (evaluation.split, evaluation.threshold, evaluation.notice) == ("test", 0.5, NOTICE)
    assert (evaluation.patients, evaluation.images, evaluation.boxes) == (12, 36, 48)
    assert {name: model.title for name, model in evaluation.models.items()} == TITLES
    assert list(evaluation.models) == list(TITLES)
    assert evaluation.models["final"].mlflow_run_id == "run of final"
    assert evaluation.label_names == LABELS


def test_figures(evaluation: Evaluation) -> None:
    figures = {name: model.figures for name, model in evaluation.models.items()}
    assert figures["final"]["macro_f1"] == 1.0
    assert figures["final"]["mean_iou"] == pytest.approx(2 / 3)
    assert figures["baseline_box"]["mean_iou"] == 1.0 and figures["baseline_box"]["macro_f1"] is None
    assert figures["constant"]["macro_f1"] == pytest.approx((0.5 + 1) / 2)
    assert figures["constant"]["mean_iou"] == pytest.approx(1 / 9)
    ranked = {name: own["box_ap50"] for name, own in figures.items()}
    assert ranked == {"final": 1, "baseline_classification": None, "baseline_box": 1, "constant": 0}
    assert evaluation.models["constant"].labels["label0"]["f1"] == 0.5
    differences = evaluation.differences
    assert list(differences) == ["baseline_classification", "baseline_box", "constant"]
    assert differences["constant"][ALL]["mean_iou"].value == pytest.approx(2 / 3 - 1 / 9)
    assert differences["constant"]["label0"]["macro_f1"].value == 0.5
    assert differences["baseline_box"]["label (1)"]["mean_iou"].value == pytest.approx(2 / 3 - 1)
    assert differences["baseline_classification"][ALL]["mean_iou"].value is None


def test_every_model_with_a_class_head_has_curves(evaluation: Evaluation) -> None:
    curves = {name: model.curves for name, model in evaluation.models.items()}
    assert {name: list(own) for name, own in curves.items()} == {
        "final": LABELS,
        "baseline_classification": LABELS,
        "baseline_box": [],
        "constant": LABELS,
    }
    assert curves["final"]["label0"].confusion_matrix == [[24, 0], [0, 12]]
    assert curves["constant"]["label0"].confusion_matrix == [[0, 24], [0, 12]]
    assert evaluation.final_curves("label0") == curves["final"]["label0"]
    assert evaluation.final_curves("label (1)").roc is None  # it is in all slices
    with pytest.raises(
        InputError, match=r"no curves of label9 .* it has those of all labels, label0, label \(1\)"
    ):
        evaluation.final_curves("label9")


def test_the_trainings_of_all_models_are_in_order(evaluation: Evaluation) -> None:
    assert list(evaluation.trainings) == ["phase1", "phase2", "baseline_box"]
    assert evaluation.trainings["baseline_box"] == TRAININGS["baseline_box"]["baseline_box"]


def test_metrics_are_flat_sorted_and_finite(evaluation: Evaluation) -> None:
    metrics = evaluation.metrics()
    assert list(metrics) == sorted(metrics)
    assert metrics["mean_iou"] == pytest.approx(2 / 3)
    assert metrics["baseline_box/mean_iou"] == 1.0
    assert metrics["final/label0/f1"] == metrics["final/label0/box_ap50"] == 1.0
    assert metrics["final/label _1_/f1"] == 1.0  # MLflow does not accept brackets
    assert "baseline_box/macro_f1" not in metrics and "baseline_classification/mean_iou" not in metrics
    assert "final/label _1_/roc_auc" not in metrics  # it is in all slices
    assert {type(value) for value in metrics.values()} == {float}


def test_reading_returns_what_was_written(evaluation: Evaluation, tmp_path: Path) -> None:
    write_evaluation(tmp_path / "evaluation", evaluation)
    found = read_evaluation(tmp_path / "evaluation")
    assert found == evaluation
    assert found.model_dump_json() == evaluation.model_dump_json()  # in the same order, too


@pytest.mark.parametrize("change", ["cut", "old", "empty", "missing"])
def test_a_damaged_or_old_evaluation_is_refused(evaluation: Evaluation, tmp_path: Path, change: str) -> None:
    write_evaluation(tmp_path / "evaluation", evaluation)
    file = tmp_path / "evaluation" / FILE
    text = file.read_text()
    if change == "missing":
        file.unlink()
    else:
        old = text.replace('"differences"', '"difference"')
        file.write_text({"cut": text[: len(text) // 2], "old": old, "empty": ""}[change])
    with pytest.raises(InputError) as caught:
        read_evaluation(tmp_path / "evaluation")
    assert str(caught.value) == (
        f"{file} is damaged, or another version wrote it; run the step that makes it again."
    )


def test_terminal_table(evaluation: Evaluation) -> None:
    notes = {"MLflow run": {name: model.mlflow_run_id for name, model in evaluation.models.items()}}
    lines = summary_table(evaluation, notes).splitlines()
    assert re.split(r"\s{2,}", lines[0].strip()) == [
        *("model", "macro_f1", "mean_iou", "recall_at_50", "box_ap50", "MLflow run")
    ]
    assert [line.split("  ")[0] for line in lines[2:]] == list(TITLES.values())
    assert lines[2].split()[-7:] == ["1.000", "0.667", "1.000", "1.000", "run", "of", "final"]
    assert lines[3].split()[-7:-3] == ["1.000", DASH, DASH, DASH]
    assert lines[4].split()[-7:-3] == [DASH, "1.000", "1.000", "1.000"]


def test_markdown_with_intervals(evaluation: Evaluation) -> None:
    markdown = model_card(evaluation)
    assert f"**{NOTICE}**" in markdown
    assert "Split test: 12 patients, 36 images, 48 true boxes." in markdown
    cells = [cell.strip() for cell in find_line(markdown, "| final ").split("|")[1:-1]]
    # Only label0 is absent in some slices, so the mean ROC AUC is its ROC AUC.
    assert cells == [
        "final",
        "1.000 [1.000, 1.000]",
        "0.667 [0.667, 0.667]",
        "1.000 [1.000, 1.000]",
        "1.000 [1.000, 1.000]",
        "0.400",  # found up to an IoU of 0.65, at four of ten thresholds
        "0.000 [0.000, 0.000]",
        "1.000",
        "1.000 [1.000, 1.000]",
    ]
    assert DASH in find_line(markdown, "| baseline box (")
    minus = find_line(markdown, f"| constant baseline | {ALL} ").split("|")
    assert [cell.strip() for cell in minus[2:5]] == [
        ALL,
        "+0.250 [+0.250, +0.250]",
        "+0.556 [+0.556, +0.556]",
    ]
    assert "paired bootstrap over patients" in markdown
    assert (
        find_line(markdown, "| label (1)").count(DASH) == 4
    )  # it is in all slices, so there is nothing to rank
    assert "nan" not in markdown.lower()


def test_a_label_missing_in_the_split_is_reported(tmp_path: Path) -> None:
    """It is left out of means, resamples and differences."""
    predictions = make_predictions(tmp_path / "predictions", 12)
    table = predictions.table.copy()
    table.loc[table["label"] == "label0", ["present", *TRUE_BOX, "iou"]] = [False, *[np.nan] * 5]
    write_predictions(tmp_path / "predictions", table, predictions.manifest)
    found = evaluate_predictions(CONFIG, open_predictions(tmp_path / "predictions"))

    assert found.absent_labels == ["label0"]
    final = found.models["final"]
    assert final.figures["macro_f1"] == 1.0
    interval = final.intervals["macro_f1"]
    assert (interval.value, interval.low, interval.high) == (1.0, 1.0, 1.0)
    assert found.differences["constant"]["label0"]["macro_f1"].value is None
    assert "final/label0/f1" not in found.metrics()
    said = "label0 is in no image of the split test: it has no figures, and means over labels leave it out"
    assert said in model_card(found) and said in label_table(found)
    assert find_line(model_card(found), "| label0 ").count(DASH) == 12


def test_every_label_has_its_box_figures_in_table_json_and_metrics(evaluation: Evaluation) -> None:
    header, *_ = label_table(evaluation).splitlines()
    assert header.split()[3:] == list(TERMINAL_LABEL_COLUMNS)
    assert find_line(label_table(evaluation), "label (1) ").split()[-4:] == [
        "0.667",
        "1.000",
        "1.000",
        "0.400",
    ]
    for name in ("mean_iou", "median_iou", "recall_at_50", "box_ap50"):
        assert f"final/label0/{name}" in evaluation.metrics()
        assert evaluation.model_dump()["models"]["final"]["labels"]["label0"][name] is not None


def test_a_label_with_a_pipe_is_one_cell(evaluation: Evaluation) -> None:
    final = evaluation.models["final"]
    labels = {"a|b": final.labels["label0"], "label (1)": final.labels["label (1)"]}
    models = {"final": final.model_copy(update={"labels": labels})}
    renamed = evaluation.model_copy(update={"models": models, "differences": {}})
    assert find_line(model_card(renamed), r"| a\|b |")


def test_markdown_says_why_there_is_no_interval(tmp_path: Path) -> None:
    markdown = model_card(evaluate_predictions(CONFIG, make_predictions(tmp_path / "predictions", 2)))
    assert "[" not in find_line(markdown, "| final ")
    assert "No interval: only 2 patients, 10 are needed" in markdown
    assert " +0.556 |" in find_line(markdown, f"| constant baseline | {ALL} ")
    assert "only 2 patients with a true box, 10 are needed." in markdown
    assert NOTICE not in markdown


def test_another_split_is_refused(tmp_path: Path) -> None:
    predictions = make_predictions(tmp_path / "predictions", 2)
    with pytest.raises(InputError, match="split valid"):
        evaluate_predictions(EvaluateConfig(split="valid"), predictions)


def test_a_half_written_artifact_is_refused(tmp_path: Path) -> None:
    make_predictions(tmp_path / "predictions", 2)
    (tmp_path / "predictions" / "manifest.json").unlink()
    with pytest.raises(InputError, match="no predictions artifact"):
        open_predictions(tmp_path / "predictions")


def test_evaluation_and_reports_need_neither_tensorflow_nor_a_window_system() -> None:
    code = (
        "import sys, brain_tumor.evaluation.evaluate\n"
        "import brain_tumor.reports.evaluation_tables, brain_tumor.reports.prediction_report\n"
        "print(sorted({'tensorflow', 'keras', 'kfp', 'matplotlib.pyplot'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def find_line(text: str, start: str) -> str:
    lines = [" ".join(line.split()) for line in text.splitlines()]
    (line,) = [line for line in lines if line.startswith(start)]
    return line


def test_unknown_patients_are_not_counted_as_patients(tmp_path: Path) -> None:
    predictions = make_predictions(tmp_path / "predictions", 12)
    table = predictions.table.assign(patient_id=pd.array([None] * len(predictions.table), "str"))
    unknown = write_predictions(tmp_path / "unknown", table, predictions.manifest)

    markdown = model_card(evaluate_predictions(CONFIG, unknown))

    assert "Split test: 36 images, 48 true boxes; patients are unknown." in markdown
    assert "bootstrap over images, since patients are unknown" in markdown
    assert "bootstrap over patients" not in markdown


def test_thresholds_are_tuned_on_valid_and_applied_on_test(tmp_path: Path) -> None:
    predictions = make_predictions(tmp_path / "predictions", 12)
    table = predictions.table
    table["probability"] *= 0.4  # 0.36 and 0.04, for the constant baseline 0.4: nothing reaches 0.5
    valid = table.assign(split="valid")
    write_predictions(tmp_path / "tuned", pd.concat([valid, table]), predictions.manifest)
    tuned = evaluate_predictions(
        EvaluateConfig(threshold="tuned", bootstrap_samples=20), open_predictions(tmp_path / "tuned")
    )

    final = tuned.models["final"]
    assert final.thresholds == {"label0": pytest.approx(0.2), "label (1)": pytest.approx(0.18)}
    assert tuned.models["baseline_box"].thresholds == {}
    assert final.figures["macro_f1"] == 1.0 and final.intervals["macro_f1"].value == 1.0
    assert final.curves["label0"].confusion_matrix == [[24, 0], [0, 12]]
    assert (tuned.threshold, tuned.images) == ("tuned", 36)
    assert "(final model: label0 0.200, label (1) 0.180)" in model_card(tuned)
    with pytest.raises(InputError, match="no rows of the split valid"):
        evaluate_predictions(EvaluateConfig(threshold="tuned"), predictions)


@pytest.mark.parametrize("patients", [1, 12])
@pytest.mark.parametrize("case", ["as it is", "a label nowhere", "nothing anywhere", "one box", "no answer"])
def test_no_figure_is_ever_nan(tmp_path: Path, patients: int, case: str) -> None:
    predictions = make_predictions(tmp_path / "predictions", patients)
    table = predictions.table
    gone = {
        "a label nowhere": table["label"] == "label0",
        "nothing anywhere": table["label"] != "",
        "one box": table["source_id"] != "test/0_0.jpg",
    }.get(case, table["label"] == "")
    table.loc[gone, ["present", *TRUE_BOX, "iou"]] = [False, *[np.nan] * 5]
    if case == "no answer":
        table["probability"] = table["probability"] * 0.0
    found = evaluate_predictions(CONFIG, write_predictions(tmp_path / "made", table, predictions.manifest))
    json.dumps(found.model_dump(mode="json"), allow_nan=False)
    json.dumps([found.metrics(), found.summary()], allow_nan=False)
    assert "nan" not in model_card(found).lower()


def test_a_dashboard_sees_the_final_model_s_main_figures_by_short_names(evaluation: Evaluation) -> None:
    summary = evaluation.summary()
    assert set(summary) == {*DASHBOARD, *VERSUS}
    assert len(summary) == 13 and all(len(name) <= 25 for name in summary)
    assert summary["macro_f1"] == evaluation.metrics()["macro_f1"] == 1.0
    assert summary["vs_constant_mean_iou"] == pytest.approx(2 / 3 - 1 / 9)


def test_every_figure_with_an_interval_is_a_known_one(evaluation: Evaluation) -> None:
    final = evaluation.models["final"]
    assert set(final.intervals) <= set(OVERALL_FIGURES)
    for label, own in final.label_intervals.items():
        assert {name: interval.value for name, interval in own.items()} == pytest.approx(
            {name: final.labels[label][name] for name in own}
        )
    assert final.iou_from_image.value == pytest.approx(0)  # all true boxes have the same position


def test_a_figure_has_the_same_name_everywhere(evaluation: Evaluation) -> None:
    """In the terminal, the model card, JSON, MLflow and the dashboard; the report has a separate test."""
    names = {*OVERALL_FIGURES, *LABEL_FIGURES}
    for table in (summary_table(evaluation), difference_table(evaluation), label_table(evaluation)):
        header = re.split(r"\s{2,}", table.splitlines()[0].strip())
        assert {cell for cell in header if "_" in cell or cell in names} <= names
        assert set(header) - names <= {"model", "final, minus", "label", "label, final model"}
    card = model_card(evaluation).replace("\\_", "_")
    heads = [line for line in card.splitlines() if "macro_f1 |" in line or " f1 |" in line]
    cells = {cell.strip() for line in heads[:3] for cell in line.split("|")[1:-1]}
    assert cells - names == {"model", "final, minus", "label", "label, final model"}
    for model in evaluation.models.values():
        assert set(model.figures) == set(OVERALL_FIGURES)
        assert all(set(own) == set(LABEL_FIGURES) for own in model.labels.values())
    assert {name.rsplit("/", 1)[-1] for name in evaluation.metrics()} <= names
    assert set(evaluation.summary()) - set(VERSUS) <= set(OVERALL_FIGURES)


def test_the_model_card_has_all_sections_and_is_short(evaluation: Evaluation) -> None:
    final = evaluation.models["final"]
    labels = {f"label {number}": final.labels["label0"] for number in range(500)}
    models = evaluation.models | {"final": final.model_copy(update={"labels": labels})}
    differences = {
        name: {ALL: own[ALL]} | dict.fromkeys(labels, own[ALL])
        for name, own in evaluation.differences.items()
    }
    shared = SharedBySplits(shared_patients=4, patients=[], identical_images=0, near_duplicates=7)
    data = EvaluationData(
        source="an export",
        splits={"test": SplitRecords(images=36, boxes=48, patients=12, shards=1)},
        class_counts={"test": {"label0": 12}},
        leakage=Leakage(used={"train/test": shared}, provided={}),
    )
    many = {
        "models": models,
        "differences": differences,
        "data": data,
        "configs": {"evaluate": {"seed": 1}, "train": {key: [1.25, 2.5] for key in "abcdefgh"}},
    }
    card = model_card(evaluation.model_copy(update=many))
    assert len(card) < 400_000
    headings = re.findall(r"^## (.+)$", card, re.MULTILINE)
    assert headings[0] == "Figures"
    assert {"Use and limits", "Data", "What the figures mean", "Versions and configuration"} <= set(headings)
    assert "not a medical device" in card and "an export" in card and 'evaluate: {"seed": 1}' in card
    assert find_line(card, "| train and test ") == "| train and test | 4 | 0 | 7 |"
    assert "These are the first 40 of 500 labels." in card
    # It would take a line's second underscore for the end of an emphasis, and be as wide as a line of code.
    page, code, _ = card.split("```")
    assert r"mean\_iou" in page and not re.search(r"(?<!\\)_", page)
    assert max(map(len, code.splitlines())) <= 60
    # A dashboard shows HTML and external pictures as text, or not at all.
    assert not re.search(r"<[a-z/]|!\[|https?://", card)
