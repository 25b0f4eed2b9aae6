import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from kfp.dsl import Artifact, ClassificationMetrics

from brain_tumor.artifacts.evaluation import read_evaluation
from brain_tumor.artifacts.predictions import open_predictions
from components.label_curves import label_curves


def test_the_function_logs_a_labels_curves(local_run: dict[str, Artifact], tmp_path: Path) -> None:
    curves = ClassificationMetrics(uri=str(tmp_path / "curves"))
    label_curves.python_func(label="label1", evaluation=local_run["evaluation"], curves=curves)

    table = open_predictions(local_run["predictions"].path).table
    evaluation = read_evaluation(local_run["evaluation"].path)
    threshold = evaluation.models["final"].thresholds["label1"]
    judged = (table["model"] == "final") & (table["split"] == evaluation.split)
    rows = table[judged & (table["label"] == "label1")]
    predicted = rows["probability"] >= threshold
    [absent, present] = curves.metadata["confusionMatrix"]["rows"]
    assert absent["row"] == [
        int((~rows["present"] & ~predicted).sum()),
        int((~rows["present"] & predicted).sum()),
    ]
    assert present["row"] == [
        int((rows["present"] & ~predicted).sum()),
        int((rows["present"] & predicted).sum()),
    ]
    points = curves.metadata["confidenceMetrics"]
    rates = [point["falsePositiveRate"] for point in points]
    assert (rates[0], points[0]["recall"]) == (0.0, 0.0)
    assert (rates[-1], points[-1]["recall"]) == (1.0, 1.0)
    # A dashboard keeps one point per rate.
    assert all(before < after for before, after in pairwise(rates)) and len(rates) <= 300
    assert curves.metadata["display_name"] == "label1"
    names = [each["displayName"] for each in curves.metadata["confusionMatrix"]["annotationSpecs"]]
    assert names == ["no", "yes"]
    assert curves.metadata == local_run["curves"].metadata


def test_all_labels_have_pooled_curves(local_run: dict[str, Artifact], tmp_path: Path) -> None:
    curves = ClassificationMetrics(uri=str(tmp_path / "curves"))
    label_curves.python_func(label="all labels", evaluation=local_run["evaluation"], curves=curves)
    counted = sum(sum(row["row"]) for row in curves.metadata["confusionMatrix"]["rows"])
    assert counted == 3 * 16
    assert curves.metadata["display_name"] == "all labels"


def test_it_runs_locally(local_run: dict[str, Artifact]) -> None:
    curves = local_run["curves"]
    written = json.loads(Path(curves.path).read_text())
    logged = [row["row"] for row in curves.metadata["confusionMatrix"]["rows"]]
    assert logged == written["confusion_matrix"]
    assert sum(sum(row) for row in logged) == 16
    recalls = [point["recall"] for point in curves.metadata["confidenceMetrics"]]
    assert recalls == written["roc"]["tpr"]


def test_an_unknown_label_is_refused(
    local_run: dict[str, Artifact], refusal: Callable[..., str], tmp_path: Path
) -> None:
    curves = ClassificationMetrics(uri=str(tmp_path / "curves"))
    sentence = refusal(label_curves, label="label9", evaluation=local_run["evaluation"], curves=curves)
    assert "label9" in sentence
    assert list(tmp_path.iterdir()) == []


def test_a_missing_evaluation_is_refused(refusal: Callable[..., str], tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    curves = ClassificationMetrics(uri=str(tmp_path / "curves"))
    sentence = refusal(label_curves, label="label1", evaluation=Artifact(uri=str(absent)), curves=curves)
    assert f"{absent} holds no evaluation artifact" in sentence
    assert list(tmp_path.iterdir()) == []
