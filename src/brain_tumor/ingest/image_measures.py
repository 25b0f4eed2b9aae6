"""Decodes each image of an export once, and measures everything that later steps need."""

import hashlib
import io
import os
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from brain_tumor.artifacts.pixels import to_8_bits
from brain_tumor.ingest.export import DECODED, ExportSplit
from brain_tumor.stores.paths import explain_errors

IMAGES_PER_TASK = 64
# Pillow's modes. A CMYK image counts as colored, since TensorFlow cannot decode it as grey.
GREY_MODES = ("1", "L", "LA", "I", "I;16")
COLOR_MODES = ("RGB", "RGBA", "P", "PA")
HASH_SIDE = 32  # the size that an image is reduced to before hashing
MEASURES = np.dtype(
    [
        ("width", "i4"),
        ("height", "i4"),
        ("grey", "?"),
        ("format", "S4"),
        ("bytes", "i8"),
        ("intensity", "f4"),
        ("perceptual_hash", "u8"),
        ("sha256", "S64"),
    ]
)
"""The measures of an image; see `Validation.images` for the columns."""
EXIF_ORIENTATION = 0x0112
UPRIGHT = (None, 0, 1)
# What Pillow and its metadata readers raise for damaged bytes.
DECODE_ERRORS = (OSError, ValueError, SyntaxError, KeyError, TypeError, EOFError, struct.error)


class Defect(NamedTuple):
    """Why an image is not usable."""

    kind: str
    """The kind of finding, one word."""
    problem: str
    """The rest of the sentence that begins with the image's name, without the period."""


def _undecodable(reason: object) -> Defect:
    return Defect("unreadable_image", f"cannot be decoded ({reason}); export or copy it again")


def measure_images(
    split: ExportSplit, target: Path, histogram: NDArray[np.int64], progress: Any
) -> tuple[NDArray[np.void], dict[int, Defect]]:
    """Decodes, measures and copies a split's images.

    Args:
        split: The split.
        target: The folder to copy the images to.
        histogram: The histogram of grey levels (256,), which is updated.
        progress: A `Progress`, which is updated.

    Returns:
        One row of `MEASURES` per image, and the defects of unusable images by position.

    Raises:
        InputError: A file cannot be read or written.
    """
    measures = np.zeros(len(split.images), MEASURES)
    defects: dict[int, Defect] = {}

    def measure_some(start: int) -> tuple[int, NDArray[np.int64]]:
        """Measures images from `start` on; returns their number and histogram."""
        good, levels = [], []
        names = split.images[start : start + IMAGES_PER_TASK]
        for position, name in enumerate(names, start):
            with explain_errors(split.folder / name):
                content = (split.folder / name).read_bytes()
            (target / name).write_bytes(content)
            result = _measure_image(content)
            if isinstance(result, Defect):
                defects[position] = result
            else:
                facts, hashed, counts = result
                digest = hashlib.sha256(content).hexdigest()
                measures[position] = (*facts, len(content), 0.0, hashed, digest)
                good.append(position)
                levels.append(counts)
        histograms = np.array(levels, np.int64).reshape(-1, 256)
        if good:
            measures["intensity"][good] = histograms @ np.arange(256) / histograms.sum(axis=1)
        return len(names), histograms.sum(axis=0)

    # Pillow releases the GIL while decoding; more threads than cores would not help.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for count, levels in pool.map(measure_some, range(0, len(split.images), IMAGES_PER_TASK)):
            histogram += levels
            progress.update(count)
    return measures, defects


def open_image(content: bytes) -> Image.Image | Defect:
    """Decodes an image, or returns its defect."""
    try:
        with Image.open(io.BytesIO(content), formats=DECODED) as image:
            image.load()
            orientation = image.getexif().get(EXIF_ORIENTATION)
    except UnidentifiedImageError:
        return _undecodable("it is not a JPEG or PNG" if content else "it is empty")
    except (*DECODE_ERRORS, Image.DecompressionBombError) as error:
        return _undecodable(error)
    if orientation not in UPRIGHT:
        # Training reads the pixels as stored, but most annotation tools show the rotated image.
        problem = f"is rotated by its EXIF orientation ({orientation}), so its boxes may be misplaced"
        return Defect("turned_image", f"{problem}; save it upright, as Roboflow's Auto-Orient does")
    return image


def _measure_image(content: bytes) -> tuple[tuple[int, int, bool, str], int, list[int]] | Defect:
    """Returns (width, height, grey, format), perceptual hash and grey levels, or a defect."""
    # Imported late: a process that only opens images does not need it.
    import imagehash

    image = open_image(content)
    if isinstance(image, Defect):
        return image
    grey = to_8_bits(image)
    grey = grey if grey.mode == "L" else grey.convert("L")
    # Reduced in two steps, the first by averaging: almost the same hash in half the time.
    small = grey.resize((HASH_SIDE, HASH_SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
    hashed = int(str(imagehash.phash(small)), 16)
    kind = "png" if image.format == "PNG" else "jpeg"
    return (image.width, image.height, is_grey(image), kind), hashed, grey.histogram()


def is_grey(image: Image.Image) -> bool:
    """Whether all pixels have equal red, green and blue."""
    if image.mode not in COLOR_MODES:
        return image.mode in GREY_MODES
    red, green, blue = (band.tobytes() for band in image.convert("RGB").split())
    return red == green and red == blue
