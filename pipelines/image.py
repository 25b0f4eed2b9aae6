"""The tag of the steps' images: `python -m pipelines.image` prints it."""

import hashlib
from pathlib import Path

from brain_tumor.stores.locations import fingerprint

ROOT = Path(__file__).resolve().parent.parent
# What the images are built from. Bytecode caches come and go and change nothing.
SOURCES = ("src", "images", "requirements/data.txt", "requirements/cpu.txt", "requirements/gpu.txt")


def image_tag(root: Path = ROOT) -> str:
    """A hash of what the images are made of, so that other content has another name.

    Caches compare images by name alone: under a fixed tag they would serve what an older library has made.
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
