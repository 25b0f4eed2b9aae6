"""The cluster file read by the real kind, up to the point where nodes start kubeadm, which needs Docker."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.kind_cluster.conftest import STAND_INS, Scripts

KIND = os.environ.get("BRAIN_TUMOR_TEST_KIND") or shutil.which("kind")
pytestmark = pytest.mark.skipif(not KIND, reason="needs kind, or BRAIN_TUMOR_TEST_KIND")


@pytest.fixture
def create(scripts: Scripts) -> Any:
    """Creates the nodes of a cluster file with the real kind and a stand-in for Docker."""
    (scripts.tools / "docker").unlink()
    (scripts.tools / "docker").symlink_to(STAND_INS / "docker_of_kind")

    def create(file: Path) -> "subprocess.CompletedProcess[str]":
        assert KIND
        return subprocess.run(
            [KIND, "create", "cluster", "--config", file],
            env={**scripts.environment, "KUBECONFIG": str(scripts.folder / "kubeconfig")},
            capture_output=True,
            text=True,
            timeout=60,
        )

    return create


def made_file(scripts: Scripts, **variables: str) -> Path:
    scripts.run("up", **variables)
    scripts.forget_calls()
    (scripts.state / "nodes").unlink()
    return scripts.made / "cluster.yaml"


@pytest.mark.parametrize("gpu", ["", "real"])
def test_nodes_start_with_the_pinned_image_and_the_mounts(scripts: Scripts, create: Any, gpu: str) -> None:
    result = create(made_file(scripts, GPU=gpu))
    assert scripts.calls("docker exec")[-1].count("kubeadm init") == 1, result.stderr
    runs = {call.split()[3]: call for call in scripts.calls("docker run")}
    assert set(runs) == {"brain-tumor-control-plane", "brain-tumor-worker"}
    for call in runs.values():
        assert f"--volume={scripts.made}/data:/data:ro" in call
        assert "kindest/node:v1.36.1@sha256:" in call
    gpus = {name for name, call in runs.items() if "/var/run/nvidia-container-devices/all" in call}
    assert gpus == ({"brain-tumor-worker"} if gpu else set())


def test_kubeadm_gets_the_taints_and_the_label(scripts: Scripts, create: Any) -> None:
    create(made_file(scripts))
    system = kubeadm(scripts.state / "brain-tumor-control-plane.yaml", "InitConfiguration")
    # An empty list, not null: otherwise kubeadm would taint the only node that can run system pods.
    assert system["taints"] == []
    gpu = kubeadm(scripts.state / "brain-tumor-worker.yaml", "JoinConfiguration")
    assert gpu["taints"] == [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}]
    labels = [each["value"] for each in gpu["kubeletExtraArgs"] if each["name"] == "node-labels"]
    assert labels == ["brain-tumor/gpu=true"]


def test_kind_rejects_a_mistake_in_the_file(scripts: Scripts, create: Any) -> None:
    """Shows that the tests above can fail."""
    file = made_file(scripts)
    file.write_text(file.read_text().replace("containerPath", "containerpath"))
    assert "unable to decode config" in create(file).stderr
    assert not scripts.calls("docker run")


def kubeadm(file: Path, kind: str) -> dict[str, Any]:
    [config] = [each for each in yaml.safe_load_all(file.read_text()) if each and each["kind"] == kind]
    return dict(config["nodeRegistration"])
