"""Runs on Kubeflow Pipelines: submitted, followed and ended as on a cluster, with a stand-in for the server
(`kubeflow_standin.py`) and a real S3 server for its artifacts."""

import json
import os
import re
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from brain_tumor.runtime.errors import InputError
from brain_tumor.stores.files import hash_files
from pipelines.run import RunError, conclude, watch
from pipelines.runners import kubeflow
from pipelines.runners.kubeflow import KubeflowRunner
from pipelines.runners.outputs import Outputs
from pipelines.targets.target import load_target
from tests.pipelines.argo_standin import Fault
from tests.pipelines.cluster_results import Uploads
from tests.pipelines.cluster_runs import FINETUNE, begun, command, start
from tests.pipelines.kubeflow_standin import Kubeflow
from tests.pipelines.local_run import STEPS

pytestmark = pytest.mark.usefixtures("compiled")


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pods' states are read at each request, so that every reason for waiting is seen."""
    monkeypatch.setattr(kubeflow, "LOOK_AGAIN", 0.0)


def test_a_run_ends_as_a_local_one(
    server: Kubeflow, uploads: Uploads, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    artifacts = start(tmp_path, FINETUNE)
    said = capsys.readouterr()
    [play] = server.plays.values()
    link = f"http://127.0.0.1:8080/#/runs/details/{play.id}"
    name = play.body["display_name"]
    assert said.err.splitlines()[0] == f"{name}: {link}"
    assert set(begun(said.err)) == STEPS and len(begun(said.err)) == len(STEPS)
    # Each step ran for one moment of the stand-in; steps that ran at the same time are named.
    assert "        10.0 s" in said.err and "        train: baseline box: 10.0 s" in said.err
    assert re.search(r"^final  +1\.000  +0\.667 .* run of final$", said.out, re.MULTILINE)
    assert f"Report: {tmp_path}/reports/{name}.html" in said.out
    assert re.search(
        rf"^Data:   {tmp_path}/reports/{name}-data.html \(\d+ findings?\)$", said.out, re.MULTILINE
    )
    assert f"\nKubeflow: {link}\nMLflow: http://127.0.0.1:5001\nRun:    " in said.out
    steps = f"{len(STEPS)} steps run, 0 cached"
    assert re.search(rf"^Run:    {name}: {steps}, \d+\.\d s$", said.out, re.MULTILINE)
    for output in ("evaluation", "predictions"):
        assert hash_files(artifacts[output]) == hash_files(results / output)
    assert sorted(path.name for path in artifacts["dataset"].iterdir()) == ["images.parquet", "manifest.json"]
    assert (tmp_path / "reports" / f"{name}.html").read_bytes() == (results / "gallery").read_bytes()
    record = json.loads((tmp_path / "history" / f"{name}.json").read_text())
    assert (record["target"], record["run_id"], record["overrides"]) == ("kind", play.id, [FINETUNE])
    assert set(record["executed"]) == STEPS and record["overrides"] == [FINETUNE]
    assert record["addresses"] == {name: uploads.addresses[name] for name in record["addresses"]}
    [experiment] = server.experiments
    assert (experiment["display_name"], play.body["experiment_id"]) == (
        "brain-tumor",
        experiment["experiment_id"],
    )


def test_artifacts_taken_from_the_cache_are_found(
    server: Kubeflow, uploads: Uploads, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start(tmp_path)
    first = dict(uploads.addresses)
    start(tmp_path, FINETUNE)
    second = dict(uploads.addresses)
    assert second["evaluation"] != first["evaluation"] and second["dataset"] == first["dataset"]
    capsys.readouterr()
    # A run that executed no step, on a machine without records: its artifacts are those of the first run.
    artifacts = start(tmp_path / "new")
    said = capsys.readouterr()
    *cached, last = begun(said.err)
    assert cached and all(title.endswith(": cached") for title in cached) and last == "gate"
    assert f": 1 steps run, {len(STEPS) - 1} cached" in said.out and " run of final" in said.out
    assert artifacts["evaluation"].is_dir()
    assert not (tmp_path / "new" / "history").exists()
    records = [json.loads(path.read_text()) for path in (tmp_path / "history").iterdir()]
    third = max(records, key=lambda record: len(record["cached"]))
    assert "ingest" in third["cached"] and set(third["executed"]) == {
        "train: phase3 finetune",
        "evaluate",
        "curves: label0",
        "curves: label1",
        "curves: label2",
        "curves: all labels",
        "visualize",
        "gate",
    }
    assert third["addresses"]["dataset"] == first["dataset"]
    assert third["addresses"]["evaluation"] == second["evaluation"]


def test_what_was_taken_from_the_cache_is_found_among_runs_that_did_the_same(
    server: Kubeflow, uploads: Uploads, tmp_path: Path
) -> None:
    start(tmp_path)
    first, cache = dict(uploads.addresses), dict(server.cache)
    # As by a run without a cache, or two at once.
    server.cache.clear()
    start(tmp_path)
    assert uploads.addresses["dataset"] != first["dataset"]
    server.cache.clear()
    server.cache.update(cache)
    artifacts = start(tmp_path / "new")
    assert artifacts["gallery"].parent.name in first["gallery"]


def test_a_started_step_has_no_output_of_an_earlier_run() -> None:
    step = {"componentRef": {"name": "train"}}
    spec: Any = {
        "root": {"dag": {"tasks": {"train": step}}},
        "components": {
            "train": {"executorLabel": "train", "outputDefinitions": {"artifacts": {"model": {}}}}
        },
        "deploymentSpec": {"executors": {"train": {"container": {"image": "cpu"}}}},
    }

    def run_of(outputs: dict[str, str]) -> Any:
        done = SimpleNamespace(succeeded=True, image="cpu", parameters={}, inputs={}, outputs=outputs)
        return SimpleNamespace(executions={"train": done})

    earlier = [run_of({"model": "minio://b/earlier"})]
    cached: Any = SimpleNamespace(executions={})
    assert Outputs(spec, {}, cached, earlier).address("train", "model") == "minio://b/earlier"
    assert Outputs(spec, {}, run_of({}), earlier).address("train", "model") == ""


def test_a_cached_result_of_a_deleted_run_is_not_guessed(
    server: Kubeflow, uploads: Uploads, tmp_path: Path
) -> None:
    start(tmp_path)
    server.plays.clear()
    with pytest.raises(InputError, match=r"Where the run's evaluation lies is not known: .* caching: false"):
        start(tmp_path)


@pytest.mark.usefixtures("no_pause")
@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("ImagePullBackOff: Back-off pulling image", "its image cannot be pulled .*; push it"),
        (
            'CreateContainerConfigError: secret "x" not found',
            'a secret, .* missing .*"x" not found.*; create it',
        ),
        (
            "Unschedulable: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu. no new claims to "
            "deallocate, preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling.",
            "no node .*gpu.*; add one",
        ),
        (
            "Unschedulable: 0/1 nodes are available: 1 Insufficient nvidia.com/gpu. no new claims to "
            "deallocate, preemption: 0/1 nodes are available: 1 No preemption victims found for incoming "
            "pod.",
            "no node has room for it now .*; add a node if",
        ),
    ],
)
def test_a_pod_that_cannot_start_says_what_to_do(
    server: Kubeflow,
    uploads: Uploads,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    message: str,
    said: str,
) -> None:
    server.faults["build-tfrecords"] = Fault(message, waits=5)
    start(tmp_path)
    stderr = capsys.readouterr().err
    assert len(re.findall(rf"^        build TFRecords: waits.*: {said}", stderr, re.MULTILINE)) == 1
    # The stand-in's clock started long ago.
    assert "build TFRecords: pending for" not in stderr


