"""The images that a user names, decoded and letterboxed as in training."""

import glob
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from brain_tumor.ingest.export import IMAGE_SUFFIXES
from brain_tumor.ingest.image_measures import Defect, is_grey, open_image
from brain_tumor.records.read import letterbox_image
from brain_tumor.runtime.errors import explain_os_error
from brain_tumor.runtime.text import display_name
from brain_tumor.stores.files import walk_files


@dataclass(frozen=True)
class LoadedImage:
    """An image, ready for a model.

    Attributes:
        path: Its file.
        width: Width of the original, in pixels.
        height: Height of the original, in pixels.
        pixels: The letterboxed image, uint8 (size, size, 3).
    """

    path: Path
    width: int
    height: int
    pixels: np.ndarray


@dataclass(frozen=True)
class BadImage:
    """A path named by the user that is not a usable image.

    Attributes:
        path: The path.
        problem: What is wrong with it, a sentence that begins with the file's name.
    """

    path: Path
    problem: str


def find_images(names: list[str]) -> list[Path | BadImage]:
    """Finds the image files that a user names, in the given order and without duplicates.

    Args:
        names: Files; folders, searched recursively for JPEGs and PNGs, sorted by name; and patterns such as
            `scans/*.png`, for shells that do not expand them.

    Returns:
        The files, and a `BadImage` for each folder or pattern without images.
    """
    found: dict[Path, Path | BadImage] = {}
    for name in names:
        path = Path(name)
        if path.is_dir():
            inside = sorted(file for file in walk_files(path) if file.name.lower().endswith(IMAGE_SUFFIXES))
        elif not path.exists() and glob.has_magic(name):
            inside = sorted(map(Path, glob.glob(name, recursive=True)))
        else:
            inside = [path]
        found |= {file: file for file in inside}
        if not inside:
            problem = f"{display_name(name)} contains no JPEG or PNG files; name another folder or pattern."
            found[path] = BadImage(path, problem)
    return list(found.values())


def load_image(path: Path, size: int) -> LoadedImage | BadImage:
    """Reads, decodes and letterboxes an image with the functions that training uses.

    Args:
        path: Its file.
        size: Side of the square, in pixels.

    Returns:
        The image; a `BadImage` if ingest would reject it: not a JPEG or PNG, damaged, or with an EXIF
        rotation.
    """
    name = display_name(str(path))
    try:
        content = path.read_bytes()
    except OSError as error:
        return BadImage(path, explain_os_error(error, path))
    image = open_image(content)
    if isinstance(image, Defect):
        return BadImage(path, f"{name} {image.problem}.")
    channels = 1 if is_grey(image) else 3
    try:
        with tf.device("CPU"):
            square, *_ = letterbox_image(
                tf.constant(content), tf.constant([image.height, image.width]), size, channels
            )
    except tf.errors.OpError:
        # Pillow decodes some damaged JPEGs that TensorFlow rejects.
        return BadImage(path, f"{name} is damaged: TensorFlow cannot decode it; export or copy it again.")
    # A batch has grey and color images, so a grey image's channel is repeated, as the model would do.
    pixels = np.broadcast_to(square.numpy(), (size, size, 3))
    return LoadedImage(path, image.width, image.height, pixels)
