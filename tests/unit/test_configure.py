import json
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest
from pydantic.fields import FieldInfo

from brain_tumor.config import (
    DirectoryDataset,
    Schema,
    dataset,
    pipeline,
    training,
)
from brain_tumor.configure import configure
from brain_tumor.runtime.errors import InputError

PHASES = {
    "baseline_classification",
    "baseline_box",
    "phase1_box",
    "phase2_classification",
    "phase3_finetune",
}
STEPS = {"dataset", "records", "evaluate", "visualize", "gate"} | PHASES
# Without given names, labels are read from the folder.
NAMED = "dataset.labels=[label0,label1,label2]"


def configs(*overrides: str) -> dict[str, str]:
    return configure(list(overrides)).parameters()


def refusal(*overrides: str) -> str:
    """The one-line error message for overrides."""
    with pytest.raises(InputError) as caught:
        configure(list(overrides))
    message = str(caught.value)
    assert "\n" not in message
    return message


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
        ("trainig.batch_size=8", ["trainig.batch_size=8", "training", "phases", "dataset", "profile"]),
        ("training.batchsize=8", ["training has no 'batchsize'", "batch_size", "seed"]),
        ("phases.phase3_finetune.lr=1", ["phases.phase3_finetune has no 'lr'", "learning_rate"]),
        ("phases.phase4.epochs=1", ["phases has no 'phase4'", "phase3_finetune"]),
        ("seed.more=1", ["seed has no 'more'", "single value"]),
        ("profile=ful", ["'profile=ful'", "full", "quick"]),
        ("dataset=synthetik", ["'dataset=synthetik'", "directory", "synthetic"]),
        ("dataset=1.5", ["dataset=NAME"]),
        ("phases=null", ["phases=NAME"]),
        ("~dataset", ["dataset=NAME"]),
        ("seed=" + "9" * 5000, ["5000 digits"]),
        ("training.batch_size", ["'training.batch_size' has no value", "KEY=VALUE"]),
        ("~training.batchsize", ["training has no 'batchsize'"]),
    ],
)
def test_a_misspelt_override_is_refused_with_the_valid_names(override: str, words: list[str]) -> None:
    message = refusal(override)
    for word in words:
        assert word in message


def test_only_valid_choices_are_offered() -> None:
    assert refusal("dataset=direktory").endswith("names bucket, directory, roboflow, synthetic.")


def test_a_choice_may_be_quoted() -> None:
    assert configure(["profile='full'"]) == configure(["profile=full"])


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["dataset=directory"], "dataset.path is not set; give it as dataset.path=VALUE."),
        (["training.batch_size=many"], "training.batch_size is 'many'; give a whole number."),
        (["training.batch_size=1.5"], "training.batch_size is 1.5; give a whole number."),
        (["training.batch_size=true"], "training.batch_size is true; give a whole number."),
        (["evaluate.threshold=high"], "evaluate.threshold is 'high'; give a number from 0 to 1, or tuned."),
        (
            ["phases.phase1_box.learning_rate=null"],
            "phases.phase1_box.learning_rate is null; give a number.",
        ),
        (["phases.phase1_box.augment=1"], "phases.phase1_box.augment is 1; give true or false."),
        (["training=3"], "training is 3; give keys with values, such as {a: 1}."),
        (["+records.compression=gzip"], "has no 'compression'; it has images_per_shard, max_class_weight."),
        (["+phases.phase1_box.momentum=0.9"], "phases.phase1_box has no 'momentum'; it has augment, "),
        (
            ["+trainig.batch_size=8"],
            "an unknown key: The configuration has no 'trainig'; it has dataset, ",
        ),
        (["dataset.source=zip"], "is 'zip'; give one of synthetic, directory, roboflow, bucket."),
        (["seed=${nowhere}"], "nowhere"),
        (["training.batch_size=8,16"], "Ambiguous value for argument 'training.batch_size=8,16'"),
        (["dataset.labels=[大脑]"], "The override dataset.labels=[大脑] cannot be read. Quote a value with"),
    ],
)
def test_an_unusable_value_is_refused(overrides: list[str], sentence: str) -> None:
    assert sentence in refusal(*overrides)


