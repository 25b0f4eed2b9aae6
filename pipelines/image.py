"""The tag of the steps' images: `python -m pipelines.image` prints it."""

import hashlib
from pathlib import Path

from brain_tumor.stores.locations import fingerprint

ROOT = Path(__file__).resolve().parent.parent
# The sources of the images.
SOURCES = ("src", "images", "requirements/data.txt", "requirements/cpu.txt", "requirements/gpu.txt")


def image_tag(root: Path = ROOT) -> str:
    """The hash of the images' sources, which is their tag.

    The cache keys contain an image's name but not its content: with a fixed tag, results of older code would
    be reused.
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
