"""A service on loopback with Roboflow's API, which fails as requested."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

KEY = "rfSecretKey0123456789"
SIGNATURE = "SignedLinkSecret9876543210"

Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Responds to requests for an export's link, and for the download at that link."""

    server: "Service"

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        query = parse_qs(address.query)
        if address.path == "/signed/export.zip":
            self.server.downloads.append(query)
            turn, answers = len(self.server.downloads), self.server.on_download
        else:
            self.server.questions.append((address.path, query))
            turn, answers = len(self.server.questions), self.server.on_question
        answers[min(turn, len(answers)) - 1](self)

    def send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Logs nothing, so that a test's output is only the client's."""


class Service(ThreadingHTTPServer):
    """The service.

    Attributes:
        on_question: The responses to the first, second, ... request for the link; the last one is repeated.
        on_download: The same for downloads.
        questions: Path and query of each request for the link.
        downloads: Query of each download.
    """

    daemon_threads = True

    def __init__(self, archive: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.on_question: list[Answer] = [link]
        self.on_download: list[Answer] = [whole(archive)]
        self.questions: list[tuple[str, dict[str, list[str]]]] = []
        self.downloads: list[dict[str, list[str]]] = []

    def __enter__(self) -> "Service":
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.shutdown()
        self.server_close()


def link(handler: Handler) -> None:
    """The link of an export that is ready."""
    address = f"{handler.server.address}/signed/export.zip?X-Goog-Signature={SIGNATURE}"
    handler.send(200, json.dumps({"export": {"format": "tensorflow", "link": address}}).encode())


def status(code: int) -> Answer:
    """An error response, which repeats the request as a careless service does."""
    return lambda handler: handler.send(
        code, json.dumps({"error": {"message": f"{code} {handler.path}"}}).encode()
    )


def text(content: str) -> Answer:
    """Another response, with status 200."""
    return lambda handler: handler.send(200, content.encode(), Content_Type="text/html")


def whole(content: bytes) -> Answer:
    """A file."""
    return lambda handler: handler.send(200, content)


def hashed(content: bytes, told: str) -> Answer:
    """A file, with the checksum headers of Google's storage."""
    return lambda handler: handler.send(200, content, x_goog_hash=told)


def cut(content: bytes) -> Answer:
    """A connection that breaks off half-way."""

    def answer(handler: Handler) -> None:
        handler.send(200, content[: len(content) // 2], Content_Length=str(len(content)))
        handler.close_connection = True

    return answer


def cut_chunked(content: bytes) -> Answer:
    """The same without an announced length."""

    def answer(handler: Handler) -> None:
        handler.protocol_version = "HTTP/1.1"
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(content), content[: len(content) // 2]))
        handler.close_connection = True

    return answer


def redirect(address: str) -> Answer:
    """Redirects the client."""
    return lambda handler: handler.send(302, b"", Location=address)


def hang_up(handler: Handler) -> None:
    """No response at all."""
    handler.close_connection = True


def malformed_headers(answer: Answer) -> Answer:
    """A complete response with a broken header, about which urllib3 logs a warning with the address."""

    def broken(handler: Handler) -> None:
        handler.send_response(200)
        handler.flush_headers()
        handler.wfile.write(b"no header\r\n")
        handler.send_response = lambda *_: None  # type: ignore[method-assign]
        answer(handler)

    return broken
