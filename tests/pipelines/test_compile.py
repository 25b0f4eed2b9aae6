import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import pipelines.pipeline
from brain_tumor.configure import configure
from pipelines.compile import compile_pipeline
from pipelines.image import ROOT, image_tag
from pipelines.pipeline import define_steps
from pipelines.targets.target import TARGETS, load_target
from tests.pipelines.renew_golden import NAMES, compile_golden, golden

RENEW = "python -m tests.pipelines.renew_golden"
LABELS = ["label0", "label1", "label2"]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("compiled") / "pipeline.yaml"
    compile_golden("local", path)
    return path


@pytest.fixture(scope="module")
def document(compiled: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(compiled.read_text())
    return content


@pytest.fixture(scope="module")
def tasks(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["root"]["dag"]["tasks"]
    return found


@pytest.mark.parametrize("target", NAMES)
def test_the_pipeline_is_the_golden_one(target: str, tmp_path: Path) -> None:
    compile_golden(target, tmp_path / "pipeline.yaml")
    compiled = (tmp_path / "pipeline.yaml").read_text()
    assert compiled == golden(target).read_text(), f"If this change is intended: {RENEW}"


def test_a_real_compile_differs_from_the_golden_file_only_in_its_images(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.programs.in_folder", "pipelines.compile", str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{tmp_path}/build/pipeline.yaml\n"

    real = (tmp_path / "build" / "pipeline.yaml").read_text().splitlines()
    expected = golden("local").read_text().splitlines()
    assert len(real) == len(expected)
    differing = {ours.strip() for ours, theirs in zip(real, expected, strict=True) if ours != theirs}
    assert differing == {f"image: brain-tumor:{image_tag()}"}


# The command line itself, except for its output folder.


def test_the_pipeline_names_no_target() -> None:
    story = Path(pipelines.pipeline.__file__).read_text()
    targets = [file.stem for file in TARGETS.glob("*.yaml")]
    assert targets
    for target in targets:
        assert not re.search(rf"[\"']{target}[\"']", story)


def test_the_docstring_tells_the_tasks_in_order(tasks: dict[str, Any]) -> None:
    story = define_steps.__doc__ or ""
    items = re.findall(r"^ *(\d+)\. ([^:]+):", story, re.MULTILINE)
    assert [int(number) for number, _ in items] == list(range(1, len(items) + 1))
    told = {name: int(number) for number, name in items}

    number_of = {}
    for key, task in tasks.items():
        # The first word of a training's name is left out if the name is too long.
        title = "train" if key.startswith("train") else task["taskInfo"]["name"].split(": ")[0]
        number_of[key] = told[title]
    assert set(number_of.values()) == set(told.values())
    assert len({task["taskInfo"]["name"] for task in tasks.values()}) == len(tasks) == 11 + len(LABELS)
    for key, task in tasks.items():
        assert all(number_of[earlier] <= number_of[key] for earlier in task.get("dependentTasks", []))


def test_every_label_has_its_curves(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.yaml"
    compile_pipeline(load_target("local"), "golden", configure(["dataset.labels=[one,two]"]), path)
    tasks = yaml.safe_load(path.read_text())["root"]["dag"]["tasks"].values()
    assert {task["taskInfo"]["name"] for task in tasks} >= {
        "curves: one",
        "curves: two",
        "curves: all labels",
    }
    assert not any("label0" in task["taskInfo"]["name"] for task in tasks)


@pytest.mark.parametrize(
    ("overrides", "starts", "judged"),
    [
        (
            ["phases=joint"],
            {"baseline_classification": None, "baseline_box": None, "joint": None},
            ["joint", "baseline_classification", "baseline_box"],
        ),
        (
            ["~phases.baseline_box", "+phases.phase4.start=phase3_finetune", "final=phase4"],
            {
                "baseline_classification": None,
                "phase1_box": None,
                "phase2_classification": "phase1_box",
                "phase3_finetune": "phase2_classification",
                "phase4": "phase3_finetune",
            },
            ["phase4", "baseline_classification"],
        ),
    ],
)
def test_the_trainings_are_the_configurations_phases(
    overrides: list[str], starts: dict[str, str | None], judged: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "pipeline.yaml"
    compile_pipeline(load_target("local"), "golden", configure(overrides), path)
    tasks = yaml.safe_load(path.read_text())["root"]["dag"]["tasks"]

    phase_of = {
        key: task["inputs"]["parameters"]["config"]["componentInputParameter"]
        for key, task in tasks.items()
        if task["componentRef"]["name"].startswith("comp-train")
    }
    found = {}
    for key, phase in phase_of.items():
        start = tasks[key]["inputs"]["artifacts"].get("start")
        found[phase] = phase_of[start["taskOutputArtifact"]["producerTask"]] if start else None
    assert found == starts
    models = tasks["evaluate"]["inputs"]["artifacts"]
    names = ["final", *(f"baseline_{number}" for number in range(1, len(judged)))]
    assert sorted(models) == sorted([*names, "records"])
    assert [phase_of[models[name]["taskOutputArtifact"]["producerTask"]] for name in names] == judged


def test_the_pipelines_parameters_are_the_steps_configs(
    document: dict[str, Any], tasks: dict[str, Any]
) -> None:
    parameters = document["root"]["inputDefinitions"]["parameters"]
    names = ["about", *configure([]).parameters()]
    assert parameters == {name: {"parameterType": "STRING"} for name in names}

    used = []
    for task in tasks.values():
        for name, value in task["inputs"]["parameters"].items():
            if name == "label":
                assert value["runtimeValue"]["constant"] in (*LABELS, "all labels")
            else:
                assert name == "config"
                used.append(value["componentInputParameter"])
    assert sorted(["about", *used]) == sorted(parameters)


def test_a_dashboard_shows_every_step_s_name_whole(tasks: dict[str, Any]) -> None:
    names = [task["taskInfo"]["name"] for task in tasks.values()]
    assert len(set(names)) == len(names) and max(map(len, names)) <= 24


def test_no_task_sets_environment_variables(document: dict[str, Any]) -> None:
    # Secrets and values that differ between runs come from outside: here they would be stored.
    executors = document["deploymentSpec"]["executors"].values()
    assert {key for executor in executors for key in executor["container"]} == {"args", "command", "image"}


def test_every_task_except_the_gate_is_cached_and_all_have_the_targets_image(
    document: dict[str, Any], tasks: dict[str, Any]
) -> None:
    cached = {name for name, task in tasks.items() if task["cachingOptions"].get("enableCache")}
    assert cached == set(tasks) - {"gate"}
    executors = document["deploymentSpec"]["executors"].values()
    assert {executor["container"]["image"] for executor in executors} == {"brain-tumor:golden"}
