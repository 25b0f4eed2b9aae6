"""The report: metrics, terminal table and Markdown, from a predictions artifact on disk."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from brain_tumor.config import EvaluateConfig
from brain_tumor.errors import InputError
from brain_tumor.evaluation.report import DASH, evaluate_predictions, scalar_metrics, summary_table
from brain_tumor.evaluation.table import FILE, PREDICTED_BOX, TRUE_BOX
from brain_tumor.storage import publish

LABELS = ["label0", "label1"]
CONFIG = EvaluateConfig(split="test", threshold=0.5, bootstrap_samples=200, seed=1, batch_size=4)
TITLES = {
    "final": "final",
    "baseline_classification": "baseline classification (frozen random backbone)",
    "baseline_box": "baseline box (frozen random backbone)",
    "constant": "constant baseline",
}
NOTICE = "These figures are about synthetic patients."


def write_predictions(path: Path, patients: int, notice: str = "") -> Path:
    """Three slices a patient: label0 in the first, label1 in all. The final model's boxes are 10 px aside."""
    rows = []
    for model in TITLES:
        for patient in range(patients):
            for image, label in np.ndindex(3, 2):
                present = label == 1 or image == 0
                probability = 1.0 if model == "constant" else 0.9 if present else 0.1
                box = {"final": [30, 20, 80, 70], "baseline_box": [20, 20, 70, 70]}.get(
                    model, [60, 20, 110, 70]
                )
                rows.append(
                    {
                        "model": model,
                        "split": "test",
                        "source_id": f"test/{patient}_{image}.jpg",
                        "filename": f"{patient}_{image}.jpg",
                        "patient_id": str(patient),
                        "slice": image,
                        "width": 120,
                        "height": 100,
                        "label": LABELS[label],
                        "present": present,
                        "probability": np.nan if model == "baseline_box" else probability,
                        **dict.fromkeys(TRUE_BOX, np.nan),
                        **dict.fromkeys(PREDICTED_BOX, np.nan),
                    }
                )
                if present:
                    rows[-1] |= dict(zip(TRUE_BOX, [20.0, 20.0, 70.0, 70.0], strict=True))
                if model != "baseline_classification":
                    rows[-1] |= dict(zip(PREDICTED_BOX, map(float, box), strict=True))
    table = pd.DataFrame(rows).astype({"slice": "Int64"})
    with publish(path, "predictions") as draft:
        table.to_parquet(draft.path / FILE)
        draft.manifest |= {
            "labels": LABELS,
            "notice": notice,
            "threshold": 0.5,
            "models": {model: {"title": title, "heads": []} for model, title in TITLES.items()},
        }
    return path


def test_metrics(tmp_path):
    metrics = evaluate_predictions(CONFIG, write_predictions(tmp_path / "predictions", 12)).metrics
    assert (metrics["patients"], metrics["images"], metrics["boxes"]) == (12, 36, 48)
    assert [model["name"] for model in metrics["models"]] == list(TITLES)
    figures = metrics["figures"]
    assert figures["final"]["macro_f1"] == 1.0
    assert figures["final"]["mean_iou"] == pytest.approx(2 / 3)
    assert figures["baseline_box"]["mean_iou"] == 1.0 and figures["baseline_box"]["macro_f1"] is None
    assert figures["constant"]["macro_f1"] == pytest.approx((0.5 + 1) / 2)
    assert figures["constant"]["mean_iou"] == pytest.approx(1 / 9)
    assert metrics["difference"]["mean_iou"]["value"] == pytest.approx(2 / 3 - 1 / 9)
    # It is JSON without NaN, and comes back as it was.
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics


def test_scalar_metrics_are_flat_sorted_and_finite(tmp_path):
    metrics = evaluate_predictions(CONFIG, write_predictions(tmp_path / "predictions", 3)).metrics
    scalars = scalar_metrics(metrics)
    assert list(scalars) == sorted(scalars)
    assert scalars["final_mean_iou"] == pytest.approx(2 / 3)
    assert scalars["baseline_box_mean_iou"] == 1.0
    assert scalars["final_label0_f1"] == 1.0
    assert "baseline_box_macro_f1" not in scalars and "baseline_classification_mean_iou" not in scalars
    assert "final_label1_roc_auc" not in scalars  # label1 is in all slices
    assert {type(value) for value in scalars.values()} == {float}


def test_terminal_table_survives_json(tmp_path):
    metrics = evaluate_predictions(CONFIG, write_predictions(tmp_path / "predictions", 3)).metrics
    lines = summary_table(json.loads(json.dumps(metrics, sort_keys=True))).splitlines()
    assert lines[0].split() == ["model", "macro-F1", "mean", "IoU", "recall@0.5"]
    assert [line.split("  ")[0] for line in lines[2:]] == list(TITLES.values())
    assert lines[2].split()[-3:] == ["1.000", "0.667", "1.000"]
    assert lines[3].split()[-3:] == ["1.000", DASH, DASH]
    assert lines[4].split()[-3:] == [DASH, "1.000", "1.000"]


def test_markdown_with_intervals(tmp_path):
    markdown = evaluate_predictions(CONFIG, write_predictions(tmp_path / "predictions", 12, NOTICE)).markdown
    assert f"> {NOTICE}" in markdown
    assert "Split test: 12 patients, 36 images, 48 true boxes." in markdown
    cells = [cell.strip() for cell in find_line(markdown, "| final ").split("|")[1:-1]]
    # Only label0 is absent somewhere: the ROC AUC is its.
    assert cells == [
        "final",
        "1.000 [1.000, 1.000]",
        "0.667 [0.667, 0.667]",
        "1.000 [1.000, 1.000]",
        "0.000",
        "1.000",
    ]
    assert DASH in find_line(markdown, "| baseline box")
    assert (
        "final minus constant: +0.556 (95 % interval +0.556 to +0.556, paired bootstrap over 12 patients)"
        in markdown
    )
    assert find_line(markdown, "| label1").count(DASH) == 2  # ROC AUC and average precision
    assert "nan" not in markdown.lower()


def test_markdown_says_why_there_is_no_interval(tmp_path):
    markdown = evaluate_predictions(CONFIG, write_predictions(tmp_path / "predictions", 2)).markdown
    assert "[" not in find_line(markdown, "| final ")
    assert "No interval: only 2 patients, 10 are needed" in markdown
    assert "+0.556 (no interval: only 2 patients with a true box, 10 are needed)." in markdown
    assert ">" not in markdown  # no notice


def test_another_split_is_refused(tmp_path):
    path = write_predictions(tmp_path / "predictions", 2)
    config = EvaluateConfig(split="valid", threshold=0.5, bootstrap_samples=200, seed=1, batch_size=4)
    with pytest.raises(InputError, match="split valid"):
        evaluate_predictions(config, path)


def test_a_half_written_artifact_is_refused(tmp_path):
    path = write_predictions(tmp_path / "predictions", 2)
    (path / "manifest.json").unlink()
    with pytest.raises(InputError, match="no predictions artifact"):
        evaluate_predictions(CONFIG, path)


def find_line(text: str, start: str) -> str:
    (line,) = [line for line in text.splitlines() if line.startswith(start)]
    return line
