"""A bucket for the tests: a storage emulator on loopback, spoken to by the real client."""

import logging
import socket
from collections.abc import Iterator

import pytest
from buckets import BUCKET
from gcp_storage_emulator.server import Server, create_server


@pytest.fixture(scope="session")
def storage_server() -> Iterator[tuple[Server, str]]:
    """The emulator and its address. Stopping it takes half a second, so it serves all tests."""
    # It logs each request in a thread of its own, to whatever a test's log went to that is closed by then.
    logging.getLogger("gcp_storage_emulator").setLevel(logging.WARNING)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with create_server("127.0.0.1", port, in_memory=True, default_bucket=BUCKET) as server:
        yield server, f"http://127.0.0.1:{port}"


@pytest.fixture
def emulator(storage_server: tuple[Server, str], monkeypatch: pytest.MonkeyPatch) -> Server:
    """The emulator, with an empty bucket gs://bucket. It needs no credentials."""
    server, address = storage_server
    server.wipe(keep_buckets=True)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
    return server
