"""Runs on Vertex AI: submitted and followed by Google's own library, with a stand-in for the service
(`vertex_standin.py`) and an emulator of its storage. Without the library (requirements/vertex.txt), all tests
here but one are skipped."""

import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from brain_tumor.runtime.errors import InputError
from brain_tumor.stores.files import hash_files
from pipelines.run import RunError, conclude, run, watch
from pipelines.runners import remote, vertex
from pipelines.runners.vertex import VertexRunner
from pipelines.targets.target import Target, load_target
from tests.pipelines.argo_standin import Fault
from tests.pipelines.cluster_results import files_below, make_results
from tests.pipelines.local_run import STEPS
from tests.pipelines.renew_golden import golden
from tests.unit.buckets import GoogleBucket

if TYPE_CHECKING:  # these imports need the library
    from tests.pipelines.vertex_standin import Vertex

OVERRIDE = "phases.phase3_finetune.learning_rate=1e-4"
CONSOLE = (
    "https://console.cloud.google.com/vertex-ai/locations/europe-west4/pipelines/runs/brain-tumor-phase3"
)


@pytest.fixture(autouse=True)
def compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces compiling by a copy: under pytest it takes seconds (kfp reads stacks)."""

    def copy(*given: object) -> None:
        path = Path(str(given[-1]))
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(golden("vertex"), path)

    monkeypatch.setattr("pipelines.run.compile_pipeline", copy)


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch) -> Target:
    given = {"REGISTRY": "registry.example/team", "BUCKET": "gs://bucket", "SERVICE_ACCOUNT": "steps@example"}
    for name, value in {**given, "GOOGLE_CLOUD_PROJECT": "project-example"}.items():
        monkeypatch.setenv(name, value)
    return load_target("vertex")


@pytest.fixture
def service(
    google_bucket: GoogleBucket,
    tmp_path_factory: pytest.TempPathFactory,
    tiny_dataset: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator["Vertex"]:
    """The stand-in, to which Google's library connects; its steps upload to `google_bucket`."""
    aiplatform = pytest.importorskip("google.cloud.aiplatform")
    from google.oauth2.credentials import Credentials

    from tests.pipelines.vertex_standin import serve_vertex

    results = make_results(tmp_path_factory.mktemp("results"), tiny_dataset)
    addresses: dict[str, str] = {}

    def upload(task: str, output: str, address: str) -> None:
        addresses[output] = address
        if (results / output).exists():
            for name, content in files_below(results / output).items():
                google_bucket.put(address.removeprefix("gs://bucket/") + name, content)

    monkeypatch.setattr(vertex, "POLL", 0.002)
    # The library asks Google for the bucket's owner.
    made = "create_gcs_bucket_for_pipeline_artifacts_if_it_does_not_exist"
    monkeypatch.setattr(aiplatform.utils.gcs_utils, made, lambda **given: None)
    with serve_vertex() as service:
        service.store = upload
        service.results, service.addresses = results, addresses
        aiplatform.init(
            api_endpoint=service.address, api_transport="rest", credentials=Credentials(token="token")
        )
        yield service


