"""Buckets for the tests, one of each store, with methods to inspect and damage them."""

import json
import logging
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

import boto3
from gcp_storage_emulator.server import Server, create_server

NAME = "bucket"
READY_SECONDS = 60


class Bucket(Protocol):
    """The operations that both have."""

    address: str

    def empty(self) -> None:
        """Deletes all objects."""

    def put(self, name: str, content: bytes) -> None:
        """Uploads an object."""

    def names(self) -> list[str]:
        """The objects' names, sorted."""

    def read(self, name: str) -> bytes:
        """An object's bytes."""

    def delete(self, name: str) -> None:
        """Deletes an object."""


class GoogleBucket:
    """A bucket of an emulator, whose internals are accessible."""

    address = f"gs://{NAME}"

    def __init__(self, server: Server, endpoint: str) -> None:
        self.endpoint = endpoint
        self.storage = server._storage
        self._server = server

    def empty(self) -> None:
        self._server.wipe(keep_buckets=True)

    def put(self, name: str, content: bytes) -> None:
        from google.cloud import storage

        storage.Client(project=None).bucket(NAME).blob(name).upload_from_string(content)

    def names(self) -> list[str]:
        return sorted(self.names_by_age())

    def read(self, name: str) -> bytes:
        content: bytes = self.storage.get_file(NAME, name)
        return content

    def delete(self, name: str) -> None:
        self.storage.delete_file(NAME, name)

    def names_by_age(self) -> list[str]:
        """The objects' names in order of creation."""
        return list(self.storage.objects.get(NAME, {}))

    def damage(self, name: str) -> None:
        """Changes an object's first byte but not its checksum, like a failing disk."""
        content = self.read(name)
        self.storage._store.write_bytes(f"{NAME}/{name}", bytes([content[0] ^ 1]) + content[1:])

    def forget_contents(self) -> None:
        """Deletes the objects' bytes, but keeps their listing."""
        for name in self.names():
            self.storage._store.remove_file(f"{NAME}/{name}")

    def add_name(self, name: str, like: str) -> None:
        """Lists an object under a name that the emulator rejects but the real service accepts."""
        objects = self.storage.objects[NAME]
        objects[name] = {**objects[like], "name": name}


class S3Bucket:
    """A bucket of a real server at its own endpoint."""

    address = f"s3://{NAME}"
    key, secret = "tests", "the-tests-secret"
    reader_key, reader_secret = "reader", "the-readers-secret"

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.client: Any = boto3.client(
            "s3",
            endpoint_url=endpoint,
            aws_access_key_id=self.key,
            aws_secret_access_key=self.secret,
        )

    def environment(self) -> dict[str, str]:
        """The environment variables to use it."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
        }

    def empty(self) -> None:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(self.delete, self.names()))

    def put(self, name: str, content: bytes) -> None:
        self.client.put_object(Bucket=NAME, Key=name, Body=content)

    def names(self) -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=NAME)
        return sorted(each["Key"] for page in pages for each in page.get("Contents", []))

    def read(self, name: str) -> bytes:
        content: bytes = self.client.get_object(Bucket=NAME, Key=name)["Body"].read()
        return content

    def delete(self, name: str) -> None:
        self.client.delete_object(Bucket=NAME, Key=name)


@contextmanager
def serve_google() -> Iterator[GoogleBucket]:
    """Google Cloud Storage, emulated in memory."""
    # It logs each request in a separate thread, to a stream of a test that may be closed by then.
    logging.getLogger("gcp_storage_emulator").setLevel(logging.WARNING)
    [port] = free_ports(1)
    with create_server("127.0.0.1", port, in_memory=True, default_bucket=NAME) as server:
        yield GoogleBucket(server, f"http://127.0.0.1:{port}")


@contextmanager
def serve_s3(folder: Path) -> Iterator[S3Bucket]:
    """SeaweedFS, with one user with all rights and one who may only read."""
    users = [
        (S3Bucket.key, S3Bucket.secret, ["Admin", "Read", "Write", "List"]),
        (S3Bucket.reader_key, S3Bucket.reader_secret, ["Read", "List"]),
    ]
    identities = [
        {"name": key, "credentials": [{"accessKey": key, "secretKey": secret}], "actions": actions}
        for key, secret, actions in users
    ]
    (folder / "s3.json").write_text(json.dumps({"identities": identities}))
    names = [f"{part}.port{kind}" for part in ("master", "volume", "filer", "s3") for kind in ("", ".grpc")]
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    options = {
        **ports,
        "s3.port.iceberg": 0,
        "dir": folder,
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "s3.config": folder / "s3.json",
        "s3.iam": "false",
        "master.volumeSizeLimitMB": 64,
        # Deleted objects still take space, and some of the tests' models have 100 MB.
        "volume.max": 100,
    }
    command = [Path(sys.executable).with_name("weed"), "server", "-filer", "-s3"]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            [*map(str, command), *(f"-{name}={value}" for name, value in options.items())],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_for(f"http://127.0.0.1:{ports['s3.port']}/healthz", process, folder / "log")
        bucket = S3Bucket(f"http://127.0.0.1:{ports['s3.port']}")
        bucket.client.create_bucket(Bucket=NAME)
        yield bucket
    finally:
        # A clean shutdown would take ten seconds, and the data are not needed.
        process.kill()
        process.wait()
        for port in ports.values():
            for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                left.unlink()


def wait_for(
    address: str, process: subprocess.Popen[bytes], log: Path, seconds: float = READY_SECONDS
) -> None:
    """Waits until a server responds.

    Raises:
        RuntimeError: It ended, or does not respond in time.
    """
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(address, timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"The server of {address} did not start:\n{log.read_text()[-2000:]}")


def free_ports(count: int) -> list[int]:
    """Free ports."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