@pytest.mark.usefixtures("no_pause")
def test_a_step_that_waits_for_another_ones_gpu_needs_no_action(
    server: Kubeflow, uploads: Uploads, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.faults["train"] = Fault("Unschedulable: 0/1 nodes: 1 Insufficient nvidia.com/gpu.", waits=1)
    start(tmp_path)
    stderr = capsys.readouterr().err
    assert "waits until another step ends: no node has room for it now (Unschedulable: 0/1 nodes" in stderr
    assert "add one" not in stderr


def test_a_long_wait_without_a_reason_names_the_command_to_find_it(
    server: Kubeflow, uploads: Uploads, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.faults["ingest"] = Fault("PodInitializing", waits=3)
    start(tmp_path)
    [play] = server.plays.values()
    pods = [node for node in play.nodes().values() if node["name"].endswith(".ingest(0).executor(0)")]
    pod = f"{play.name}-retry-system-container-impl-{pods[0]['id'].rsplit('-', 1)[-1]}"
    # The stand-in's clock started long ago.
    assert (
        f"ingest: pending for 2 minutes; kubectl describe pod -n kubeflow {pod} says why"
        in capsys.readouterr().err
    )


@pytest.mark.usefixtures("no_pause")
def test_a_run_that_waits_for_its_driver_names_the_command_to_find_out_why(
    server: Kubeflow, uploads: Uploads, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.faults["root-driver"] = Fault("PodInitializing", waits=4)
    start(tmp_path)
    said = re.findall(r"^        the run: pending for 2 minutes; kubectl .*", capsys.readouterr().err, re.M)
    assert len(said) == 1 and re.search(r"-n kubeflow brain-tumor-\S+-system-dag-driver-\d+ says", said[0])


def test_a_repeated_step_says_why(
    server: Kubeflow, uploads: Uploads, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    messages = "main: Error (exit code 1): s3://b/a: the bucket's service failed; try again.\n", "pod deleted"
    server.faults["ingest"] = Fault("", attempts=messages)
    start(tmp_path)
    stderr = capsys.readouterr().err
    first = "ingest: attempt 1 failed and is repeated: s3://b/a: the bucket's service failed; try again\n"
    assert stderr.count(first) == stderr.count("attempt 2 failed and is repeated: pod deleted\n") == 1


def test_a_failed_step_shows_the_end_of_its_log(server: Kubeflow, tmp_path: Path) -> None:
    log = "".join(f"line {number}\n" for number in range(40)) + "images/3.jpg is not an image; delete it.\n"
    server.faults["ingest"] = Fault("main: Error (exit code 2)", fails=True, log=log)
    process = command("pipelines.run", tmp_path)
    stdout, stderr = process.communicate()
    assert (process.returncode, stdout) == (1, "")
    [kept] = (tmp_path / "runs" / "logs").glob("*.log")
    assert kept.read_text() == log
    assert f"The step 'ingest' failed. The end of its log ({kept}):\n    line 16\n" in stderr
    assert re.search(r"    images/3.jpg is not an image; delete it\.\nKubeflow: http\S+\n.*", stderr)
    assert "Traceback" not in stderr
    assert not (tmp_path / "runs" / "history").exists()


@pytest.mark.parametrize(
    ("message", "log", "said"),
    [
        (
            "main: OOMKilled (exit code 137)",
            "epoch 1\n",
            "it was out of memory; give it more .*kind.yaml",
        ),
        (
            "main: Error (exit code 1): Bad input: x has no y; give it.\n",
            "I1128 launcher\n",
            "x has no y; give it.",
        ),
        (
            "main: Error (exit code 1): s3://b/a: the bucket's service failed; try again.\n",
            "I1128 launcher\n",
            "s3://b/a: the bucket's service failed; try again.",
        ),
        ("pod deleted", None, r"pod deleted; kubectl logs -c main -n kubeflow brain-tumor-\S+-\d+ may have"),
    ],
)
def test_a_killed_step_says_why(
    server: Kubeflow, tmp_path: Path, message: str, log: str | None, said: str
) -> None:
    server.faults["train-3"] = Fault(message, fails=True, log=log)
    with pytest.raises(RunError, match=f"^The step 'train: phase1 box' failed: .*{said}") as caught:
        start(tmp_path)
    assert caught.value.bad_input == ("Bad input" in message)


def test_a_run_whose_driver_fails_says_why(server: Kubeflow, tmp_path: Path) -> None:
    log = "F1129 main.go:79] KFP driver: failed to get the MLMD context: connection refused\n"
    server.faults["root-driver"] = Fault("main: Error (exit code 1)", fails=True, log=log)
    with pytest.raises(RunError, match=r"(?s)^A step failed\. The end of its log \(.*connection refused"):
        start(tmp_path)


def test_a_terminated_run_says_so(server: Kubeflow, tmp_path: Path) -> None:
    server.terminate_at = 8
    with pytest.raises(
        RunError, match=r"^The run was terminated at the step '.+'; the same command resumes the run"
    ):
        start(tmp_path)


def test_an_interrupted_run_continues_and_is_followed_to_the_same_end(
    server: Kubeflow, uploads: Uploads, tmp_path: Path
) -> None:
    server.faults["ingest"] = Fault("PodInitializing", waits=10_000)
    process = command("pipelines.run", tmp_path, FINETUNE)
    deadline = time.monotonic() + 60
    while not any(play.moment > 3 for play in server.plays.values()) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate()
    [play] = server.plays.values()
    name = play.body["display_name"]
    assert (process.returncode, stdout) == (130, "")
    assert (
        f"Interrupted; the run {name} continues; make pipeline-follow TARGET=kind RUN={name} follows"
        in stderr
    )
    assert play.state == "RUNNING" and len(server.plays) == 1

    play.faults.clear()
    process = command("pipelines.follow", tmp_path / "elsewhere", name)
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr
    assert set(begun(stderr)) == STEPS
    assert " run of final" in stdout and f"{name}: {len(STEPS)} steps run, 0 cached" in stdout
    record = json.loads((tmp_path / "elsewhere" / "runs" / "history" / f"{name}.json").read_text())
    assert record["overrides"] == [FINETUNE] and record["run_id"] == play.id


def test_a_run_is_found_by_its_id_and_by_its_name(
    server: Kubeflow, uploads: Uploads, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start(tmp_path)
    [play] = server.plays.values()
    first = capsys.readouterr().out
    for key in (play.id, play.body["display_name"]):
        runner = KubeflowRunner()
        found, started = runner.attach(key, load_target("kind"), tmp_path / "other")
        conclude(found, *watch(found, runner), started)
        again = capsys.readouterr().out
        assert again.partition("Report:")[0] == first.partition("Report:")[0]
        # By the server's clock, independent of the time of the request.
        assert f", {play.moment * 10:.1f} s" in again
    for key in ("other", "01234567-0123-0123-0123-0123456789ab"):
        with pytest.raises(InputError, match=f"There is no run {key} in Kubeflow Pipelines at"):
            KubeflowRunner().attach(key, load_target("kind"), tmp_path)


def test_a_store_that_cannot_be_read_loses_nothing(
    server: Kubeflow, uploads: Uploads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(
        InputError, match=r"The run has succeeded, but s3://mlpipeline/.* port-forward"
    ) as caught:
        start(tmp_path)
    assert "make pipeline-follow TARGET=kind RUN=" in str(caught.value)
    assert os.environ["AWS_ACCESS_KEY_ID"] not in str(caught.value)


def test_without_keys_the_result_comes_through_the_dashboard(
    server: Kubeflow,
    uploads: Uploads,
    results: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KF_PIPELINES_UI_ENDPOINT", server.host)
    server.objects = uploads.objects
    artifacts = start(tmp_path)
    for output in ("evaluation", "predictions"):
        assert hash_files(artifacts[output]) == hash_files(results / output)
    assert sorted(path.name for path in artifacts["dataset"].iterdir()) == ["images.parquet", "manifest.json"]
    assert " run of final" in capsys.readouterr().out

    del server.objects[uploads.addresses["gallery"].removeprefix("minio://mlpipeline/")]
    with pytest.raises(
        InputError, match=r"There is nothing at minio://mlpipeline/.*/gallery, where the run's"
    ):
        start(tmp_path)


def test_a_result_that_could_not_be_read_is_told_before_the_run(
    server: Kubeflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(InputError, match=r"AWS_ENDPOINT_URL is set, but no key\. It is in the cluster's own"):
        start(tmp_path)
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setenv("KF_PIPELINES_UI_ENDPOINT", f"{server.host}/nothing")
    with pytest.raises(InputError, match=r"no dashboard at http://\S+/nothing\. .* svc/ml-pipeline-ui"):
        start(tmp_path)
    assert not server.plays