@pytest.mark.parametrize(
    ("override", "choices"),
    [
        ("training.precision=half", "auto, float32, bfloat16"),
        ("model.backbone=vgg16", "resnet50, resnet101, resnet152, resnet101v2"),
        ("model.box_head=spatial", "dense, pooled"),
        ("phases.phase1_box.box_loss=l2", "iou, giou, diou, ciou"),
        ("phases.phase1_box.schedule=step", "plateau, cosine"),
        ("phases.phase1_box.monitor=val_loss", "val_labels_auc, val_boxes_iou, val_both"),
        ("phases.phase1_box.heads=[labels,masks]", "labels, boxes"),
        ("dataset.duplicate_boxes=first", "largest, union, error"),
        ("dataset.split=random", "provided, patient"),
        ("evaluate.split=validation", "train, valid, test"),
    ],
)
def test_an_unknown_choice_is_refused_with_the_valid_ones(override: str, choices: str) -> None:
    assert refusal(override).endswith(f"; give one of {choices}.")


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("dataset.train_patients=0", "dataset.train_patients is 0; give at least 1."),
        ("dataset.seed=-1", "dataset.seed is -1; give at least 0."),
        ("dataset.max_bad_fraction=1.5", "dataset.max_bad_fraction is 1.5; give at most 1."),
        ("dataset.near_duplicate_distance=65", "dataset.near_duplicate_distance is 65; give at most 64."),
        ("records.images_per_shard=0", "records.images_per_shard is 0; give at least 1."),
        ("records.max_class_weight=nan", "records.max_class_weight is NaN; give a finite number."),
        ("training.batch_size=0", "training.batch_size is 0; give at least 1."),
        ("training.memory_cache_gb=inf", "training.memory_cache_gb is Infinity; give a finite number."),
        ("training.seed=4294967296", "training.seed is 4294967296; give at most 4294967295."),
        ("training.augmentation.shift=0.7", "training.augmentation.shift is 0.7; give at most 0.5."),
        ("training.augmentation.rotation=46", "training.augmentation.rotation is 46; give at most 45."),
        ("model.image_size=16", "model.image_size is 16; give at least 32."),
        ("model.head_width=4", "model.head_width is 4; give at least 8."),
        (
            "phases.phase1_box.learning_rate=0",
            "phases.phase1_box.learning_rate is 0; give a number above 0.",
        ),
        (
            "phases.phase1_box.loss_weights.scores=-1",
            "phases.phase1_box.loss_weights.scores is -1; give at least 0.",
        ),
        (
            "phases.phase3_finetune.clip_norm=0",
            "phases.phase3_finetune.clip_norm is 0; give a number above 0.",
        ),
        ("evaluate.threshold=2", "evaluate.threshold is '2'; give a number from 0 to 1, or tuned."),
        ("visualize.gallery_images=-1", "visualize.gallery_images is -1; give at least 0."),
    ],
)
def test_a_number_out_of_range_is_refused_before_any_step(override: str, sentence: str) -> None:
    assert refusal(override) == sentence


@pytest.mark.parametrize(
    "override",
    ["training.seed=4294967295", "training.memory_cache_gb=0", "phases.phase3_finetune.clip_norm=null"],
)
def test_a_number_at_its_limit_is_accepted(override: str) -> None:
    configs(override)


def numbers(kind: Any) -> list[Any]:
    """The number types in a type, each with its limits."""
    if get_origin(kind) is Annotated:
        inner, *limits = get_args(kind)
        limits = [limit for limit in limits if isinstance(limit, FieldInfo)]
        return [(inner, limits)] if inner in (int, float) else numbers(inner)
    return [(kind, [])] if kind in (int, float) else [n for each in get_args(kind) for n in numbers(each)]


def test_every_number_of_the_configuration_has_its_limits() -> None:
    checked = 0
    for module in (dataset, pipeline, training):
        for schema in vars(module).values():
            if isinstance(schema, type) and issubclass(schema, Schema):
                for name, kind in get_type_hints(schema, include_extras=True).items():
                    for number, limits in numbers(kind):
                        assert limits, f"{schema.__name__}.{name} is any {number}"
                        checked += 1
    assert checked > 40


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ("[]", "dataset.labels is empty"),
        ("[a,'']", "dataset.labels.1 is ''; give a name without spaces around it."),
        ("[a,' b']", "dataset.labels.1 is ' b'; give a name"),
        ("[a,a]", "dataset.labels has 'a' twice"),
        ("['a\tb']", "which has an invisible character"),
        ("[macro]", "dataset.labels.0 is 'macro', which is reserved for figures over"),
        ("['macro f1',macro_average]", "dataset.labels.1 is 'macro_average', which is reserved for"),
        (
            "['weighted(a)']",
            "dataset.labels.0 is 'weighted(a)', which is reserved for figures over",
        ),
        ("[a/b,a_b]", "dataset.labels has 'a_b' twice (as a metric name)"),
        ("[a+b,a_b]", "dataset.labels has 'a_b' twice (as a metric name)"),
        (f"[{'x' * 101}]", "has 101 characters"),
        ("[true]", "dataset.labels.0 is true; give a string."),
    ],
)
def test_a_label_unsuitable_for_tables_is_refused(labels: str, words: str) -> None:
    assert words in refusal(f"dataset.labels={labels}")


def test_labels_can_have_any_script_and_be_numbers() -> None:
    labels = configure(["dataset.labels=['Tumör, groß','大脑',7]"]).dataset.labels
    assert labels == ["Tumör, groß", "大脑", "7"]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["dataset.split_fractions.test=0.3"], "dataset.split_fractions adds up to 1.2;"),
        (
            ["dataset.split_fractions={train: 1.5, valid: -0.5, test: 0}"],
            "train is 1.5; give a number below",
        ),
        (["dataset.split_fractions={train: 0.8, valid: 0.2, test: 0}"], "test is 0; give a number above 0."),
        (["dataset.filename_pattern=(["], "dataset.filename_pattern is not a regular expression"),
        (["dataset.filename_pattern=patient"], "needs the groups (?P<patient>...) and (?P<slice>...)"),
        (["model.weights=imagnet"], "model.weights is 'imagnet'; give imagenet, none or the path"),
        (
            ["dataset=directory", "dataset.path=gs://bucket/data"],
            "give a folder of this machine",
        ),
        (["dataset=bucket", "dataset.uri=/data"], "dataset.uri is '/data'; give an address that begins"),
        (["dataset=roboflow", "dataset.mirror=/data"], "dataset.mirror is '/data'; give an address"),
    ],
)
def test_values_that_no_step_could_use_are_refused(overrides: list[str], words: str) -> None:
    assert words in refusal(*overrides)


