"""Distinguishes boxes with keypoints from polygons in YOLO label files without `kpt_shape`."""

from brain_tumor.runtime.errors import InputError

TOLERANCE = 1e-5  # most tools write six digits, some five


def looks_like_pose(numbers: list[float]) -> bool:
    """Whether numbers are probably a box and the x, y and visibility of points in it, not a polygon."""
    if len(numbers) < 7 or (len(numbers) - 4) % 3:
        return False
    x, y, width, height = numbers[:4]
    xs, ys, visible = numbers[4::3], numbers[5::3], numbers[6::3]
    inside = (abs(a - x) <= width / 2 and abs(b - y) <= height / 2 for a, b in zip(xs, ys, strict=True))
    return set(visible) <= {0, 1, 2} and all(a or not b for a, b in zip(inside, visible, strict=True))


class PoseAmbiguity:
    """Detects exports whose lines may be boxes with keypoints (x and y each) or polygons.

    They are ambiguous if all lines have the same count of numbers, of which the first four are a box in the
    image, and all other points are in that box. Polygons vary in their number of corners or have one outside
    of such a box; rectangles and other parallelograms are recognized by their sides.
    """

    def __init__(self) -> None:
        self._lengths: set[int] = set()
        self._only_polygons = False
        self._all_parallelograms = True
        self._first = ""

    def add(self, numbers: list[float], where: str) -> None:
        """Adds a line's numbers."""
        if self._only_polygons:
            return
        self._first = self._first or where
        self._lengths.add(len(numbers))
        self._all_parallelograms &= _is_parallelogram(numbers)
        self._only_polygons = len(self._lengths) > 1 or not _is_box_with_points(numbers)

    def check(self) -> None:
        """Rejects an ambiguous export.

        Raises:
            InputError: The export is ambiguous.
        """
        if self._first and not self._only_polygons and not self._all_parallelograms:
            count = (self._lengths.pop() - 4) // 2
            raise InputError(
                f"{self._first}: this line and all others can be boxes with {count} keypoints as well as "
                f"polygons; give the data.yaml kpt_shape: [{count}, 2], or kpt_shape: [0, 0] for polygons."
            )


def _is_box_with_points(numbers: list[float]) -> bool:
    if len(numbers) < 6 or len(numbers) % 2:
        return False
    x, y, across, down = numbers[0], numbers[1], abs(numbers[2]) / 2, abs(numbers[3]) / 2
    sides = ((x - across, x + across), (y - down, y + down))
    points = zip(numbers[4::2], numbers[5::2], strict=True)
    # An unlabeled point is 0 0.
    return all(low >= -TOLERANCE and high <= 1 + TOLERANCE for low, high in sides) and all(
        (abs(a - x) <= across + TOLERANCE and abs(b - y) <= down + TOLERANCE) or a == b == 0
        for a, b in points
    )


def _is_parallelogram(numbers: list[float]) -> bool:
    if len(numbers) != 8:
        return False
    ax, ay, bx, by, cx, cy, dx, dy = numbers
    return max(abs(ax + cx - bx - dx), abs(ay + cy - by - dy)) <= 4 * TOLERANCE
