"""Checks of a split's boxes: bad boxes, boxes to clip, and several boxes of one label in an image."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brain_tumor.artifacts.tables import COORDINATES
from brain_tumor.boxes.measures import area
from brain_tumor.ingest.export import ExportSplit
from brain_tumor.ingest.findings import QUARANTINED, Finding
from brain_tumor.runtime.text import display_name, quote

CLIPPED = "box clipped"
LISTED_LABELS = 10
# The actions of `DatasetConfig.duplicate_boxes`.
MERGE_ACTIONS = {"largest": "largest box kept", "union": "boxes united", "error": QUARANTINED}
# A box that extends further beyond its image than this, in pixels, is an error; a smaller excess is clipped.
LARGEST_OVERSHOOT = 1.0
# Normalized coordinates in text files are rounded: clipping by up to this many pixels is not reported.
ROUNDING = 0.01


def find_bad_boxes(
    split: ExportSplit, boxes: pd.DataFrame, measures: NDArray[np.void], labels: list[str]
) -> list[Finding]:
    """Finds boxes that cause their image's quarantine; one finding per box and reason.

    Args:
        split: The split.
        boxes: Some of its boxes, with `image` (position in `split.images`) in place of `filename`.
        measures: The measures of the split's images, see `MEASURES`.
        labels: The known label names.
    """
    width, height, xmin, ymin, xmax, ymax = _geometry(boxes, measures)
    known = boxes[["width", "height"]].notna().all(axis=1).to_numpy()
    other_size = known & ((boxes["width"].to_numpy() != width) | (boxes["height"].to_numpy() != height))
    empty = (xmin >= xmax) | (ymin >= ymax)
    overshoot = np.max(
        [-xmin, -ymin, -xmax, -ymax, xmin - width, ymin - height, xmax - width, ymax - height], 0
    )
    # A box that clipping would leave empty is outside, however close to the edge.
    disjoint = (xmax <= 0) | (ymax <= 0) | (xmin >= width) | (ymin >= height)
    outside = (overshoot > LARGEST_OVERSHOOT) | (disjoint & ~empty)
    masks = {
        "unknown_label": ~boxes["label"].isin(labels).to_numpy(),
        "size_mismatch": other_size,
        "box_without_area": empty,
        "box_outside_image": outside,
    }
    known_labels = ", ".join(labels[:LISTED_LABELS]) + (", ..." if len(labels) > LISTED_LABELS else "")
    findings = []
    for kind, mask in masks.items():
        for index in np.flatnonzero(mask):
            row: Any = boxes.iloc[index]
            size = f"{width[index]} x {height[index]}"
            problem = {
                "unknown_label": f"has the label {quote(row.label)}, which is not one of {known_labels}",
                "size_mismatch": f"is {size} pixels, not {row.width:.10g} x {row.height:.10g} as annotated",
                "box_without_area": f"has a box without area {_corners(row)}",
                "box_outside_image": f"has a box {_corners(row)} outside its {size} pixels",
            }[kind]
            findings.append(_row_finding(split, row, kind, problem, QUARANTINED))
    return findings


def clip_boxes(
    split: ExportSplit, boxes: pd.DataFrame, measures: NDArray[np.void]
) -> tuple[pd.DataFrame, list[Finding]]:
    """Clips boxes (as in `find_bad_boxes`) to their images, with a finding for each clipped box."""
    width, height, *corners = _geometry(boxes, measures)
    limits = (width, height, width, height)
    clipped = [np.clip(corner, 0, limit) for corner, limit in zip(corners, limits, strict=True)]
    moved = np.max([np.abs(a - b) for a, b in zip(corners, clipped, strict=True)], axis=0)
    findings = []
    for index in np.flatnonzero(moved > ROUNDING):
        row = boxes.iloc[index]
        problem = f"has a box {_corners(row)} beyond the edge of its {width[index]} x {height[index]} pixels"
        findings.append(_row_finding(split, row, "box_over_edge", problem, CLIPPED))
    return boxes.assign(**dict(zip(COORDINATES, clipped, strict=True))), findings


def merge_boxes(split: ExportSplit, boxes: pd.DataFrame, policy: str) -> tuple[pd.DataFrame, list[Finding]]:
    """Merges boxes to at most one per image and label, with a finding for each merge.

    Args:
        split: The split.
        boxes: Some of its boxes, as in `find_bad_boxes`, their labels as a category in slot order.
        policy: `DatasetConfig.duplicate_boxes`.
    """
    keys = ["image", "label"]
    repeated = boxes[boxes.duplicated(keys, keep=False)]
    findings = []
    for _, own in repeated.groupby(keys, observed=True):
        last: Any = own.iloc[-1]
        where = str(last.source)
        if own["row"].notna().all():
            where += f" rows {' and '.join(str(row) for row in own['row'])}"
        name = split.images[last.image]
        message = f"{where}: {display_name(name)} has {len(own)} boxes of {last.label}."
        row = None if pd.isna(last.row) else int(last.row)
        findings.append(Finding(split.name, name, row, "duplicate_boxes", message, MERGE_ACTIONS[policy]))
    if policy == "union":
        groups = boxes.groupby(keys, observed=True)
        boxes = boxes.assign(
            xmin=groups["xmin"].transform("min"),
            ymin=groups["ymin"].transform("min"),
            xmax=groups["xmax"].transform("max"),
            ymax=groups["ymax"].transform("max"),
        )
    areas = area(boxes[list(COORDINATES)].to_numpy())
    largest_first = boxes.assign(area=-areas).sort_values([*keys, "area"], kind="stable")
    return largest_first.drop_duplicates(keys).drop(columns="area"), findings


def _geometry(boxes: pd.DataFrame, measures: NDArray[np.void]) -> Iterator[NDArray[Any]]:
    """The width and height of each box's image, and the box's four coordinates."""
    positions = boxes["image"].to_numpy()
    yield measures["width"][positions]
    yield measures["height"][positions]
    for name in COORDINATES:
        yield boxes[name].to_numpy(float)


def _corners(row: Any) -> str:
    return f"({row.xmin:.10g}, {row.ymin:.10g}, {row.xmax:.10g}, {row.ymax:.10g})"


def describe_place(row: Any) -> str:
    """Where a box was read: its file and, if the format has rows, its row."""
    return row.source if pd.isna(row.row) else f"{row.source} row {row.row}"


def _row_finding(split: ExportSplit, row: Any, kind: str, problem: str, action: str) -> Finding:
    number = None if pd.isna(row.row) else int(row.row)
    name = split.images[row.image]
    return Finding(
        split.name, name, number, kind, f"{describe_place(row)}: {display_name(name)} {problem}.", action
    )
