"""Each target's compiled file, as a server would read it."""

import re
from typing import Any

import pytest
import yaml
from kfp.pipeline_spec import pipeline_spec_pb2

from brain_tumor.configure import configure
from pipelines.targets.target import TARGETS
from tests.pipelines.compiled_files import read_platform, read_spec, unresolved
from tests.pipelines.renew_golden import NAMES, golden

CLUSTERS = ["kind", "kubeflow"]
NEEDS_GPU = {"exec-train", "exec-evaluate"}


def kind_of(executor: str) -> str:
    """The executor's name without the number that distinguishes tasks of one component."""
    return re.sub(r"-\d+$", "", executor)


@pytest.mark.parametrize("target", NAMES)
def test_all_fields_are_known_and_all_references_resolve(target: str) -> None:
    spec = read_spec(golden(target))
    assert unresolved(spec) == []
    assert spec.sdk_version == "kfp-2.17.0"
    assert len(spec.root.dag.tasks) == 14
    platform = read_platform(golden(target))
    assert set(platform) == (set(spec.deployment_spec["executors"]) if target in CLUSTERS else set())


def test_a_broken_reference_is_found() -> None:
    spec = pipeline_spec_pb2.PipelineSpec()
    spec.CopyFrom(read_spec(golden("local")))
    del spec.root.dag.tasks["evaluate"]
    del spec.root.input_definitions.parameters["records"]
    found = unresolved(spec)
    assert "build-tfrecords: parameter config" in found
    assert "output evaluation" in found
    assert "visualize: task evaluate" in found


@pytest.mark.parametrize("target", NAMES)
def test_the_file_has_no_secret_and_no_mutable_image_tag(target: str) -> None:
    text = golden(target).read_text()
    images = re.findall(r"image: (\S+)", text)
    assert len(images) == 14
    assert all(image.endswith(":golden") for image in images)
    assert not re.search(r"(?i)(password|token|key): *['\"]?[A-Za-z0-9+/]{12,}", text)
    for environment in _environments(target):
        assert not {"ROBOFLOW_API_KEY", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} & set(environment)


@pytest.mark.parametrize("target", [*CLUSTERS, "vertex"])
def test_only_training_and_evaluation_get_a_gpu(target: str) -> None:
    executors = read_spec(golden(target)).deployment_spec["executors"]
    stages = {"kind": "cpu"}
    for name in executors:
        container = executors[name]["container"]
        resources = container["resources"]
        gpu = kind_of(name) in NEEDS_GPU
        assert ("accelerator" in resources) == gpu
        plain = "cpu" if name in ("exec-build-tfrecords", "exec-gate") else "data"
        stage = stages.get(target, "gpu") if gpu else plain
        assert container["image"].endswith(f"brain-tumor-{stage}:golden")
        assert resources["resourceMemoryLimit"]
        if gpu:
            kind = "NVIDIA_L4" if target == "vertex" else "nvidia.com/gpu"
            accelerator = resources["accelerator"]
            assert accelerator["resourceType"] == kind
            assert accelerator["resourceCount"] == "1"


@pytest.mark.parametrize("target", CLUSTERS)
def test_a_pod_finds_its_run_its_bucket_and_its_secrets(target: str) -> None:
    for name, config in read_platform(golden(target)).items():
        [field] = config.field_path_as_env
        assert (field.name, field.field_path) == ("BRAIN_TUMOR_RUN", "metadata.labels['pipeline/runid']")
        assert config.image_pull_policy == "IfNotPresent"
        secrets = {secret.secret_name: secret for secret in config.secret_as_env}
        wanted = {"mlpipeline-minio-artifact"} | (
            {"brain-tumor-roboflow"} if name == "exec-ingest" else set()
        )
        assert set(secrets) == wanted
        assert all(secret.optional for secret in secrets.values())
        gpu = kind_of(name) in NEEDS_GPU
        assert [taint.key for taint in config.tolerations] == (["nvidia.com/gpu"] if gpu else [])
        assert [mount.mount_path for mount in config.empty_dir_mounts] == (["/dev/shm"] if gpu else [])
        assert not config.pvc_mount, "the data are synthetic"
    for environment in _environments(target):
        assert environment["BRAIN_TUMOR_CHECKPOINTS"] == "s3://mlpipeline/brain-tumor/checkpoints"
        assert environment["AWS_ENDPOINT_URL_S3"] == "http://seaweedfs.kubeflow:9000"


@pytest.mark.parametrize("target", CLUSTERS)
def test_steps_are_retried_where_the_cluster_can_distinguish_failures(target: str) -> None:
    tasks = read_spec(golden(target)).root.dag.tasks.values()
    assert {task.retry_policy.max_retry_count for task in tasks} == {2}
    # A training of a day is retried, too.
    assert all(task.retry_policy.backoff_max_duration.seconds > 7 * 24 * 3600 for task in tasks)
    words = (TARGETS / f"{target}.yaml").read_text()
    assert "exit code 2" in words


def test_vertex_gets_one_document_without_retries() -> None:
    assert len(list(yaml.safe_load_all(golden("vertex").read_text()))) == 1
    assert not any(
        task.HasField("retry_policy") for task in read_spec(golden("vertex")).root.dag.tasks.values()
    )


@pytest.mark.parametrize("target", NAMES)
def test_the_parameter_about_sorts_first_and_no_step_reads_it(target: str) -> None:
    spec = read_spec(golden(target))
    assert min(spec.root.input_definitions.parameters) == "about"
    assert set(spec.root.input_definitions.parameters) == {"about", *configure([]).parameters()}
    read = {
        parameter.component_input_parameter
        for task in spec.root.dag.tasks.values()
        for parameter in task.inputs.parameters.values()
    }
    assert "about" not in read


@pytest.mark.parametrize("target", NAMES)
def test_curves_are_never_an_input(target: str) -> None:
    # Their points would be passed in one command-line argument, whose length is limited.
    spec = read_spec(golden(target))
    for name, component in spec.components.items():
        for key, artifact in component.input_definitions.artifacts.items():
            assert artifact.artifact_type.schema_title != "system.ClassificationMetrics", (name, key)


def _environments(target: str) -> list[dict[str, Any]]:
    executors = yaml.safe_load(next(iter(golden(target).read_text().split("\n---\n"))))["deploymentSpec"][
        "executors"
    ]
    return [
        {variable["name"]: variable["value"] for variable in executor["container"].get("env", [])}
        for executor in executors.values()
    ]
