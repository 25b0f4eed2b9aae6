"""Comparing runs: finding them, their differences, and their figures."""

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from brain_tumor.artifacts.evaluation import ALL
from brain_tumor.artifacts.predictions import TRUE_BOX
from brain_tumor.comparison.changes import artifact_changes, code_changes, data_changes, settings_changes
from brain_tumor.comparison.history import previous_record
from brain_tumor.comparison.pairs import FIRST, MEAN_OF, OTHER, Pair, compare_pair, disagreements
from brain_tumor.comparison.runs import MAX_RUNS, ComparedRun, open_run, open_runs
from brain_tumor.config import EvaluateConfig
from brain_tumor.evaluation.intervals import FIGURES, difference
from brain_tumor.ingest.ingest import ingest
from brain_tumor.runtime.errors import InputError
from tests.unit.exports import directory_config, write_export
from tests.unit.recorded_runs import LABELS, make_answers, write_run

SHARP: dict[str, Any] = {"noise": 3.0}
BLURRED: dict[str, Any] = {"noise": 12.0}
RESAMPLES = 200


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("brain_tumor.comparison.pairs.RESAMPLES", RESAMPLES)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs on the same images, the third with better boxes. Do not modify."""
    folder = tmp_path_factory.mktemp("project") / "runs"
    write_run(folder, "one", make_answers(**BLURRED), 0, mlflow_run_id="a1", kubeflow="k-1")
    write_run(folder, "two", make_answers(**BLURRED), 1, mlflow_run_id="b2")
    write_run(folder, "three", make_answers(**SHARP), 2, mlflow_run_id="c3")
    return folder


def pair_of(folder: Path, first: pd.DataFrame, other: pd.DataFrame) -> Pair:
    """Compares two runs with these predictions."""
    write_run(folder, "first", first)
    write_run(folder, "other", other)
    return compare_pair(open_run(folder, "first"), open_run(folder, "other"))


# Finding runs.


@pytest.mark.parametrize(
    ("identifiers", "names"),
    [
        (["one", "three"], ["one", "three"]),
        (["c3", "k-1"], ["three", "one"]),
        (["last", "2"], ["two", "three"]),
        (["last", "3"], ["one", "two", "three"]),
    ],
)
def test_runs_are_found_by_name_by_id_and_by_age(
    runs: Path, identifiers: list[str], names: list[str]
) -> None:
    assert [run.name for run in open_runs(runs, identifiers)] == names


@pytest.mark.parametrize(
    ("identifiers", "sentence"),
    [
        (["one"], "1 different runs are named; name 2 to 6"),
        (["one", "one"], "1 different runs are named"),
        (["one", "a1"], "The run one is named twice"),
        ([str(number) for number in range(MAX_RUNS + 1)], "7 different runs are named"),
        (["last"], "Give the number of last runs to compare, 2 to 6, such as: last 2."),
        (["last", "two"], "Give the number"),
        (["last", "4"], "has 3 run records, fewer than 4"),
        (["one", "nine"], r"There is no run nine in .*history or in MLflow; the newest runs there are .*one"),
        (["one", "../history/two"], "There is no run ../history/two"),
        (
            ["one", "0a1b2c3d-0a1b-0a1b-0a1b-0a1b2c3d4e5f"],
            r"if it is on a cluster: make compare TARGET=kind RUNS=\.\.\.",
        ),
    ],
)
def test_identifiers_that_do_not_name_two_runs_are_refused(
    runs: Path, identifiers: list[str], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        open_runs(runs, identifiers)
    assert not (runs / "mlflow.db").exists(), "searching for a run creates no store"


@pytest.mark.parametrize("content", ["{", "[]", '{"name": 3}', '{"name": "x", "started": "yesterday"}', ""])
def test_a_damaged_record_is_named(tmp_path: Path, content: str) -> None:
    write_run(tmp_path, "whole", None)
    (tmp_path / "history" / "broken.json").write_text(content)
    for identifiers in (["whole", "broken"], ["last", "2"]):
        with pytest.raises(InputError, match=r"broken\.json is not a valid run record; delete it"):
            open_runs(tmp_path, identifiers)


def test_a_damaged_record_does_not_affect_other_runs(tmp_path: Path) -> None:
    write_run(tmp_path, "one", None)
    write_run(tmp_path, "two", None, mlflow_run_id="b2")
    (tmp_path / "history" / "broken.json").write_text("{")
    assert [run.name for run in open_runs(tmp_path, ["one", "b2"])] == ["one", "two"]


def test_a_damaged_parameter_is_named(tmp_path: Path) -> None:
    write_run(tmp_path, "one", None, parameters={"records": "[1]"})
    with pytest.raises(InputError, match="of the run one, the parameter records is not a JSON object"):
        open_run(tmp_path, "one")


def test_missing_or_damaged_artifacts_are_reported(tmp_path: Path) -> None:
    record = write_run(tmp_path, "one", make_answers(patients=2), artifacts={"joint": tmp_path / "nowhere"})
    manifest = Path(record["artifacts"]["evaluation"]) / "manifest.json"
    manifest.write_text("{")
    run = open_run(tmp_path, "one")
    assert run.predictions and not run.evaluation
    damaged, gone = run.notes
    assert f"Its artifact evaluation is ignored: {manifest} is damaged" in damaged
    assert gone.startswith("Its artifacts joint do not exist: `make clean-runs` deleted them")


def test_the_previous_run_is_the_one_before_the_run_that_made_the_evaluation(runs: Path) -> None:
    made = {run.name: run.artifacts["evaluation"] for run in open_runs(runs, ["last", "3"])}
    assert previous_record(runs, made["one"]) is None
    found = previous_record(runs, made["three"])
    assert found and [record.name for record in found] == ["two", "three"]
    assert previous_record(runs, runs / "elsewhere") is None


# Figures and verdicts.


def test_every_figure_has_the_paired_interval_of_its_difference(runs: Path) -> None:
    """Figures equal those of the evaluations, and intervals those of both models in one table."""
    first, other = open_run(runs, "one"), open_run(runs, "three")
    pair = compare_pair(first, other)
    found = {(row.part, row.figure): row for row in pair.rows}
    assert first.evaluation and other.evaluation
    for run, side in ((first, "first"), (other, "other")):
        model = run.evaluation.models["final"]
        expected = {(ALL, name): value for name, value in model.figures.items()}
        for label, figures in model.labels.items():
            expected |= {(label, name): value for name, value in figures.items()}
        # The figures that can have an interval.
        compared = {key: each for key, each in expected.items() if MEAN_OF.get(key[1], key[1]) in FIGURES}
        assert {key: getattr(row, side) for key, row in found.items()} == pytest.approx(compared)

    tables = [run.predictions.table.assign(model=run.name) for run in (first, other) if run.predictions]
    table, config = pd.concat(tables), EvaluateConfig(bootstrap_samples=RESAMPLES)
    for figure in ("macro_f1", "mean_iou", "box_ap", "median_iou", "macro_roc_auc"):
        assert found[ALL, figure].difference == difference(table, "three", "one", figure, config)
    own = table[table["label"] == "label1"]
    assert found["label1", "f1"].difference == difference(own, "three", "one", "macro_f1", config)
    assert all(row.difference.low is not None for row in pair.rows)
    assert pair.about == "Both runs were evaluated on the same 42 images (by name)."


def test_verdicts(runs: Path) -> None:
    """Better boxes have a higher IoU, where higher is better, and lower errors, where lower is better."""
    one, two, three = open_runs(runs, ["one", "two", "three"])
    boxes = ("mean_iou", "box_ap50", "coordinate_mae", "coordinate_mse", "recall_at_75")
    for first, other, word in ((one, three, "better"), (three, one, "worse"), (one, two, "inconclusive")):
        verdicts = {row.figure: row.verdict for row in compare_pair(first, other, boxes).rows}
        assert verdicts == dict.fromkeys(boxes, word)


def test_too_few_patients_give_no_verdict(tmp_path: Path) -> None:
    pair = pair_of(tmp_path, make_answers(patients=3, **BLURRED), make_answers(patients=3, **SHARP))
    assert {row.verdict for row in pair.rows} == {"inconclusive"}
    assert all("only 3 patients" in row.difference.reason for row in pair.rows)


def test_figures_are_over_the_common_images_only(tmp_path: Path) -> None:
    first, other = make_answers(patients=14, first=0), make_answers(patients=16, first=4)
    pair = pair_of(tmp_path, first, other)
    assert pair.about.startswith(
        "first was evaluated on 42 images and other on 48; figures are computed on the 30 common"
    )
    assert pair.table is not None
    assert set(pair.table["patient_id"]) == {str(patient) for patient in range(4, 14)}
    [row] = [row for row in pair.rows if (row.part, row.figure) == (ALL, "mean_iou")]
    common = first[first["patient_id"].astype(int) >= 4]
    assert row.first == pytest.approx(common["iou"].mean())


def test_without_a_common_image_there_is_no_verdict(tmp_path: Path) -> None:
    pair = pair_of(tmp_path, make_answers(patients=10), make_answers(patients=10, first=20))
    assert pair.about.startswith(
        "first (30) and other (30) have no test image in common (by name), so figures"
    )
    assert pair.table is None
    assert pair.rows and {row.verdict for row in pair.rows} == {""}
    assert {row.part for row in pair.rows} == {ALL, *LABELS}
    [row] = [row for row in pair.rows if (row.part, row.figure) == ("label0", "f1")]
    assert row.first is not None and row.other is not None and row.difference.value is None


def test_images_with_different_truth_are_left_out(tmp_path: Path) -> None:
    first, other = make_answers(), make_answers()
    moved, *_, last = other.index[other["present"]]
    other.loc[moved, TRUE_BOX[0]] -= 5
    other.loc[last, "present"], other.loc[last, [*TRUE_BOX, "iou"]] = False, float("nan")
    pair = pair_of(tmp_path, first, other)
    assert "figures are computed on the 40 common ones (by name)" in pair.about
    assert "2 images were excluded: the true boxes differ between the two runs." in pair.about


def test_only_common_labels_are_compared(tmp_path: Path) -> None:
    write_run(tmp_path, "first", make_answers())
    answers = make_answers()
    write_run(tmp_path, "other", answers[answers["label"] == "label1"], labels=["label1"])
    pair = compare_pair(open_run(tmp_path, "first"), open_run(tmp_path, "other"))
    assert pair.labels == ["label1"] and {row.part for row in pair.rows} == {ALL, "label1"}
    assert "Only labels that both have are compared." in pair.about


def test_images_are_the_same_by_checksum_whatever_their_names(tmp_path: Path) -> None:
    """Roboflow renames pictures in each version. A picture that is twice in a run counts once."""
    export = write_export(tmp_path / "export")
    again = shutil.copytree(export, tmp_path / "again")
    for path in (again / "test").glob("*.jpg"):
        path.rename(path.with_name(path.name.replace(".jpg", "_jpg.rf.abc.jpg")))
    pairs = {}
    for name, folder in (("first", export), ("other", again)):
        dataset = ingest(directory_config(folder), tmp_path / f"dataset-{name}").dataset
        images = dataset.images[dataset.images["split"] == "test"]
        answers = make_answers(patients=1, slices=3)
        files = images["filename"].repeat(len(LABELS)).tolist()
        answers = answers.assign(filename=files, source_id=[f"test/{file}" for file in files])
        write_run(tmp_path, name, answers, artifacts={"dataset": dataset.path})
        pairs[name] = open_run(tmp_path, name)
    pair = compare_pair(pairs["first"], pairs["other"])
    assert pair.about == "Both runs were evaluated on the same 3 images (by checksum)."
    shutil.rmtree(tmp_path / "dataset-other")
    pair = compare_pair(pairs["first"], open_run(tmp_path, "other"))
    assert pair.about.startswith("first (3) and other (3) have no test image in common (by name)")


def test_disagreements_are_in_probability_or_overlap(tmp_path: Path) -> None:
    first, other = make_answers(), make_answers()
    [here] = first.index[(first["source_id"] == "test/volume_3_slice_1.jpg") & (first["label"] == "label0")]
    first.loc[here, "probability"], other.loc[here, "probability"] = 0.99, 0.01
    there = first.index[first["present"] & (first["source_id"] != "test/volume_3_slice_1.jpg")][0]
    first.loc[there, "iou"], other.loc[there, "iou"] = 0.9, 0.2
    pair = pair_of(tmp_path, first, other)
    found = disagreements(pair, 3)
    assert found["difference"].tolist() == pytest.approx([0.98, 0.7, 0.0])
    assert found["source_id"].tolist()[:2] == ["test/volume_3_slice_1.jpg", first.loc[there, "source_id"]]
    assert found["label"].tolist()[:2] == ["label0", first.loc[there, "label"]]
    assert found["source_id"].is_unique
    assert set(pair.table["model"]) == {FIRST, OTHER}


# Differences.


def test_equal_changes_of_several_trainings_are_one_line() -> None:
    shared = {"model.image_size": "64", "phase.epochs": "3"}
    one = ComparedRun(
        "one", changed_settings={"dataset": {"seed": "1"}, "a": shared, "b": shared, "evaluate": {}}
    )
    changed = {"model.image_size": "96", "phase.epochs": "3"}
    two = ComparedRun(
        "two",
        changed_settings={"dataset": {}, "a": changed, "b": {**changed, "phase.epochs": "4"}, "evaluate": {}},
    )
    found = {change.what: change.values for change in settings_changes([one, two])}
    assert found == {
        "dataset: seed": ["1", "default"],
        "all trainings: model.image_size": ["64", "96"],
        "b: phase.epochs": ["3", "4"],
    }


def test_defaults_are_shown_if_the_artifacts_have_them() -> None:
    one = ComparedRun(
        "one", changed_settings={"a": {"rate": "0.1"}}, all_settings={"a": {"rate": "0.1", "seed": "0"}}
    )
    two = ComparedRun("two", changed_settings={"a": {}}, all_settings={"a": {"rate": "0.01", "seed": "0"}})
    assert [change.values for change in settings_changes([one, two])] == [["0.1", "0.01"]]
    two.all_settings = {}
    assert [change.values for change in settings_changes([one, two])] == [["0.1", "default"]]


def test_a_phase_that_one_run_lacks_is_shown() -> None:
    one = ComparedRun("one", changed_settings={"a": {}, "b": {}})
    two = ComparedRun("two", changed_settings={"a": {}})
    [change] = settings_changes([one, two])
    assert (change.what, change.values) == ("b", ["present", "absent"])
    # MLflow has only the trainings that a run executed itself.
    assert settings_changes([one, ComparedRun("three", all_settings={"a": {}})]) == []


def test_data_code_and_artifacts(tmp_path: Path) -> None:
    export = write_export(tmp_path / "export", train=["volume_1_slice_1.jpg,40,30,label1,10,6,20,27"])
    dataset = ingest(directory_config(export), tmp_path / "dataset").dataset.path
    same = ingest(directory_config(export), tmp_path / "same").dataset.path
    (export / "train" / "volume_1_slice_3.jpg").unlink()
    smaller = ingest(directory_config(export), tmp_path / "smaller").dataset.path
    for name, path, tag in (
        ("a", dataset, "1f"),
        ("b", dataset, "1f"),
        ("c", same, "1f"),
        ("d", smaller, "2e"),
    ):
        gone = {"records": tmp_path / "gone" / name}
        write_run(tmp_path, name, make_answers(patients=1), artifacts={"dataset": path, **gone}, image=tag)
    manifest = tmp_path / "artifacts" / "d" / "evaluate" / "evaluation" / "manifest.json"
    content = json.loads(manifest.read_text())
    content["versions"]["numpy"] = "1.0"
    manifest.write_text(json.dumps(content))

    opened = open_runs(tmp_path, ["a", "b", "c", "d"])
    assert not data_changes(opened[:3]) and not code_changes(opened[:3])
    data = {change.what: change.values for change in data_changes(opened)}
    assert data["train: images"] == ["6", "6", "6", "5"]
    assert len(set(data["table of images, sha256"][:3])) == 1 and "train: boxes" not in data
    code = {change.what: change.values for change in code_changes(opened)}
    assert code["image tag"] == ["1f", "1f", "1f", "2e"]
    assert code["numpy"][3] == "1.0" and code["numpy"][0] not in ("1.0", "unknown")
    artifacts = {change.what: change.values for change in artifact_changes(opened)}
    cached, equal, other = artifacts["dataset"]
    assert cached == "the same, cached" and equal == "the same, by checksum"
    assert other.startswith("differs: ") and "images.parquet" in other
    assert artifacts["records"] == ["deleted in one run"] * 3
    assert artifacts["predictions"] == ["the same, by checksum"] * 3
