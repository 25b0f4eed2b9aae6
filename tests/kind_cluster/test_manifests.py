"""The manifests applied to the cluster: the overlays change what they should, and the rest is valid.

Upstream's manifests are not in this repository. `bases/` has the few resources that the overlays change.
BRAIN_TUMOR_TEST_MANIFESTS enables a build with all of them: a folder with `pipelines/` (kubeflow/pipelines at
tag 2.17.0, manifests/kustomize and backend/src/apiserver/config) and `argo-workflows/` (manifests at the tag
given there).
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from brain_tumor.runtime.step import BAD_INPUT
from tests.kind_cluster.conftest import ROOT

KUBERNETES = "1.36"  # the node image's version
CLUSTER = ROOT / "kind-cluster"
BASES = Path(__file__).parent / "bases"
UPSTREAM = os.environ.get("BRAIN_TUMOR_TEST_MANIFESTS", "")
REMOTE = re.compile(r"(?:https://)?github\.com/([\w-]+)/([\w-]+)/([^?\s]+)\?\S+")
REMOVED = {
    "ClusterRole/kubeflow-pipelines-cache-deployer-clusterrole",
    "ClusterRoleBinding/kubeflow-pipelines-cache-deployer-clusterrolebinding",
    "CustomResourceDefinition/viewers.kubeflow.org",
    "ServiceAccount/kubeflow-pipelines-cache-deployer-sa",
    *(
        f"Deployment/{name}"
        for name in (
            "cache-deployer-deployment",
            "cache-server",
            "metadata-writer",
            "ml-pipeline-viewer-crd",
            "ml-pipeline-visualizationserver",
        )
    ),
    "Service/cache-server",
    "ServiceAccount/kubeflow-pipelines-cache",
    "ServiceAccount/kubeflow-pipelines-metadata-writer",
    "ServiceAccount/ml-pipeline-viewer-crd-service-account",
    "ServiceAccount/ml-pipeline-visualizationserver",
    "Role/kubeflow-pipelines-cache-deployer-role",
    "Role/kubeflow-pipelines-cache-role",
    "Role/kubeflow-pipelines-metadata-writer-role",
    "Role/ml-pipeline-viewer-controller-role",
    "RoleBinding/kubeflow-pipelines-cache-binding",
    "RoleBinding/kubeflow-pipelines-cache-deployer-rolebinding",
    "RoleBinding/kubeflow-pipelines-metadata-writer-binding",
    "RoleBinding/ml-pipeline-viewer-crd-binding",
}
Resources = dict[str, dict[str, Any]]


def build(folder: Path) -> Resources:
    """The resources that `kubectl apply -k` would apply, by kind and name."""
    kubectl = Path(sys.executable).with_name("kubectl")
    result = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return {f"{each['kind']}/{each['metadata']['name']}": each for each in _load(result.stdout)}


def _load(text: str) -> list[dict[str, Any]]:
    return list(yaml.load_all(text, yaml.CSafeLoader))  # the pure Python loader is slow on long definitions


def make_local(folder: Path, place: Callable[[re.Match[str]], Path]) -> None:
    """Replaces the remote bases in a folder by local ones."""
    for file in folder.rglob("kustomization.yaml"):
        text = file.read_text()
        for match in REMOTE.finditer(text):
            text = text.replace(match[0], os.path.relpath(place(match), file.parent))
        file.write_text(text)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Resources:
    """Both overlays, built over `bases/`."""
    folder = tmp_path_factory.mktemp("small")
    shutil.copytree(CLUSTER / "kubeflow", folder / "kubeflow")
    shutil.copytree(BASES, folder / "bases")

    def use_bases(name: str) -> None:
        make_local(folder / "kubeflow" / name, lambda _: folder / "bases" / name)

    use_bases("cluster-scoped")
    use_bases("pipelines")
    return build(folder / "kubeflow" / "cluster-scoped") | build(folder / "kubeflow" / "pipelines")


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> tuple[Resources, Resources]:
    """Upstream's resources, before and after our overlays."""
    if not UPSTREAM:
        pytest.skip("needs BRAIN_TUMOR_TEST_MANIFESTS")
    folder = tmp_path_factory.mktemp("upstream")
    shutil.copytree(UPSTREAM, folder / "manifests")
    shutil.copytree(CLUSTER / "kubeflow", folder / "kubeflow")
    make_local(folder, lambda match: folder / "manifests" / match[2] / match[3])
    theirs = folder / "manifests" / "pipelines" / "manifests" / "kustomize"
    return (
        build(theirs / "cluster-scoped-resources") | build(theirs / "env" / "platform-agnostic"),
        build(folder / "kubeflow" / "cluster-scoped") | build(folder / "kubeflow" / "pipelines"),
    )


def test_the_servers_version_is_the_sdks() -> None:
    """A server rejects fields that a newer SDK may write into the compiled pipeline."""
    addresses = [REMOTE.search(file.read_text()) for file in CLUSTER.rglob("kustomization.yaml")]
    assert [each and re.split("[?&]", each[0])[1] for each in addresses] == [f"ref={version('kfp')}"] * 2


def test_only_resources_for_version_1_are_removed(small: Resources) -> None:
    assert not REMOVED & set(small)
    kept = {"Namespace/kubeflow", "CustomResourceDefinition/scheduledworkflows.kubeflow.org"}
    kept |= {"Deployment/ml-pipeline-ui", "ServiceAccount/kubeflow-pipelines-viewer", "Role/ml-pipeline"}
    # Without its variables the API server does not start.
    kept |= {"Service/ml-pipeline-visualizationserver"}
    assert kept <= set(small)