def test_a_key_that_is_in_no_yaml_file_can_be_given() -> None:
    steps = configure(
        ["phases.phase1_box.schedule=cosine", "model.dropout=0.5", "dataset.max_bad_fraction=1"]
    )
    assert steps.trainings["phase1_box"].phase.schedule == "cosine"
    assert steps.trainings["phase1_box"].model.dropout == 0.5
    assert steps.dataset.max_bad_fraction == 1


@pytest.mark.parametrize(
    "path",
    [
        "/data/my export",
        "/data/[a], {b}",
        '/data/it\'s "here"',
        "/data/Größe/大脑",
        "/data/back\\slash\\",
        "/data/a=b~c",
        "'/data/quoted, as Hydra wants it'",
    ],
)
def test_a_path_needs_no_quoting(path: str) -> None:
    config = configure(["dataset=directory", f"dataset.path={path}", NAMED]).dataset
    assert isinstance(config, DirectoryDataset)
    assert config.path == path.strip("'") if path.startswith("'") else path
    assert (
        json.loads(configs("dataset=directory", f"dataset.path={path}", NAMED)["dataset"])["path"]
        == config.path
    )


def test_a_tilde_is_the_users_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    config = configure(["dataset=directory", "dataset.path=~/scans", NAMED]).dataset
    assert isinstance(config, DirectoryDataset) and config.path == "/home/somebody/scans"


def test_the_error_about_a_path_with_a_space_says_how_to_quote() -> None:
    # The arguments that a shell makes of OVERRIDES="dataset.path=/data/my export".
    message = refusal("dataset=directory", "dataset.path=/data/my", "export")
    assert "'export' has no value" in message
    assert "OVERRIDES=\"'dataset.path=/data/my export'\"" in message


def test_a_phases_learning_rate_affects_only_that_phase(default: dict[str, str]) -> None:
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
        ("seed=1", STEPS - {"records", "gate"}),
    ],
)
def test_a_value_changes_only_the_steps_that_read_it(
    default: dict[str, str], override: str, expected: set[str]
) -> None:
    assert changed(default, configs(override)) == expected


def test_changed_files_in_the_same_folder_are_another_input(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "a.jpg").write_bytes(b"1")
    overrides = ["dataset=directory", f"dataset.path={tmp_path}", NAMED]
    before = configs(*overrides)
    assert json.loads(before["dataset"])["path"] == str(tmp_path)

    assert configs(*overrides) == before
    (tmp_path / "train" / "a.jpg").write_bytes(b"2")
    assert changed(before, configs(*overrides)) == {"dataset"}


def test_a_relative_path_is_the_same_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    absolute = configs("dataset=directory", f"dataset.path={tmp_path / 'data'}", NAMED)
    monkeypatch.chdir(tmp_path)
    assert configs("dataset=directory", "dataset.path=data", NAMED) == absolute


def test_a_changed_weights_file_changes_only_the_trainings(tmp_path: Path) -> None:
    file = tmp_path / "backbone.weights.h5"
    file.write_bytes(b"1")
    before = configs(f"model.weights={file}")

    assert configs(f"model.weights={file}") == before
    file.write_bytes(b"2")
    assert changed(before, configs(f"model.weights={file}")) == PHASES


@pytest.mark.parametrize("weights", ["imagenet", "none"])
def test_names_of_weights_are_not_paths(weights: str) -> None:
    model = json.loads(configs(f"model.weights={weights}", "model.image_size=32")["phase1_box"])["model"]
    assert model.get("weights", "imagenet") == weights
    assert "weights_fingerprint" not in model


def test_publish_to_becomes_an_absolute_path_or_stays_an_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for given, meant in (
        ("models", str(tmp_path / "models")),
        ("gs://bucket/a b", "gs://bucket/a b"),
        ("''", ""),
    ):
        training = configure([f"phases.phase3_finetune.publish_to={given}"]).trainings["phase3_finetune"]
        assert training.phase.publish_to == meant
    assert "publish_to is null; give a string." in refusal("phases.phase3_finetune.publish_to=null")


def test_an_address_that_is_not_text_is_refused() -> None:
    assert "dataset.uri is null; give a string." in refusal("dataset=bucket", "dataset.uri=null")


def test_errors_of_several_keys_are_reported_at_once() -> None:
    message = refusal("training.batch_size=0", "evaluate.threshold=2", "visualize.seed=-1", "model.dropout=1")
    assert message.count("; give") == 3
    assert message.endswith("(and 1 more)")
