import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from kfp.dsl import Artifact, Dataset, Markdown, Metrics, Model

from brain_tumor.artifacts.evaluation import read_evaluation
from brain_tumor.artifacts.figures import DASHBOARD, VERSUS
from brain_tumor.artifacts.predictions import open_predictions
from brain_tumor.ingest.ingest import SYNTHETIC_NOTICE
from components.evaluate import evaluate


def outputs(folder: Path) -> dict[str, Artifact]:
    return {
        "predictions": Dataset(uri=str(folder / "predictions")),
        "evaluation": Artifact(uri=str(folder / "evaluation")),
        "metrics": Metrics(uri=str(folder / "metrics")),
        "report": Markdown(uri=str(folder / "report")),
    }


def models(local_run: dict[str, Artifact]) -> dict[str, Artifact]:
    return {"final": local_run["final"], "baseline_1": local_run["start"]}


def test_the_function_judges_the_models(
    configs: dict[str, str], tiny_records: Path, local_run: dict[str, Artifact], tmp_path: Path
) -> None:
    made = outputs(tmp_path)
    records = Dataset(uri=str(tiny_records))
    evaluate.python_func(config=configs["evaluate"], records=records, **models(local_run), **made)

    predictions = open_predictions(made["predictions"].path)
    table = predictions.table
    names = ["final", "phase1_box", "constant"]
    assert table["model"].unique().tolist() == names
    assert list(predictions.manifest.models) == names
    assert table.groupby("model").size().to_dict() == dict.fromkeys(
        names, (16 + 16) * 3
    )  # of valid and of test
    metrics = made["metrics"]
    evaluation = read_evaluation(made["evaluation"].path)
    assert metrics.metadata == evaluation.summary()
    assert evaluation.data and evaluation.data.splits["test"].images == 16
    assert set(evaluation.configs) == {"evaluate", "phase1_box", "phase2_classification"}
    assert list(metrics.metadata) == sorted(metrics.metadata)
    assert metrics.metadata == json.loads(Path(metrics.path).read_text(), parse_constant=pytest.fail)
    # The same models on the same records, evaluated by another process.
    assert metrics.metadata == pytest.approx(local_run["metrics"].metadata, abs=1e-6)
    assert Path(made["report"].path).read_text().startswith("# Model card")


def test_it_runs_locally(local_run: dict[str, Artifact]) -> None:
    figures = local_run["metrics"].metadata
    assert all(math.isfinite(value) for value in figures.values())
    assert set(figures) == {*DASHBOARD, *VERSUS}
    assert 0 <= figures["macro_f1"] <= 1 and 0 <= figures["mean_iou"] <= 1
    everything = read_evaluation(local_run["evaluation"].path).metrics()
    assert figures.items() - {(name, figures[name]) for name in VERSUS} <= everything.items()
    # The class head was trained since, the box head was not.
    assert everything["mean_iou"] == pytest.approx(everything["phase1_box/mean_iou"], abs=1e-6)
    report = Path(local_run["report"].path).read_text()
    assert SYNTHETIC_NOTICE in report
    assert "| final model" in report


def test_a_server_takes_every_artifact_s_metadata(local_run: dict[str, Artifact]) -> None:
    """It accepts neither NaN nor Infinity, and passes an input's metadata on a command line."""
    for artifact in local_run.values():
        assert len(json.dumps(artifact.metadata, allow_nan=False)) < 40_000
    names = {name: artifact.metadata.get("display_name") for name, artifact in local_run.items()}
    assert (names["start"], names["final"]) == ("model: phase1 box", "model: phase2 classification")


@pytest.mark.parametrize("config", ["{", '{"split": "test", "unknown": 1}'])
def test_a_bad_config_is_refused(
    config: str,
    refusal: Callable[..., str],
    tiny_records: Path,
    local_run: dict[str, Artifact],
    tmp_path: Path,
) -> None:
    records = Dataset(uri=str(tiny_records))
    sentence = refusal(evaluate, config=config, records=records, **models(local_run), **outputs(tmp_path))
    assert "evaluate" in sentence
    assert list(tmp_path.iterdir()) == []


def test_a_missing_model_is_refused(
    configs: dict[str, str],
    refusal: Callable[..., str],
    tiny_records: Path,
    local_run: dict[str, Artifact],
    tmp_path: Path,
) -> None:
    absent = tmp_path / "absent"
    sentence = refusal(
        evaluate,
        config=configs["evaluate"],
        records=Dataset(uri=str(tiny_records)),
        **models(local_run) | {"baseline_1": Model(uri=str(absent))},
        **outputs(tmp_path),
    )
    assert f"{absent} holds no model artifact" in sentence
    assert list(tmp_path.iterdir()) == []


def test_two_models_of_one_phase_are_refused(
    configs: dict[str, str],
    refusal: Callable[..., str],
    tiny_records: Path,
    local_run: dict[str, Artifact],
    tmp_path: Path,
) -> None:
    sentence = refusal(
        evaluate,
        config=configs["evaluate"],
        records=Dataset(uri=str(tiny_records)),
        **models(local_run) | {"baseline_2": local_run["start"]},
        **outputs(tmp_path),
    )
    assert "is a second model of the phase phase1_box" in sentence
    assert list(tmp_path.iterdir()) == []
