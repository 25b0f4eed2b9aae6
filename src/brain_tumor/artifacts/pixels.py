"""The pixels of a dataset's images, as training reads them."""

import numpy as np
from PIL import Image


def to_8_bits(image: Image.Image) -> Image.Image:
    """Reduces a 16-bit PNG to its upper 8 bits, as TensorFlow does; other images are returned unchanged."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
