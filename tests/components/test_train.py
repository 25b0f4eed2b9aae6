import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from kfp.dsl import Artifact, Dataset, Model

from brain_tumor.artifacts.model import open_model
from brain_tumor.model.saving import load_model
from components.train import train


@pytest.fixture(scope="module")
def baseline(configs: dict[str, str], tiny_records: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model trained by the component's function."""
    model = Model(uri=str(tmp_path_factory.mktemp("baseline") / "model"))
    train.python_func(
        config=configs["baseline_box"],
        records=Dataset(uri=str(tiny_records)),
        model=model,
        tensorboard=Artifact(uri=str(tmp_path_factory.mktemp("logs") / "tensorboard")),
        start=None,
    )
    return model


def test_the_function_trains_a_model(baseline: Model) -> None:
    description = open_model(baseline.path).description
    assert description.heads == ["boxes"]
    assert [phase.name for phase in description.phases] == ["baseline_box"]
    assert description.phases[0].epochs[0]["epoch"] == 1
    assert baseline.metadata == {**description.metrics, "display_name": "model: baseline box"}
    assert set(description.metrics) == {
        "val_loss",
        "val_boxes_iou",
        "val_boxes_recall_at_50",
        "val_boxes_mse",
        "val_boxes_mae",
        *(f"val_boxes_{figure}_label{slot}" for figure in ("iou", "ap50") for slot in range(3)),
    }
    assert all(math.isfinite(value) for value in description.metrics.values())
    # Without a tracking store nothing is tracked.
    assert description.mlflow_run_id == ""


def test_the_trained_model_answers(baseline: Model) -> None:
    answers = load_model(open_model(baseline.path)).predict(np.zeros((2, 32, 32, 3), np.float32), verbose=0)
    assert set(answers) == {"boxes", "scores"}
    assert answers["boxes"].shape == (2, 3, 4)


def test_it_runs_locally_from_a_new_model(local_run: dict[str, Artifact]) -> None:
    start = local_run["start"]
    description = open_model(start.path).description
    assert description.heads == ["labels", "boxes"]
    assert [phase.name for phase in description.phases] == ["phase1_box"]
    assert start.metadata == {**description.metrics, "display_name": "model: phase1 box"}
    assert "val_boxes_iou" in start.metadata


def test_it_runs_locally_from_a_start_model(local_run: dict[str, Artifact]) -> None:
    final = local_run["final"]
    phases = open_model(final.path).description.phases
    assert [phase.name for phase in phases] == ["phase1_box", "phase2_classification"]
    assert phases[0] == open_model(local_run["start"].path).description.phases[0]
    assert "val_labels_auc" in final.metadata

    # The second phase trains only the class head: the weights trained by the first one stay unchanged.
    before, after = (load_model(open_model(local_run[name].path)) for name in ("start", "final"))
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    first, second = (model.predict(images, verbose=0) for model in (before, after))
    np.testing.assert_array_equal(first["boxes"], second["boxes"])
    assert not np.array_equal(first["labels"], second["labels"])


@pytest.mark.parametrize("config", ["", "{}", '{"name": "phase1_box", "unknown": 1}'])
def test_a_bad_config_is_refused(
    config: str, refusal: Callable[..., str], tiny_records: Path, tmp_path: Path
) -> None:
    outputs = {
        "model": Model(uri=str(tmp_path / "model")),
        "tensorboard": Artifact(uri=str(tmp_path / "logs")),
    }
    assert "training" in refusal(train, config=config, records=Dataset(uri=str(tiny_records)), **outputs)
    assert list(tmp_path.iterdir()) == []


def test_missing_records_are_refused(
    configs: dict[str, str], refusal: Callable[..., str], tmp_path: Path
) -> None:
    absent = tmp_path / "absent"
    sentence = refusal(
        train,
        config=configs["phase1_box"],
        records=Dataset(uri=str(absent)),
        model=Model(uri=str(tmp_path / "model")),
        tensorboard=Artifact(uri=str(tmp_path / "tensorboard")),
    )
    assert f"{absent} holds no records artifact" in sentence
    assert list(tmp_path.iterdir()) == []


def test_a_start_model_of_another_kind_is_refused(
    configs: dict[str, str],
    refusal: Callable[..., str],
    tiny_records: Path,
    baseline: Model,
    tmp_path: Path,
) -> None:
    sentence = refusal(
        train,
        config=configs["phase2_classification"],
        records=Dataset(uri=str(tiny_records)),
        model=Model(uri=str(tmp_path / "model")),
        tensorboard=Artifact(uri=str(tmp_path / "tensorboard")),
        start=baseline,
    )
    assert "phase2_classification: the start model has heads ['boxes']" in sentence
    assert list(tmp_path.iterdir()) == []
