"""What tests look up and break in the emulated bucket."""

from typing import Any

from gcp_storage_emulator.server import Server

BUCKET = "bucket"


def object_names(emulator: Server) -> list[str]:
    """The bucket's objects in the order in which they appeared."""
    return list(emulator._storage.objects.get(BUCKET, {}))


def put(name: str, content: bytes) -> None:
    """Uploads an object, with the real client."""
    from google.cloud import storage

    storage.Client(project=None).bucket(BUCKET).blob(name).upload_from_string(content)


def read(emulator: Server, name: str) -> Any:
    """An object's bytes."""
    return emulator._storage.get_file(BUCKET, name)


def damage(emulator: Server, name: str) -> None:
    """Changes an object's first byte, not its checksum, as a failing disk does."""
    content = read(emulator, name)
    emulator._storage._store.write_bytes(f"{BUCKET}/{name}", bytes([content[0] ^ 1]) + content[1:])


def add_name(emulator: Server, name: str, like: str) -> None:
    """Lists an object under a name that the emulator itself would refuse, and the real service does not."""
    objects = emulator._storage.objects[BUCKET]
    objects[name] = {**objects[like], "name": name}
