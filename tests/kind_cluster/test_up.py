import json
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
import yaml

from pipelines.image import ROOT, image_tag
from tests.kind_cluster.conftest import Scripts

TARGET = ROOT / "pipelines" / "targets" / "kind.yaml"
# Part of a call in each stage at which a start may fail.
STAGES = (
    "kind create cluster",
    "wait --for=condition=Ready nodes",
    "patch node",
    "kind load docker-image",
    "apply -k",
    "condition=Established",
    "kubeflow/pipelines",
    "apply -f -",
    "data.yaml",
    "wait deployment",
)


def in_order(calls: list[str], parts: tuple[str, ...]) -> bool:
    """Whether some of the calls contain these parts, in this order."""
    rest: Iterator[str] = iter(calls)
    return all(any(part in call for call in rest) for part in parts)


def test_a_first_start_goes_through_all_stages_and_says_the_addresses(scripts: Scripts) -> None:
    result = scripts.run("up")
    assert result.returncode == 0, result.stderr
    assert in_order(scripts.calls(), STAGES)
    assert re.search(r"^Kubeflow dashboard       http://127.0.0.1:\d+$", result.stdout, re.MULTILINE)
    assert "brain-tumor-data:0123456789abcdef brain-tumor-cpu:0123456789abcdef" in result.stderr
    # Independent of the user's current cluster.
    assert all(call.startswith("kubectl --context kind-brain-tumor") for call in scripts.calls("kubectl"))


def test_a_second_start_creates_no_second_cluster(scripts: Scripts) -> None:
    scripts.run("up")
    scripts.forget_calls()
    result = scripts.run("up")
    assert result.returncode == 0, result.stderr
    assert in_order(scripts.calls(), STAGES[1:])
    assert not scripts.calls("kind create") and not scripts.calls("kind delete")
    assert scripts.calls("docker start")  # nodes are stopped after a restart of the machine


@pytest.mark.parametrize("stage", STAGES)
def test_a_start_that_failed_at_a_stage_resumes_there(scripts: Scripts, stage: str) -> None:
    result = scripts.run("up", FAIL=stage)
    assert result.returncode in (1, 2)
    assert "make cluster-up" in result.stderr
    assert stage in scripts.calls()[-1] or "get pods" in scripts.calls()[-1]
    scripts.forget_calls()
    result = scripts.run("up")
    assert result.returncode == 0, result.stderr
    assert bool(scripts.calls("kind create")) == (stage == "kind create cluster")
    assert not scripts.calls("kind delete")
    assert in_order(scripts.calls(), STAGES[1:])


@pytest.mark.parametrize("stopped", ["nodes", "credentials"])
def test_nodes_without_a_finished_cluster_are_recreated(scripts: Scripts, stopped: str) -> None:
    assert scripts.run("up", STOPPED=stopped).returncode != 0
    scripts.forget_calls()
    result = scripts.run("up")
    assert result.returncode == 0, result.stderr
    assert in_order(scripts.calls(), ("kind delete cluster", "kind create cluster", "wait deployment"))


def test_the_state_of_a_deleted_cluster_is_ignored(scripts: Scripts) -> None:
    scripts.run("up")
    for name in ("nodes", "credentials", "answers", "joined"):
        (scripts.state / name).unlink()
    assert scripts.run("up", STOPPED="nodes").returncode != 0
    assert scripts.run("up").returncode == 0
    assert scripts.calls("kind delete")


@pytest.mark.parametrize("lost", ["credentials", "answers"])
def test_a_cluster_that_does_not_respond_is_never_deleted(scripts: Scripts, lost: str) -> None:
    scripts.run("up")
    (scripts.state / lost).unlink()
    scripts.forget_calls()
    result = scripts.run("up")
    assert result.returncode == 2
    assert "does not answer" in result.stderr
    assert not scripts.calls("kind delete") and not scripts.calls("kind create")


def test_a_cluster_whose_state_is_lost_is_kept(scripts: Scripts) -> None:
    scripts.run("up")
    (scripts.made / "made-with").unlink()
    scripts.forget_calls()
    assert scripts.run("up").returncode == 0
    assert not scripts.calls("kind delete")


@pytest.mark.parametrize("name", ["scans", 'two words, #1: it\'s "A & B" \\ end'])
def test_a_data_folder_is_mounted_in_both_nodes(scripts: Scripts, name: str) -> None:
    (scripts.folder / name).mkdir()
    assert scripts.run("up", DATA=name).returncode == 0
    cluster = yaml.safe_load((scripts.made / "cluster.yaml").read_text())
    mount = {"hostPath": str(scripts.folder / name), "containerPath": "/data", "readOnly": True}
    assert [node["extraMounts"] for node in cluster["nodes"]] == [[mount], [mount]]


def test_the_settings_of_an_existing_cluster_cannot_change(scripts: Scripts) -> None:
    for name in ("a", "b"):
        (scripts.folder / name).mkdir()
    assert scripts.run("up", DATA="a").returncode == 0
    assert scripts.run("up").returncode == 0
    assert scripts.run("up", DATA="a").returncode == 0
    for choice in ({"DATA": "b"}, {"GPU": "real"}):
        result = scripts.run("up", **choice)
        assert result.returncode == 2
        assert f"DATA={scripts.folder}/a" in result.stderr and "make cluster-down" in result.stderr


