import json
import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

import brain_tumor.config as schemas
from brain_tumor.compose import compose, step_configs
from brain_tumor.config import EvaluateConfig, TrainConfig, from_json, to_json
from brain_tumor.errors import InputError

PHASES = {
    "baseline_classification",
    "baseline_box",
    "phase1_box",
    "phase2_classification",
    "phase3_finetune",
}
STEPS = {"dataset", "records", "evaluate", "visualize"} | PHASES


def configs(*overrides: str) -> dict[str, str]:
    return step_configs(compose(list(overrides)))


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name in before if before[name] != after[name]}


@pytest.fixture(scope="module")
def default() -> dict[str, str]:
    return configs()


def test_every_step_has_its_section(default: dict[str, str]) -> None:
    assert set(default) == STEPS


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("trainig.batch_size=8", ["trainig.batch_size=8", "training", "phases", "dataset"]),
        ("training.batchsize=8", ["training has no 'batchsize'", "batch_size", "seed"]),
        ("phases.phase3_finetune.lr=1", ["phases.phase3_finetune has no 'lr'", "learning_rate"]),
        ("phases.phase4.epochs=1", ["phases has no 'phase4'", "phase3_finetune"]),
        ("seed.more=1", ["seed has no 'more'", "single value"]),
        ("profile=ful", ["profile/ful", "full", "quick"]),
        ("dataset=synthetik", ["dataset/synthetik", "directory", "synthetic"]),
        ("training.batch_size", ["training.batch_size"]),
        ("~training.batchsize", ["training has no 'batchsize'"]),
    ],
)
def test_a_misspelt_override_is_refused_and_told_what_exists(override: str, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        configs(override)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["dataset=directory"], ["dataset.path", "dataset.path=VALUE"]),
        (["training.batch_size=many"], ["many", "baseline_box", "batch_size"]),
        (["evaluate.threshold=high"], ["The config of evaluate", "high", "threshold"]),
        (["phases.phase1_box.learning_rate=null"], ["phase1_box", "phase.learning_rate"]),
        (["+training.momentum=0.9"], ["momentum"]),
        (["+phases.phase1_box.momentum=0.9"], ["momentum"]),
        (["+records.compression=gzip"], ["compression"]),
        (["+trainig.batch_size=8"], ["trainig", "training"]),
        (["dataset.source=zip"], ["zip", "synthetic", "directory"]),
    ],
)
def test_an_unusable_value_is_refused(overrides: list[str], words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        configs(*overrides)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("dataset.train_patients=0", "dataset.train_patients is 0; give at least 1."),
        ("dataset.seed=-1", "dataset.seed is -1; give at least 0."),
        ("dataset.max_bad_fraction=1.5", "dataset.max_bad_fraction is 1.5; give a number from 0 to 1."),
        ("dataset.near_duplicate_distance=65", "distance is 65; give a number from 0 to 64."),
        ("records.images_per_shard=0", "records.images_per_shard is 0; give at least 1."),
        ("records.max_class_weight=nan", "records.max_class_weight is nan; give at least 1."),
        ("training.batch_size=0", "baseline_box.batch_size is 0; give at least 1."),
        ("training.memory_cache_gb=inf", ".memory_cache_gb is inf; give at least 0."),
        ("training.seed=4294967296", ".seed is 4294967296; give a number from 0 to 4294967295."),
        ("training.augmentation.hue=0.7", ".augmentation.hue is 0.7; give a number from 0 to 0.5."),
        ("training.augmentation.contrast=nan", ".augmentation.contrast is nan; give a number from 0 to 1."),
        ("model.image_size=16", ".model.image_size is 16; give at least 32."),
        (
            "phases.phase1_box.learning_rate=0",
            "phase.learning_rate is 0.0; give a number above 0.",
        ),
        ("phases.phase1_box.l1_weight=-1", "phase1_box.phase.l1_weight is -1.0; give at least 0."),
        ("phases.phase3_finetune.clip_norm=0", "phase.clip_norm is 0.0; give a number above 0."),
        ("evaluate.threshold=2", "evaluate.threshold is 2.0; give a number from 0 to 1."),
        ("visualize.gallery_images=-1", "visualize.gallery_images is -1; give at least 0."),
    ],
)
def test_a_number_out_of_range_is_refused_before_any_step(override: str, sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        configs(override)
    assert str(caught.value).endswith(sentence)


@pytest.mark.parametrize(
    "override",
    ["training.seed=4294967295", "training.memory_cache_gb=0", "phases.phase3_finetune.clip_norm=null"],
)
def test_a_number_at_its_limit_is_taken(override: str) -> None:
    configs(override)


def test_every_number_of_the_configuration_has_its_limits() -> None:
    for schema in vars(schemas).values():
        if is_dataclass(schema):
            numbers = {known.name for known in fields(schema) if re.search("int|float", str(known.type))}
            limited = {known.name for known in fields(schema) if schemas.LIMITS in known.metadata}
            assert numbers - {"split_fractions", "loss_weights"} == limited


def test_a_phase_s_learning_rate_is_that_phase_s_alone(default: dict[str, str]) -> None:
    after = configs("phases.phase3_finetune.learning_rate=1e-6")
    assert changed(default, after) == {"phase3_finetune"}
    assert json.loads(after["phase3_finetune"])["phase"]["learning_rate"] == 1e-6


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("records.max_class_weight=5", {"records"}),
        ("evaluate.threshold=0.4", {"evaluate"}),
        ("visualize.gallery_images=4", {"visualize"}),
        ("dataset.train_patients=8", {"dataset"}),
        ("training.batch_size=8", PHASES),
        ("model.image_size=96", PHASES),
        ("seed=1", STEPS - {"records"}),
    ],
)
def test_a_value_changes_only_the_steps_that_read_it(
    default: dict[str, str], override: str, expected: set[str]
) -> None:
    assert changed(default, configs(override)) == expected


