"""Parsing of numbers in annotation files."""

import math


def to_pixels(fraction: float, side: float) -> float:
    """Converts a normalized coordinate to pixels, rounded to 0.01 (the precision of six decimals or float32).

    Without rounding, a box at the edge could be outside its image by the last digit.
    """
    return round(fraction * side, 2)


def parse_number(value: object) -> float | None:
    """Parses a finite number, given as a number or a string; None if it is not one."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
