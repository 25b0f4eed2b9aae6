"""Decoding an export's images, once each: all that later steps ask of an image is measured in that pass."""

import hashlib
import io
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from brain_tumor.ingest.export import ExportSplit
from brain_tumor.stores.files import read_bytes

IMAGES_A_TASK = 64
HASH_SIDE = 32  # to what an image is shrunk before it is hashed
MEASURES = np.dtype(
    [
        ("width", "i4"),
        ("height", "i4"),
        ("grey", "?"),
        ("intensity", "f4"),
        ("perceptual_hash", "u8"),
        ("sha256", "S64"),
    ]
)
"""What is measured of an image; see `Validation.images` for the columns."""


def measure_images(
    split: ExportSplit, target: Path, histogram: NDArray[np.int64], progress: Any
) -> tuple[NDArray[np.void], dict[int, str]]:
    """Decodes and copies a split's images; adds their grey levels to the histogram.

    Returns:
        One row of `MEASURES` an image, and by position why an image is not usable.
    """
    measures = np.zeros(len(split.images), MEASURES)
    unreadable: dict[int, str] = {}

    def measure_some(start: int) -> tuple[int, NDArray[np.int64]]:
        """Images from `start` on: how many, and their histogram."""
        good, levels = [], []
        names = split.images[start : start + IMAGES_A_TASK]
        for position, name in enumerate(names, start):
            content = read_bytes(split.folder / name)
            (target / name).write_bytes(content)
            result = _measure_image(content)
            if isinstance(result, str):
                unreadable[position] = result
            else:
                numbers, hashed, counts = result
                measures[position] = (*numbers, 0.0, hashed, hashlib.sha256(content).hexdigest())
                good.append(position)
                levels.append(counts)
        histograms = np.array(levels, np.int64).reshape(-1, 256)
        if good:
            measures["intensity"][good] = histograms @ np.arange(256) / histograms.sum(axis=1)
        return len(names), histograms.sum(axis=0)

    # Pillow decodes outside the interpreter's lock; more threads than cores would only wait for it.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for count, levels in pool.map(measure_some, range(0, len(split.images), IMAGES_A_TASK)):
            histogram += levels
            progress.update(count)
    return measures, unreadable


def _measure_image(content: bytes) -> tuple[tuple[int, int, bool], int, list[int]] | str:
    """Width, height and whether it is grey; its perceptual hash; its grey levels. Or what is wrong."""
    try:
        with Image.open(io.BytesIO(content), formats=["JPEG"]) as image:
            image.load()
    except UnidentifiedImageError:
        return "it is no JPEG" if content else "it is empty"
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return str(error)
    grey = image if image.mode == "L" else image.convert("L")
    # In two steps, of which the first is a plain mean: almost the hash of the whole image, in half the time.
    small = grey.resize((HASH_SIDE, HASH_SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
    hashed = int(str(imagehash.phash(small)), 16)
    return (image.width, image.height, _is_grey(image)), hashed, grey.histogram()


def _is_grey(image: Image.Image) -> bool:
    if image.mode != "RGB":
        return image.mode == "L"
    red, green, blue = (band.tobytes() for band in image.split())
    return red == green and red == blue