@pytest.mark.parametrize("variables", [{"DATA": "nowhere"}, {"GPU": "two"}])
def test_a_bad_setting_is_refused_before_anything_is_created(
    scripts: Scripts, variables: dict[str, str]
) -> None:
    result = scripts.run("up", **variables)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1 and next(iter(variables)) in result.stderr
    assert not scripts.calls()


def test_the_simulated_gpu_is_in_the_nodes_status(scripts: Scripts) -> None:
    scripts.run("up")
    [call] = [call for call in scripts.calls("kubectl") if "patch node" in call]
    assert "brain-tumor-worker --subresource=status" in call
    status = json.loads(call.split("--patch ")[1])["status"]
    assert status == {part: {"nvidia.com/gpu": "1"} for part in ("capacity", "allocatable")}


def test_real_gpus_come_from_the_machine(scripts: Scripts) -> None:
    assert scripts.run("up", GPU="real").returncode == 0
    cluster = yaml.safe_load((scripts.made / "cluster.yaml").read_text())
    assert cluster["nodes"][1]["extraMounts"][1] == {
        "hostPath": "/dev/null",
        "containerPath": "/var/run/nvidia-container-devices/all",
    }
    assert len(cluster["nodes"][0]["extraMounts"]) == 1
    assert not [call for call in scripts.calls() if "patch node" in call]
    assert in_order(scripts.calls(), ("docker exec --interactive brain-tumor-worker", "device-plugin.yaml"))
    assert "nvidia-ctk" in (scripts.state / "executed").read_text()
    scripts.forget_calls()
    assert scripts.run("up").returncode == 0  # it is remembered
    assert not [call for call in scripts.calls() if "patch node" in call]


def test_images_that_were_not_built_are_named(scripts: Scripts) -> None:
    result = scripts.run("up", FAIL="image inspect brain-tumor-gpu", STAGES="data gpu")
    assert result.returncode == 2
    assert 'no image brain-tumor-gpu:0123456789abcdef; make images STAGES="data gpu"' in result.stderr


def test_mlflow_runs_in_the_image_that_was_loaded(scripts: Scripts) -> None:
    """With the project's own tag, unlike in the other tests."""
    scripts.run("up", PYTHON=sys.executable, PYTHONPATH=f"{ROOT}:{ROOT}/src")
    applied = yaml.safe_load_all((scripts.state / "applied").read_text())
    [deployment] = [each for each in applied if each["kind"] == "Deployment"]
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"brain-tumor-data:{image_tag()}"
    assert [call for call in scripts.calls("kind load") if container["image"] in call]


def test_the_roboflow_key_reaches_only_the_cluster(scripts: Scripts) -> None:
    (scripts.folder / ".env").write_text("# mine\nexport ROBOFLOW_API_KEY='s3cret#key'  # of the team\n")
    result = scripts.run("up")
    assert result.returncode == 0, result.stderr
    applied = (scripts.state / "applied").read_text()
    secret = json.loads(applied[applied.index('{"apiVersion"') :])
    assert secret["metadata"] == {"name": "brain-tumor-roboflow", "namespace": "kubeflow"}
    assert secret["stringData"] == {"api_key": "s3cret#key"}
    assert "s3cret" not in result.stdout + result.stderr + "".join(scripts.calls())
    # `kubectl apply` would keep a copy in an annotation.
    assert [call for call in scripts.calls("kubectl") if "apply --server-side" in call]


def test_a_missing_key_is_reported_and_does_not_stop_the_start(scripts: Scripts) -> None:
    (scripts.folder / ".env").write_text("ROBOFLOW_API_KEY=\n")
    result = scripts.run("up")
    assert result.returncode == 0
    assert "no ROBOFLOW_API_KEY" in result.stderr
    assert "Secret" not in (scripts.state / "applied").read_text()


def test_a_broken_env_file_is_one_sentence(scripts: Scripts) -> None:
    (scripts.folder / ".env").write_bytes(b"ROBOFLOW_API_KEY=\xff\xfe\n")
    result = scripts.run("up")
    assert result.returncode == 2
    assert "The file .env cannot be read" in result.stderr and "Traceback" not in result.stderr


def test_pods_that_do_not_get_ready_are_listed(scripts: Scripts) -> None:
    result = scripts.run("up", FAIL="wait deployment")
    assert result.returncode == 2
    assert scripts.calls()[-1].endswith("-n kubeflow get pods")
    assert "describe pod" in result.stderr


def test_the_target_can_use_the_gpu_node() -> None:
    worker = yaml.safe_load((ROOT / "kind-cluster" / "cluster.yaml").read_text())["nodes"][1]
    taint = yaml.safe_load(worker["kubeadmConfigPatches"][0])["nodeRegistration"]["taints"][0]
    placement = yaml.safe_load(TARGET.read_text())["placement"]["train"]
    assert placement["node_selector"] == worker["labels"]
    assert placement["tolerations"] == [{"key": taint["key"], "effect": taint["effect"]}]


def test_the_target_asks_for_the_secret_that_the_cluster_has() -> None:
    secret = subprocess.run(
        [sys.executable, ROOT / "kind-cluster" / "roboflow_secret.py"],
        env={"ROBOFLOW_API_KEY": "key"},
        capture_output=True,
        check=True,
    )
    made = json.loads(secret.stdout)
    [field] = made["stringData"]
    assert {made["metadata"]["name"]: {field: "ROBOFLOW_API_KEY"}} == yaml.safe_load(TARGET.read_text())[
        "placement"
    ]["ingest"]["secrets"]