def test_the_api_server_reads_our_configuration(small: Resources) -> None:
    pod = small["Deployment/ml-pipeline"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert {
        "name": "config",
        "mountPath": "/config/config.json",
        "subPath": "config.json",
        "readOnly": True,
    } in (container["volumeMounts"])
    assert container["image"].endswith(":2.17.0") and len(container["volumeMounts"]) == 2
    [volume] = [each for each in pod["volumes"] if each["name"] == "config"]
    config = json.loads(small[f"ConfigMap/{volume['configMap']['name']}"]["data"]["config.json"])
    mlflow = {each["kind"]: each for each in yaml.safe_load_all((CLUSTER / "mlflow.yaml").read_text())}
    [port] = mlflow["Service"]["spec"]["ports"]
    assert config["plugins"]["mlflow"]["endpoint"] == (
        f"http://{mlflow['Service']['metadata']['name']}.{mlflow['Service']['metadata']['namespace']}:{port['port']}"
    )


def test_bad_input_is_not_retried(small: Resources) -> None:
    data = small["ConfigMap/workflow-controller-configmap"]["data"]
    strategy = yaml.safe_load(data["workflowDefaults"])["spec"]["templateDefaults"]["retryStrategy"]
    assert strategy["retryPolicy"] == "Always"
    assert f'!(lastRetry.message contains "{BAD_INPUT}")' in strategy["expression"]
    assert 'lastRetry.message != ""' in strategy["expression"]
    assert data["executor"]  # the rest is kept


def test_argo_looks_at_a_workflow_every_two_seconds(small: Resources) -> None:
    [container] = small["Deployment/workflow-controller"]["spec"]["template"]["spec"]["containers"]
    environment = {each["name"]: each["value"] for each in container["env"]}
    assert environment["DEFAULT_REQUEUE_TIME"] == "2s"
    assert environment["TRANSIENT_ERROR_PATTERN"] and container["image"]  # the rest is kept


def test_the_object_store_gets_time_to_start(small: Resources) -> None:
    [container] = small["Deployment/seaweedfs"]["spec"]["template"]["spec"]["containers"]
    probe = container["startupProbe"]
    assert probe["failureThreshold"] * probe["periodSeconds"] == 300
    assert probe["exec"]


@pytest.mark.parametrize("name", ["mlflow.yaml", "data.yaml", "gpu/device-plugin.yaml"])
def test_our_resources_match_kubernetes_schemas(name: str) -> None:
    for resource in yaml.safe_load_all((CLUSTER / name).read_text()):
        kubernetes_validate.validate(resource, KUBERNETES, strict=True)


def test_kubernetes_schemas_reject_a_mistake() -> None:
    """Shows that the tests with them can fail."""
    [*_, deployment] = yaml.safe_load_all((CLUSTER / "mlflow.yaml").read_text())
    deployment["spec"]["template"]["spec"]["container"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, KUBERNETES, strict=True)


def test_the_data_volume_and_its_claim_find_each_other() -> None:
    volume, claim = yaml.safe_load_all((CLUSTER / "data.yaml").read_text())
    name = {"namespace": claim["metadata"]["namespace"], "name": claim["metadata"]["name"]}
    assert volume["spec"]["claimRef"] == name
    assert claim["spec"]["volumeName"] == volume["metadata"]["name"]
    # An empty class, not null: otherwise the cluster's default class would create a new volume.
    assert volume["spec"]["storageClassName"] == claim["spec"]["storageClassName"] == ""
    nodes = yaml.safe_load((CLUSTER / "cluster.yaml").read_text())["nodes"]
    assert {node["extraMounts"][0]["containerPath"] for node in nodes} == {volume["spec"]["hostPath"]["path"]}


def test_only_these_of_upstreams_resources_are_removed_or_changed(
    upstream: tuple[Resources, Resources],
) -> None:
    theirs, ours = upstream
    assert set(theirs) - set(ours) == REMOVED
    [added] = set(ours) - set(theirs)
    assert added.startswith("ConfigMap/ml-pipeline-config-")
    assert {name for name in set(theirs) & set(ours) if theirs[name] != ours[name]} == {
        "Deployment/ml-pipeline",
        "Deployment/seaweedfs",
        "Deployment/workflow-controller",
        "ConfigMap/workflow-controller-configmap",
    }


def test_changed_resources_match_kubernetes_schemas(upstream: tuple[Resources, Resources]) -> None:
    for resource in upstream[1].values():
        kubernetes_validate.validate(resource, KUBERNETES, strict=True)


def test_every_image_has_a_version(upstream: tuple[Resources, Resources]) -> None:
    images = set(re.findall(r'"image": "([^"]+)"', json.dumps(upstream[1])))
    assert len(images) > 8
    floating = (":latest", ":dummy", ":master")
    assert not [image for image in images if ":" not in image or image.endswith(floating)]


def test_the_servers_configuration_is_upstreams_except_for_mlflow(
    upstream: tuple[Resources, Resources],
) -> None:
    path = Path(UPSTREAM) / "pipelines" / "backend" / "src" / "apiserver" / "config" / "config.json"
    theirs, ours = (
        json.loads(each.read_text()) for each in (path, CLUSTER / "kubeflow" / "pipelines" / "config.json")
    )
    assert {**theirs, "plugins": {}} == {**ours, "plugins": {}}
    assert set(ours["plugins"]) == set(theirs["plugins"]) == {"mlflow"}
