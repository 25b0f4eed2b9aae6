import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from brain_tumor.configure import configure
from brain_tumor.runtime.errors import InputError
from brain_tumor.steps import TITLES
from pipelines.compile import compile_pipeline
from pipelines.image import ROOT
from pipelines.run import RUNNERS
from pipelines.targets.target import TARGETS, Kind, Target, load_target
from tests.pipelines.renew_golden import GIVEN
from tests.unit.exports import write_export

CLUSTER = """
runner: kubeflow
image: registry.example/brain-tumor:{tag}
caching: false
retries: 2
pull: Always
data_claim: exports
pod_fields: {RUN: "metadata.labels['pipeline/runid']"}
environment: {CHECKPOINTS: "s3://bucket/checkpoints"}
secrets:
  roboflow: {api-key: ROBOFLOW_API_KEY}
placement:
  train:
    cpu: "4"
    cpu_limit: "8"
    memory: 16Gi
    memory_limit: 32Gi
    gpus: 2
    node_selector: {pool: gpu}
    tolerations: [{key: nvidia.com/gpu, effect: NoSchedule}]
    shared_memory: 8Gi
  ingest: {memory_limit: 4Gi, secrets: {mine: {key: KEY}}}
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """The compiled documents of a target with all settings: the pipeline, and the Kubernetes settings."""
    folder = tmp_path_factory.mktemp("targets")
    (folder / "cluster.yaml").write_text(CLUSTER)
    target = load_target("cluster", folder)
    (folder / "export").mkdir()
    configs = configure(["dataset=directory", f"dataset.path={folder}/export", "dataset.labels=[one]"])
    compile_pipeline(target, "0123", configs, folder / "compiled.yaml")
    pipeline, platform = yaml.safe_load_all((folder / "compiled.yaml").read_text())
    return pipeline["deploymentSpec"]["executors"], platform["platforms"]["kubernetes"]["deploymentSpec"][
        "executors"
    ]


@pytest.mark.parametrize("name", sorted(file.stem for file in TARGETS.glob("*.yaml")))
def test_a_targets_file_matches_the_schema(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in GIVEN.get(name, {}).items():
        monkeypatch.setenv(variable, value)
    target = load_target(name)
    assert "{tag}" in target.image
    assert target.runner in RUNNERS


@pytest.mark.parametrize("name", sorted(GIVEN))
def test_a_target_names_missing_environment_variables(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in GIVEN[name]:
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(
        InputError, match=rf"The target {name} needs REGISTRY; set it, as in make .*REGISTRY=\.\.\."
    ):
        load_target(name)


def test_the_kinds_of_step_are_the_components() -> None:
    assert set(get_args(Kind)) == set(TITLES)
    assert set(TITLES) == {path.stem for path in (ROOT / "components").glob("*.py")} - {"__init__"}


def test_every_step_gets_the_targets_common_settings(cluster: tuple[dict[str, Any], dict[str, Any]]) -> None:
    executors, platform = cluster
    assert len(executors) == 12
    for executor in executors.values():
        container = executor["container"]
        assert container["image"] == "registry.example/brain-tumor:0123"
        assert container["env"] == [{"name": "CHECKPOINTS", "value": "s3://bucket/checkpoints"}]
    assert platform.keys() == executors.keys()
    for own in platform.values():
        secret = own["secretAsEnv"][0]
        assert secret["secretName"] == "roboflow"
        assert secret["keyToEnv"] == [{"envVar": "ROBOFLOW_API_KEY", "secretKey": "api-key"}]
        assert own["imagePullPolicy"] == "Always"
        assert own["fieldPathAsEnv"] == [{"name": "RUN", "fieldPath": "metadata.labels['pipeline/runid']"}]


def test_a_folder_of_images_is_mounted_only_where_it_is_read(
    cluster: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    mounts = {name: own["pvcMount"] for name, own in cluster[1].items() if "pvcMount" in own}
    assert list(mounts) == ["exec-ingest"]
    [mount] = mounts["exec-ingest"]
    assert mount["constant"] == "exports"
    assert mount["mountPath"].endswith("/export")


def test_a_kind_of_step_gets_its_machine(cluster: tuple[dict[str, Any], dict[str, Any]]) -> None:
    executors, platform = cluster
    trainings = {name for name in executors if name.startswith("exec-train")}
    assert len(trainings) == 5
    for name, executor in executors.items():
        resources = executor["container"].get("resources", {})
        own = platform[name]
        if name in trainings:
            assert resources["accelerator"]["resourceType"] == "nvidia.com/gpu"
            assert resources["accelerator"]["resourceCount"] == "2"
            assert resources["resourceCpuRequest"] == "4"
            assert resources["resourceCpuLimit"] == "8"
            assert resources["resourceMemoryRequest"] == "16Gi"
            assert resources["resourceMemoryLimit"] == "32Gi"
            assert own["nodeSelector"]["labels"] == {"pool": "gpu"}
            toleration = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
            assert own["tolerations"] == [toleration]
            [mount] = own["emptyDirMounts"]
            assert (mount["mountPath"], mount["medium"], mount["sizeLimit"]) == ("/dev/shm", "Memory", "8Gi")
        else:
            assert resources.get("resourceMemoryLimit") == ("4Gi" if name == "exec-ingest" else None)
            assert not {"nodeSelector", "tolerations", "emptyDirMounts"} & set(own)
            assert len(own["secretAsEnv"]) == (2 if name == "exec-ingest" else 1)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["dataset=directory", "dataset.path={folder}", "dataset.labels=[one]"],
            r"bucket and give dataset=bucket",
        ),
        (
            ["phases.phase1_box.publish_to={folder}"],
            r"phases\.phase1_box\.publish_to=.* give an address in a bucket",
        ),
        (["model.weights={folder}/weights.h5"], r"model\.weights=.* give an address in a bucket"),
    ],
)
@pytest.mark.parametrize("name", ["kubeflow", "vertex"])
def test_local_paths_are_refused_for_a_cluster(
    name: str, overrides: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in GIVEN[name].items():
        monkeypatch.setenv(variable, value)
    write_export(tmp_path)
    (tmp_path / "weights.h5").write_bytes(b"weights")
    configs = configure([override.format(folder=tmp_path) for override in overrides])
    with pytest.raises(InputError, match=message) as error:
        compile_pipeline(load_target(name), "0", configs, tmp_path / "p.yaml")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "p.yaml").exists()
    compile_pipeline(load_target("docker"), "0", configs, tmp_path / "p.yaml")


def test_the_target_sets_retries_and_caching(tmp_path: Path) -> None:
    target = Target(runner="local", image="i:{tag}", caching=False, retries=2)
    compile_pipeline(target, "0", configure([]), tmp_path / "p.yaml")
    tasks = yaml.safe_load((tmp_path / "p.yaml").read_text())["root"]["dag"]["tasks"].values()
    assert {task["retryPolicy"]["maxRetryCount"] for task in tasks} == {2}
    assert not any(task["cachingOptions"].get("enableCache") for task in tasks)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("runner: local", r"mine\.yaml\.image is not set"),
        ("runner: cloud\nimage: 'a:{tag}'", r"mine\.yaml\.runner is 'cloud'; give one of .*local"),
        ("runner: local\nimage: a:latest", r"mine\.yaml\.image"),
        (
            "runner: local\nimage: 'a:{tag}'\nplacment: {}",
            r"mine\.yaml has no 'placment'; it has .*placement",
        ),
        ("runner: local\nimage: 'a:{tag}'\nplacement: {training: {}}", r"training.*train"),
        ("runner: local\nimage: 'a:{tag}'\nplacement: {train: {memory: 4GB}}", r"train\.memory"),
        ("runner: vertex\nimage: 'a:{tag}'\npull: Always", r"pull, which is only for Kubernetes"),
        (
            "runner: vertex\nimage: 'a:{tag}'\nplacement: {train: {shared_memory: 1Gi}}",
            r"placement\.shared_memory, which is only for Kubernetes",
        ),
        (
            "runner: vertex\nimage: 'a:{tag}'\nplacement: {train: {gpus: 1}}",
            r"a Vertex AI name such as",
        ),
        ("image: ${oops", r"mine\.yaml cannot be read"),
        ("runner: [", r"mine\.yaml is not YAML at line 1"),
    ],
)
def test_a_file_that_does_not_match_the_schema_is_one_sentence(
    content: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "mine.yaml").write_text(content)
    with pytest.raises(InputError, match=message) as error:
        load_target("mine", tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("module", ["run", "compile", "plan"])
def test_an_unknown_target_is_refused_with_a_list_of_targets(module: str) -> None:
    command = [sys.executable, "-m", f"pipelines.{module}", "--target", "lokal"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2
    assert re.fullmatch(r"The target lokal does not exist; choose one of .*local.*\.\n", result.stderr)