def test_other_files_behind_the_same_folder_are_other_input(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "a.jpg").write_bytes(b"1")
    overrides = ["dataset=directory", f"dataset.path={tmp_path}"]
    before = configs(*overrides)
    assert json.loads(before["dataset"])["path"] == str(tmp_path)

    assert configs(*overrides) == before
    (tmp_path / "train" / "a.jpg").write_bytes(b"2")
    assert changed(before, configs(*overrides)) == {"dataset"}


def test_a_relative_path_is_the_same_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    absolute = configs("dataset=directory", f"dataset.path={tmp_path / 'data'}")
    monkeypatch.chdir(tmp_path)
    assert configs("dataset=directory", "dataset.path=data") == absolute


def test_another_weights_file_under_the_same_name_changes_the_trainings_alone(tmp_path: Path) -> None:
    file = tmp_path / "backbone.weights.h5"
    file.write_bytes(b"1")
    before = configs(f"model.weights={file}")

    assert configs(f"model.weights={file}") == before
    file.write_bytes(b"2")
    assert changed(before, configs(f"model.weights={file}")) == PHASES


@pytest.mark.parametrize("weights", ["imagenet", "none"])
def test_words_for_weights_are_no_paths(weights: str) -> None:
    model = json.loads(configs(f"model.weights={weights}")["phase1_box"])["model"]
    assert model["weights"] == weights
    assert model["weights_fingerprint"] == ""


@pytest.fixture(scope="module")
def full() -> dict[str, TrainConfig]:
    sections = configs("profile=full")
    return {name: from_json(TrainConfig, sections[name]) for name in PHASES}


def test_the_full_profile_has_the_missions_model_and_batch(full: dict[str, TrainConfig]) -> None:
    for config in full.values():
        assert config.model.backbone == "resnet101"
        assert config.model.weights == "imagenet"
        assert config.model.image_size == 240
        assert config.batch_size == 64


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "phase1_box",
            {
                "heads": ["labels", "boxes"],
                "train_heads": ["boxes"],
                "learning_rate": 3e-4,
                "clip_norm": None,
                "epochs": 50,
                "loss_weights": {"labels": 0.0, "boxes": 2.0},
                "trainable_layers": None,
                "trainable_fraction": 1.0,
                "monitor": "val_boxes_iou",
            },
        ),
        (
            "phase2_classification",
            {
                "heads": ["labels", "boxes"],
                "train_heads": ["labels"],
                "learning_rate": 1e-4,
                "clip_norm": None,
                "epochs": 5,
                "loss_weights": {"labels": 1.0, "boxes": 0.0},
                "trainable_layers": None,
                "trainable_fraction": 0.0,
                "monitor": "val_labels_auc",
            },
        ),
        (
            "phase3_finetune",
            {
                "heads": ["labels", "boxes"],
                "train_heads": ["labels", "boxes"],
                "learning_rate": 1e-5,
                "clip_norm": 1.0,
                "epochs": 70,
                "loss_weights": {"labels": 0.1, "boxes": 2.0},
                "trainable_layers": 150,
                "trainable_fraction": None,
                "monitor": "val_boxes_iou",
            },
        ),
        (
            "baseline_classification",
            {"heads": ["labels"], "train_heads": ["labels"], "trainable_fraction": 1.0, "epochs": 100},
        ),
        (
            "baseline_box",
            {"heads": ["boxes"], "train_heads": ["boxes"], "trainable_fraction": 1.0, "epochs": 100},
        ),
    ],
)
def test_the_full_profile_has_the_missions_figures(
    full: dict[str, TrainConfig], name: str, expected: dict[str, Any]
) -> None:
    phase = full[name].phase
    assert {key: getattr(phase, key) for key in expected} == expected


def test_equal_configs_are_equal_texts(default: dict[str, str]) -> None:
    text = default["phase1_box"]
    assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))
    assert to_json(from_json(TrainConfig, text)) == text

    rate, size = "phases.phase1_box.learning_rate", "model.image_size=96"
    assert configs(f"{rate}=1e-4", size) == configs(size, f"{rate}=0.0001")
    assert configs(f"{rate}=1") == configs(f"{rate}=1.0")
    assert configs("profile=quick", "dataset=synthetic") == default


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", '{"split":"test","unknown":1}'])
def test_a_text_that_is_no_config_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="The config of EvaluateConfig is not usable"):
        from_json(EvaluateConfig, text)


def test_where_a_model_is_published_is_an_absolute_path_or_stays_an_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for given, meant in (
        ("models", str(tmp_path / "models")),
        ("gs://bucket/a b", "gs://bucket/a b"),
        ("", ""),
    ):
        config = compose([f"phases.phase3_finetune.publish_to='{given}'"])
        assert config.phases.phase3_finetune.publish_to == meant
    with pytest.raises(InputError, match="publish_to"):
        step_configs(compose(["phases.phase3_finetune.publish_to=null"]))


@pytest.mark.parametrize("override", ["dataset.uri=null", "dataset.uri=[1]"])
def test_an_address_that_is_no_text_is_refused(override: str) -> None:
    with pytest.raises(InputError, match="uri"):
        step_configs(compose(["dataset=bucket", override]))
