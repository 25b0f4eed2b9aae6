"""A stand-in for Vertex AI Pipelines on loopback, since tests have no account.

It implements the REST form of the service's API strictly, with the messages of Google's own library. Its runs
are in `argo_standin.py`, since a run's steps pass through the same stages there. The wording of the real
service's errors is unknown.
"""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from google.cloud.aiplatform_v1.types import PipelineJob
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from tests.pipelines.argo_standin import BEGIN, Fault, Play
from tests.pipelines.http_standin import Answer, serve

PARENT = r"/v1/(projects/project-example/locations/europe-west4)/pipelineJobs"
STATES = {"driver": "PENDING", "Pending": "PENDING", "Running": "RUNNING", "Succeeded": "SUCCEEDED"}
STATES |= {"Skipped": "SKIPPED", "Failed": "FAILED"}


class Vertex:
    """The stand-in. See the module.

    Attributes:
        address: Its address.
        jobs: The requests for its runs with the runs, by the runs' names.
        faults: Faults of steps of future runs.
        refusals: Error statuses to respond with, by method.
        cancel_at: The moment at which future runs are cancelled.
        results: The folder with the outputs of its runs.
        addresses: The addresses to which they were uploaded.
    """

    def __init__(self) -> None:
        self.address = ""
        self.jobs: dict[str, tuple[Any, Play]] = {}
        self.faults: dict[str, Fault] = {}
        self.refusals: dict[str, list[int]] = {}
        self.cancel_at = 0
        self.results = Path()
        self.addresses: dict[str, str] = {}
        self.cache: dict[str, dict[str, str]] = {}
        self.store: Callable[[str, str, str], None] = lambda task, output, uri: None

    def serve(self, method: str, target: str, headers: dict[str, str], body: bytes) -> Answer:
        """Answers a request."""
        url = urlsplit(target)
        if self.refusals.get(method):
            return _refusal(self.refusals[method].pop(0))
        if method == "POST" and (found := re.fullmatch(PARENT, url.path)):
            [job_id] = parse_qs(url.query)["pipelineJobId"]
            return Answer(self._create(f"{found[1]}/pipelineJobs/{job_id}", body))
        name = url.path.removeprefix("/v1/")
        if method == "GET" and name in self.jobs:
            job, play = self.jobs[name]
            play.advance()
            return Answer(self._answer(name, job, play))
        return _refusal(404)

    def _create(self, name: str, body: bytes) -> str:
        job = json_format.Parse(body, PipelineJob()._pb)
        content = json_format.MessageToDict(job.pipeline_spec)
        spec = json_format.ParseDict(content, pipeline_spec_pb2.PipelineSpec())
        config = job.runtime_config
        parameters = {key: value.string_value for key, value in config.parameter_values.items()}
        assert set(parameters) == set(spec.root.input_definitions.parameters)
        given = {"parameters": parameters, "pipeline_root": config.gcs_output_directory}
        play = Play(
            {"runtime_config": given}, spec, self.cache, dict(self.faults), self.store, self.cancel_at
        )
        self.jobs[name] = job, play
        return self._answer(name, job, play)

    def _answer(self, name: str, job: Any, play: Play) -> str:
        state = {"CANCELING": "CANCELLING"}.get(play.state, play.state)
        if state == "FAILED" and self.cancel_at:
            state = "CANCELLED"
        answer = json_format.MessageToDict(job)
        details = [self._details(task, play) for task in play.stages]
        answer |= {
            "name": name,
            "state": f"PIPELINE_STATE_{state}",
            "createTime": _iso(BEGIN),
            "jobDetail": {"taskDetails": details},
        }
        if state in ("SUCCEEDED", "FAILED", "CANCELLED"):
            answer["endTime"] = _iso(play.now)
        if state == "FAILED":
            answer["error"] = {"code": 9, "message": "The DAG failed because some tasks failed."}
        json_format.ParseDict(answer, PipelineJob()._pb)
        return json.dumps(answer)

    def _details(self, task: str, play: Play) -> dict[str, Any]:
        last, times = play.stages[task][-1], play.times[task]
        outputs = play.outputs.get(task, {}) if last in ("Succeeded", "Skipped") else {}
        fault = play.faults.get(task, Fault(""))
        job = "projects/project-example/locations/europe-west4/customJobs/4711"
        return {
            "taskName": task,
            "state": STATES[last],
            "startTime": _iso(times.get("Running", times["driver"])),
            **({"endTime": _iso(times[last])} if outputs or last == "Failed" else {}),
            "executorDetail": {"containerDetail": {"mainJob": job}},
            "outputs": {name: {"artifacts": [{"uri": uri}]} for name, uri in outputs.items()},
            **({"error": {"code": 9, "message": fault.message}} if last == "Failed" else {}),
        }


@contextmanager
def serve_vertex() -> Iterator[Vertex]:
    """Runs the stand-in."""
    vertex = Vertex()
    with serve(vertex.serve) as vertex.address:
        yield vertex


def _refusal(status: int) -> Answer:
    error = {"code": status, "message": f"Failed with {status}", "status": "X"}
    return Answer(json.dumps({"error": error}), status)


def _iso(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")
