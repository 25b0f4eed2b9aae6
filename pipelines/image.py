"""The tag of the steps' images: `python -m pipelines.image` prints it."""

import hashlib
from pathlib import Path

from brain_tumor.stores.locations import fingerprint

ROOT = Path(__file__).resolve().parent.parent
# The content that the images are built from, without bytecode caches.
SOURCES = ("src", "images", "requirements/data.txt", "requirements/cpu.txt", "requirements/gpu.txt")


def image_tag(root: Path = ROOT) -> str:
    """A hash of the content of the images, so that changed content gets a new name.

    Caches compare images by name alone: with a fixed tag they would serve results of an older library.
    """
    digest = hashlib.sha256()
    for source in SOURCES:
        path = root / source
        files = [path] if path.is_file() else sorted(path.rglob("*"))
        for file in files:
            if file.is_file() and not {"__pycache__", "brain_tumor.egg-info"} & set(file.parts):
                digest.update(f"{file.relative_to(root).as_posix()} {fingerprint(file)}\n".encode())
    return digest.hexdigest()[:16]


if __name__ == "__main__":
    print(image_tag())
