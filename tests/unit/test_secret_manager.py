import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import google.auth
import pytest
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import DefaultCredentialsError

from brain_tumor.ingest.sources.secret_manager import read_secret
from brain_tumor.runtime.errors import InputError, UnavailableError

pytestmark = pytest.mark.slow

NAME = "projects/hospital/secrets/brain-tumor-roboflow/versions/latest"
KEY = "key-that-nobody-may-see"


class StandIn(HTTPServer):
    """A stand-in for Secret Manager with given responses."""

    status = 200
    answer: object = {"name": NAME, "payload": {"data": base64.b64encode(KEY.encode()).decode()}}
    asked: str = ""


class _Handler(BaseHTTPRequestHandler):
    server: StandIn

    def do_GET(self) -> None:
        self.server.asked = self.path
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(json.dumps(self.server.answer).encode())

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    # A real session, but without a token, which only Google could issue.
    monkeypatch.setattr(google.auth, "default", lambda scopes: (AnonymousCredentials(), "hospital"))
    with StandIn(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def address(server: StandIn) -> str:
    return f"http://127.0.0.1:{server.server_port}"


def test_a_secret_is_read(server: StandIn) -> None:
    assert read_secret(NAME, address(server)) == KEY
    assert server.asked == f"/v1/{NAME}:access"


@pytest.mark.parametrize(
    ("status", "advice"), [(403, "Secret Accessor"), (404, "gcloud secrets create"), (500, "later")]
)
def test_a_refusal_says_what_to_do(server: StandIn, status: int, advice: str) -> None:
    server.status = status
    with pytest.raises(InputError, match=rf"answered {status} for projects/hospital.*{advice}"):
        read_secret(NAME, address(server))


@pytest.mark.parametrize(("status", "passing"), [(403, False), (404, False), (500, True), (503, True)])
def test_a_failure_of_the_service_is_not_bad_input(server: StandIn, status: int, passing: bool) -> None:
    server.status = status
    with pytest.raises(InputError) as error:
        read_secret(NAME, address(server))
    assert isinstance(error.value, UnavailableError) == passing


def test_rejected_credentials_are_one_sentence(server: StandIn) -> None:
    server.status = 401
    with pytest.raises(InputError, match="needs Google credentials; sign in"):
        read_secret(NAME, address(server))


@pytest.mark.parametrize(
    "answer",
    [{}, [], {"payload": {"data": "!" + KEY}}, {"payload": {"data": base64.b64encode(b"\xff\xfe").decode()}}],
)
def test_an_invalid_secret_is_refused_without_being_shown(server: StandIn, answer: object) -> None:
    server.answer = answer
    with pytest.raises(InputError, match="is not text") as error:
        read_secret(NAME, address(server))
    assert KEY not in str(error.value)


def test_without_credentials_it_says_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def default(scopes: list[str]) -> None:
        raise DefaultCredentialsError("none")

    monkeypatch.setattr(google.auth, "default", default)
    with pytest.raises(InputError, match="needs Google credentials"):
        read_secret(NAME)


def test_an_unreachable_service_is_one_sentence(server: StandIn) -> None:
    with pytest.raises(InputError, match="did not answer"):
        read_secret(NAME, "http://127.0.0.1:9")
