"""The README's commands: each is executed by a test, or has a reason why none can."""

import ast
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from brain_tumor.config.compose import compose

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMAND = r"^```(?:sh|console)\n(.*?)^```"
MOST_LINES = 200

# The test that executes each command (or what the command calls), possibly with other values.
TESTED = {
    "make pipeline-run": "tests/pipelines/test_run.py::test_every_step_runs_once",
    'make pipeline-run OVERRIDES="profile=full dataset=directory dataset.path=/data/export"': (
        "tests/pipelines/test_run.py::test_steps_before_a_failure_are_not_repeated"
    ),
    "cp .env.example .env": (
        "tests/unit/roboflow/test_roboflow.py::test_the_key_may_stand_in_a_file_of_the_working_folder_or_above"
    ),
    'make pipeline-run OVERRIDES="profile=full dataset=roboflow"': (
        "tests/unit/roboflow/test_roboflow.py::test_a_version_is_downloaded_and_ingested"
    ),
    'make pipeline-run OVERRIDES="dataset=roboflow dataset.workspace=NAME dataset.project=NAME '
    'dataset.version=1 dataset.labels=[tumor]"': (
        "tests/unit/roboflow/test_roboflow.py::test_the_config_names_the_version"
    ),
    'make pipeline-plan OVERRIDES="training.batch_size=32"': (
        "tests/pipelines/test_plan.py::test_changes_are_named_and_later_steps_run_too"
    ),
    'make compare RUNS="last 2"': (
        "tests/unit/test_comparison.py::test_runs_are_found_by_name_by_id_and_by_age"
    ),
    'make sweep OVERRIDES="training.batch_size=16,32"': (
        "tests/pipelines/test_sweep.py::test_all_runs_are_compared_with_the_first"
    ),
    "make tensorboard": "tests/pipelines/test_tensorboard.py::test_tensorboard_shows_a_bucket",
    "make clean-runs KEEP=3": "tests/pipelines/test_clean_runs.py::test_only_the_newest_run_is_kept",
    ".venv/bin/brain-tumor predict scan.jpg --model models:/brain-tumor@champion --draw pictures "
    "> predictions.json": (
        "tests/unit/test_inference.py::test_pictures_show_the_boxes_of_present_labels_in_pixels"
    ),
    "make champion MODEL=3": (
        "tests/pipelines/test_run.py::test_a_later_model_is_compared_with_the_champion"
    ),
    "make doctor": "tests/unit/test_machine.py::test_a_machine_with_everything_lacks_nothing",
    "make cluster-up": (
        "tests/kind_cluster/test_up.py::test_a_first_start_goes_through_all_stages_and_says_the_addresses"
    ),
    "make dashboard": (
        "tests/kind_cluster/test_dashboard.py::test_all_services_are_forwarded_until_it_is_stopped"
    ),
    "make pipeline-run TARGET=kind": "tests/pipelines/test_kubeflow.py::test_a_run_ends_as_a_local_one",
    "make pipeline-follow TARGET=kind RUN=NAME": (
        "tests/pipelines/test_kubeflow.py::test_an_interrupted_run_continues_and_is_followed_to_the_same_end"
    ),
    "make cluster-down": (
        "tests/kind_cluster/test_dashboard.py::"
        "test_down_ends_the_dashboard_deletes_the_cluster_and_can_be_repeated"
    ),
    "make pipeline-run TARGET=kubeflow HOST=http://kubeflow.example REGISTRY=registry.example/team": (
        "tests/pipelines/test_kubeflow.py::test_a_run_ends_as_a_local_one"
    ),
    "make pipeline-run TARGET=vertex GOOGLE_CLOUD_PROJECT=NAME BUCKET=gs://NAME "
    "REGISTRY=registry.example/team": "tests/pipelines/test_vertex.py::test_a_run_ends_as_a_local_one",
    "make docs": (
        "tests/documentation/test_site.py::test_the_site_builds_and_loads_nothing_from_other_servers"
    ),
}
# Why no test executes these commands.
UNTESTED = {
    "make setup": "it downloads gigabytes; .ci/run calls it before the tests, which test its failures",
    "make mlflow-ui": "it is MLflow's own server; tests/pipelines/test_run.py reads the store that it shows",
    'make images-push STAGES="data cpu gpu" REGISTRY=registry.example/team': (
        "it needs a registry; .ci/run builds the images if there is a Docker Engine"
    ),
    "make notebooks": "it serves JupyterLab until it is stopped; tests/notebooks executes the notebooks",
    "make test": "it runs this test",
    "make lint types": ".ci/run calls it in addition to the tests",
}


def commands(text: str) -> list[str]:
    """The commands of a page's shell blocks, without their comments."""
    lines = "".join(re.findall(COMMAND, text, re.DOTALL | re.MULTILINE)).splitlines()
    found = (re.sub(r"\s+# .*", "", line).removeprefix("$ ").strip() for line in lines)
    return [command for command in found if command and not command.startswith("#")]


def test_every_command_is_executed_or_has_a_reason() -> None:
    assert set(commands(README)) == TESTED.keys() | UNTESTED.keys()
    assert not TESTED.keys() & UNTESTED.keys()


@pytest.mark.parametrize("test", sorted(set(TESTED.values())))
def test_the_tests_are_there(test: str) -> None:
    path, _, name = test.partition("::")
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("command", [each for each in TESTED | UNTESTED if each.startswith("make ")])
def test_make_knows_the_target_and_the_configuration_takes_the_overrides(command: str) -> None:
    # As if the setup were done; nothing is executed.
    make = ["make", "--dry-run", "--old-file", ".venv/installed", *shlex.split(command)[1:]]
    done = subprocess.run(make, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Say w" not in done.stdout or 'test -n ""' not in done.stdout, "a value is missing"
    for line in done.stdout.splitlines():
        if " -m pipelines.run " in line or " -m pipelines.plan " in line:
            words = shlex.split(line)
            compose(words[words.index("--target") + 2 :])


def test_readme_is_short() -> None:
    assert len(README.splitlines()) < MOST_LINES


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('```sh\nmake a    # why\n\n# alone\nmake b X="1 2"\n```\n', ["make a", 'make b X="1 2"']),
        ("```console\n$ make a\n```\nthen\n```python\nmake()\n```\n", ["make a"]),
        ("`make a`\n", []),
    ],
)
def test_commands_are_found(text: str, found: list[str]) -> None:
    assert commands(text) == found
