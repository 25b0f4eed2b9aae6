"""Numbers as annotation files write them."""

import math


def to_pixels(fraction: float, side: float) -> float:
    """A normalized coordinate in pixels, to a hundredth: what six decimals, or a 32-bit float, can tell.

    Unrounded, a box at the edge would lie outside its image by the last digit.
    """
    return round(fraction * side, 2)


def parse_number(value: object) -> float | None:
    """A finite number, given as one or as text; None where it is none."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