def test_a_run_ends_as_a_local_one(
    service: "Vertex", target: Target, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    artifacts = run([OVERRIDE], tmp_path, target)
    said = capsys.readouterr()
    [(name, (job, play))] = service.jobs.items()
    assert name.endswith(f"/pipelineJobs/brain-tumor-{job.display_name.replace('=', '-')}")
    assert job.service_account == "steps@example"
    assert job.runtime_config.gcs_output_directory == "gs://bucket/brain-tumor/pipelines"
    assert said.err.startswith(f"{job.display_name}: {CONSOLE}")
    assert re.search(r"^final  +1\.000  +0\.667 .* run of final$", said.out, re.MULTILINE)
    assert re.search(rf"^Vertex: {CONSOLE}\S+\?project=project-example$", said.out, re.MULTILINE)
    assert f": {len(STEPS)} steps run, 0 cached, {play.moment * 10:.1f} s\n" in said.out
    for output in ("evaluation", "predictions"):
        assert hash_files(artifacts[output]) == hash_files(service.results / output)
    record = json.loads((tmp_path / "history" / f"{job.display_name}.json").read_text())
    assert (record["target"], record["run_id"]) == ("vertex", name)
    assert record["addresses"]["evaluation"] == service.addresses["evaluation"]

    # Again: everything but the gate from the cache, and the first run by its name.
    again = run([OVERRIDE], tmp_path, target)
    assert hash_files(again["evaluation"]) == hash_files(service.results / "evaluation")
    assert f": 1 steps run, {len(STEPS) - 1} cached" in capsys.readouterr().out
    runner = VertexRunner()
    found, started = runner.attach(job.display_name, target, tmp_path / "other")
    assert found.overrides == [OVERRIDE]
    conclude(found, *watch(found, runner), started)
    assert capsys.readouterr().out.partition("Report:")[0] == said.out.partition("Report:")[0]


def test_a_failed_step_names_the_address_of_its_log(
    service: "Vertex", target: Target, tmp_path: Path
) -> None:
    service.faults["build-tfrecords"] = Fault("The replica workerpool0-0 exited with 2.", fails=True)
    with pytest.raises(RunError) as caught:
        run([OVERRIDE], tmp_path, target)
    lines = str(caught.value).splitlines()
    assert lines[0] == "The step 'build TFRecords' failed: The replica workerpool0-0 exited with 2."
    query = "query;query=resource.labels.job_id%3D%224711%22?project=project-example"
    assert lines[1] == f"Log: https://console.cloud.google.com/logs/{query}"
    assert lines[2].startswith(f"Vertex: {CONSOLE}")


def test_a_cancelled_run_says_so(service: "Vertex", target: Target, tmp_path: Path) -> None:
    service.cancel_at = 8
    with pytest.raises(RunError, match=r"^The run was cancelled at the step '.+'; the same command resumes"):
        run([], tmp_path, target)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (400, r"Vertex AI does not take this \(.*Failed with 400\); correct it\."),
        (401, r"Google does not accept these credentials \(\w+\); log in again\."),
        (403, r"Vertex AI refuses this in project project-example, .* \(.*Failed with 403\); enable its API"),
        (404, r"There is no such project, region or service account in Vertex AI \(project project-example,"),
        (500, r"Vertex AI does not answer \(InternalServerError\); try again\."),
    ],
)
def test_an_error_before_anything_ran_is_one_sentence(
    service: "Vertex", target: Target, tmp_path: Path, status: int, said: str
) -> None:
    service.refusals["POST"] = [status]
    with pytest.raises(InputError, match=said):
        run([], tmp_path, target)
    assert not service.jobs


def test_a_temporarily_unavailable_service_is_waited_for(
    service: "Vertex",
    target: Target,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # After other failures the library itself retries for two minutes.
    service.refusals["GET"] = [504, 504]
    service.cancel_at = 4
    with pytest.raises(RunError, match="cancelled"):
        run([], tmp_path, target)
    assert capsys.readouterr().err.count("Trying again.") == 1
    monkeypatch.setattr(remote, "PATIENCE", 0.01)
    service.refusals["GET"] = [504] * 99
    with pytest.raises(InputError, match=r"does not answer .* make pipeline-follow TARGET=vertex RUN="):
        run([], tmp_path, target)


def test_an_unknown_run_is_named(service: "Vertex", target: Target, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no run other in Vertex AI"):
        VertexRunner().attach("other", target, tmp_path)


def test_without_googles_library_it_says_what_to_install(
    target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import google.cloud

    monkeypatch.setitem(sys.modules, "google.cloud.aiplatform", None)
    monkeypatch.delattr(google.cloud, "aiplatform", raising=False)
    with pytest.raises(InputError, match=r"pip install --require-hashes -r requirements/vertex\.txt"):
        run([], tmp_path, target)
