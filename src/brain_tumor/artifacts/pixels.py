"""The pixels of a dataset's images, as training sees them."""

import numpy as np
from PIL import Image


def to_8_bits(image: Image.Image) -> Image.Image:
    """Of a PNG's 16 bits the upper 8, which is what TensorFlow takes; any other image as it is."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
