"""A phase's start model."""

import json
import shutil
from pathlib import Path

import pytest

from brain_tumor.artifacts.folder import MANIFEST
from brain_tumor.artifacts.model import (
    Backbone,
    Model,
    TrainedPhase,
    open_model,
    write_model,
)
from brain_tumor.artifacts.records import open_records
from brain_tumor.model.detector import build_detector
from brain_tumor.runtime.errors import InputError
from brain_tumor.training import train as training
from brain_tumor.training.train import train
from tests.unit.stand_ins import describe
from tests.unit.trainings import make_config

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def start(tiny_overrides: list[str], tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model artifact like that of phase 1, with an untrained model."""
    config = make_config(tiny_overrides, "phase1_box")
    phase = TrainedPhase(
        name=config.name,
        config=config.model_dump(mode="json"),
        trainable_layers=17,
        epochs=[{"epoch": 1, "val_boxes_iou": 0.5}],
        best_epoch=1,
        seconds=1.0,
    )
    description = describe(
        phase,
        config.phase.heads,
        config.model.image_size,
        ["label0", "label1", "label2"],
        backbone=Backbone(name=config.model.backbone, weights=config.model.weights),
        box_head=config.model.box_head,
    )
    path = tmp_path_factory.mktemp("start") / "model"
    write_model(path, description, build_detector(config.model, 3, config.phase.heads).save)
    return open_model(path)


@pytest.fixture
def untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails the test if a training loads its start model."""
    monkeypatch.setattr(training, "load_model", lambda model: pytest.fail(f"{model.path} was loaded"))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.image_size=64", ["image_size 32", "needs 64"]),
        ("model.backbone=resnet101", ["backbone is resnet50", "resnet101"]),
        ("model.box_head=pooled", ["box head is dense", "pooled"]),
    ],
)
def test_a_start_model_that_does_not_fit_is_refused_before_training(
    tiny_overrides: list[str],
    start: Model,
    tiny_records: Path,
    tmp_path: Path,
    untouched: None,
    override: str,
    words: list[str],
) -> None:
    config = make_config(tiny_overrides, "phase2_classification", override)
    with pytest.raises(InputError, match="phase2_classification: the start model") as caught:
        train(config, open_records(tiny_records), tmp_path / "model", start)
    for word in words:
        assert word in str(caught.value)
    assert not (tmp_path / "model").exists()


def test_a_start_model_with_other_labels_is_refused_before_training(
    tiny_overrides: list[str], start: Model, tiny_records: Path, tmp_path: Path, untouched: None
) -> None:
    records = Path(shutil.copytree(tiny_records, tmp_path / "records"))
    manifest = json.loads((records / MANIFEST).read_text())
    (records / MANIFEST).write_text(json.dumps(manifest | {"labels": ["core", "edema", "rim"]}))
    config = make_config(tiny_overrides, "phase2_classification")
    with pytest.raises(InputError, match=r"labels \['label0', .*needs \['core', 'edema', 'rim'\]"):
        train(config, open_records(records), tmp_path / "model", start)


def test_a_phase_starts_from_the_phase_it_names(
    tiny_overrides: list[str], start: Model, tiny_records: Path, tmp_path: Path, untouched: None
) -> None:
    records = open_records(tiny_records)
    config = make_config(tiny_overrides, "phase2_classification")
    with pytest.raises(InputError, match="phase2_classification starts from the model of phase1_box; give"):
        train(config, records, tmp_path / "model")
    other = make_config(tiny_overrides, "phase2_classification", start="null")
    with pytest.raises(
        InputError, match="the start model is that of phase1_box, this phase starts from none"
    ):
        train(other, records, tmp_path / "model", start)
    assert not (tmp_path / "model").exists()


def test_a_number_of_layers_that_the_backbone_lacks_is_refused(
    tiny_overrides: list[str], tiny_records: Path, tmp_path: Path
) -> None:
    config = make_config(tiny_overrides, "phase1_box", trainable_fraction="null", trainable_layers=176)
    with pytest.raises(InputError, match="trainable_layers=176 is out of range: the backbone has 175 layers"):
        train(config, open_records(tiny_records), tmp_path / "model")
