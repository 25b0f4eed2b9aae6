"""A stand-in for Kubeflow Pipelines 2.17.0 on loopback, since tests have no cluster.

It runs nothing. It validates requests strictly by the published models (`kfp_server_api`) and messages
(`PipelineSpec`), and responds as the API server does (at 2.17.0:
backend/src/apiserver/server/api_converter.go, run_log_server.go). Its runs are in `argo_standin.py`.
"""

import io
import json
import re
import tarfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kfp_server_api.models as models
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from tests.pipelines.argo_standin import Fault, Play
from tests.pipelines.http_standin import Answer, serve

CODES = {400: 3, 401: 16, 403: 7, 404: 5, 409: 6, 500: 13, 503: 14}
LISTS = {"page_token", "page_size", "sort_by", "filter", "namespace"}


class RefusedError(Exception):
    """A response with an error status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Kubeflow:
    """The stand-in. See the module.

    Attributes:
        host: Its address.
        plays: Its runs, by their ids.
        requests: The requests received, with headers.
        faults: Faults of steps of future runs, by their names in the pipeline.
        refusals: Error statuses to respond with, by a pattern of method and path, and how often.
        token: The required token, if any.
        login: Whether clients without a cookie are redirected to a login page.
        multi_user: Whether it has several users.
        terminate_at: The moment at which future runs are terminated.
        objects: The files of its object store that its dashboard gives, by their keys.
    """

    def __init__(self) -> None:
        self.host = ""
        self.plays: dict[str, Play] = {}
        self.experiments: list[dict[str, Any]] = []
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.faults: dict[str, Fault] = {}
        self.refusals: dict[str, list[int]] = {}
        self.token = ""
        self.login = self.multi_user = False
        self.terminate_at = 0
        self.cache: dict[str, dict[str, str]] = {}
        self.objects: dict[str, bytes] = {}
        self.store: Callable[[str, str, str], None] = lambda task, output, uri: None

    def serve(self, method: str, target: str, headers: dict[str, str], body: bytes) -> Answer:
        """Answers a request."""
        try:
            return self._take(method, target, headers, body)
        except RefusedError as error:
            code, said = CODES.get(error.status, 2), str(error)
            content = json.dumps({"error": said, "code": code, "message": said, "details": []})
            location = {"location": said} if error.status == 302 else {}
            return Answer(content, error.status, {"content-type": "application/json", **location})

    def _take(self, method: str, target: str, headers: dict[str, str], body: bytes) -> Answer:
        self.requests.append((method, target, headers))
        if self.login and "authservice_session=secret" not in headers.get("cookie", ""):
            raise RefusedError(302, "/dex/auth")
        if self.token and headers.get("authorization") != f"Bearer {self.token}":
            raise RefusedError(401, "Request header error: there is no user identity header.")
        for pattern, statuses in self.refusals.items():
            if statuses and re.match(pattern, f"{method} {target}"):
                status = statuses.pop(0)
                raise RefusedError(status, f"Failed with {status}")
        url = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if found := re.fullmatch(r"/apis/v1alpha1/runs/([\w-]+)/nodes/([\w-]+)/log", url.path):
            return Answer(self._log(*found.groups()), headers={"content-type": "text/plain"})
        if url.path == "/artifacts/get":
            return self._artifact(query)
        content = json.loads(body) if body else None
        return Answer(json.dumps(self._answer(method, url.path, query, content)))

    def _answer(self, method: str, path: str, query: dict[str, str], content: Any) -> Any:
        match method, path.removeprefix("/apis/").split("/"):
            case "GET", ["v2beta1", "healthz"]:
                return {"commit_sha": "unknown", "tag_name": "2.17.0", "multi_user": self.multi_user}
            case "GET", ["v2beta1", "experiments"]:
                return {"experiments": self._listed(self.experiments, query, LISTS)}
            case "POST", ["v2beta1", "experiments"]:
                return self._create_experiment(content)
            case "GET", ["v2beta1", "runs"]:
                answers = [play.answer() for play in reversed(self.plays.values())]
                return {"runs": self._listed(answers, query, LISTS | {"experiment_id"})}
            case "POST", ["v2beta1", "runs"]:
                return self._create_run(content)
            case "GET", [version, "runs", run_id]:
                if run_id not in self.plays:
                    raise RefusedError(404, f"Run {run_id} not found")
                play = self.plays[run_id]
                if version == "v2beta1":
                    play.advance()
                    return play.answer()
                return {"run": {"id": run_id}, "pipeline_runtime": {"workflow_manifest": play.manifest()}}
        raise RefusedError(404, "Not Found")

    def _listed(self, items: list[dict[str, Any]], query: dict[str, str], known: set[str]) -> list[Any]:
        if unknown := set(query) - known:
            raise RefusedError(400, f"unknown parameters {unknown}")
        wanted = json.loads(query.get("filter", '{"predicates": []}'))
        check(wanted, "V2beta1Filter")
        for predicate in wanted["predicates"]:
            items = [item for item in items if item[predicate["key"]] == predicate["string_value"]]
        if self.multi_user and not query.get("namespace"):
            raise RefusedError(400, "Invalid resource references for experiment. Namespace is empty.")
        return items[: int(query.get("page_size", 10))]

    def _create_experiment(self, content: Any) -> Any:
        check(content, "V2beta1Experiment")
        if self.multi_user and not content.get("namespace"):
            raise RefusedError(400, "An experiment cannot have an empty namespace in multi-user mode")
        made = {**content, "experiment_id": str(uuid.uuid4())}
        self.experiments.append(made)
        return made

    def _create_run(self, content: Any) -> Any:
        check(content, "V2beta1Run")
        if content["experiment_id"] not in [each["experiment_id"] for each in self.experiments]:
            raise RefusedError(404, "Experiment not found")
        given = content["pipeline_spec"]
        try:
            spec = json_format.ParseDict(given.get("pipeline_spec", given), pipeline_spec_pb2.PipelineSpec())
            json_format.ParseDict(given.get("platform_spec", {}), pipeline_spec_pb2.PlatformSpec())
        except json_format.ParseError as error:
            raise RefusedError(400, str(error)) from None
        parameters = set(content["runtime_config"]["parameters"])
        if parameters != set(spec.root.input_definitions.parameters):
            raise RefusedError(400, f"parameters {parameters ^ set(spec.root.input_definitions.parameters)}")
        play = Play(content, spec, self.cache, dict(self.faults), self.store, self.terminate_at)
        self.plays[play.id] = play
        return play.answer()

    def _artifact(self, query: dict[str, str]) -> Answer:
        """What the dashboard answers (frontend/server/handlers/artifacts.ts)."""
        if "source" not in query:
            raise RefusedError(500, "Storage source is missing from artifact request")
        assert (query["source"], query["bucket"]) == ("minio", "mlpipeline")
        key = query["key"]
        if key in self.objects:
            return Answer(self.objects[key], headers={})
        below = {name.removeprefix(f"{key}/"): name for name in self.objects if name.startswith(f"{key}/")}
        if not below:
            raise RefusedError(404, f"No objects found at mlpipeline/{key}")
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            for name, whole in below.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(self.objects[whole])
                archive.addfile(entry, io.BytesIO(self.objects[whole]))
        return Answer(packed.getvalue(), headers={})

    def _log(self, run_id: str, pod: str) -> str:
        log = self.plays[run_id].log_of(pod)
        if log is None:  # the status 200 is already sent
            return json.dumps({"error_message": f"failed to read logs from pod {pod}"}, separators=(",", ":"))
        return log


def check(value: Any, kind: str) -> None:
    """Rejects values that do not match a published model: other types, unknown fields.

    Raises:
        RefusedError: It does not match.
    """
    if kind.startswith("list["):
        for item in value:
            check(item, kind[5:-1])
        return
    known = {"str": str, "int": int, "bool": bool, "object": object, "datetime": str}
    if kind.startswith("dict("):
        return
    if kind in known:
        if not isinstance(value, known[kind]):
            raise RefusedError(400, f"proto: {value!r} is not a {kind}")
        return
    model = getattr(models, kind)
    if hasattr(model, "allowable_values") and not model.attribute_map:
        if value not in model.allowable_values:
            raise RefusedError(400, f"proto: {value!r} is not a {kind}")
        return
    kinds = {model.attribute_map[name]: each for name, each in model.openapi_types.items()}
    for name, item in value.items():
        if name not in kinds:
            raise RefusedError(400, f'proto: unknown field "{name}" of {kind}')
        check(item, kinds[name])


@contextmanager
def serve_kubeflow() -> Iterator[Kubeflow]:
    """Runs the stand-in."""
    kubeflow = Kubeflow()
    with serve(kubeflow.serve) as kubeflow.host:
        yield kubeflow
