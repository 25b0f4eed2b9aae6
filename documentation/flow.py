"""Draws the steps of the compiled pipeline as an SVG."""

import tempfile
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import yaml

from brain_tumor.configure import configure
from pipelines.compile import compile_pipeline
from pipelines.targets.target import load_target

BOX_WIDTH, BOX_HEIGHT = 164, 38  # pixels
COLUMN, ROW, MARGIN = 192, 52, 16
# The box color by component name, which shows the kind of step.
COLORS = {"ingest": "#e3f0e8", "build-tfrecords": "#e3f0e8", "train": "#fdebd3"}
JUDGEMENT = "#e2eaf7"


@dataclass(frozen=True)
class Step:
    """A step of the compiled pipeline.

    Attributes:
        title: Its display name.
        component: Its component's name.
        after: The keys of the steps whose outputs it reads.
    """

    title: str
    component: str
    after: frozenset[str]


def compiled_steps() -> dict[str, Step]:
    """The steps of the default pipeline by their keys in the compiled file, in the file's order."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pipeline.yaml"
        compile_pipeline(load_target("local"), "picture", configure([]), path)
        tasks = yaml.safe_load(path.read_text())["root"]["dag"]["tasks"]
    return {name: _read(task) for name, task in tasks.items()}


def _read(task: dict[str, Any]) -> Step:
    component = task["componentRef"]["name"].removeprefix("comp-")
    kind = next((name for name in COLORS if component.startswith(name)), component)
    return Step(task["taskInfo"]["name"], kind, frozenset(task.get("dependentTasks", ())))


def draw_flow(steps: dict[str, Step]) -> str:
    """Draws steps from left to right, each after all steps whose outputs it reads.

    Args:
        steps: The steps by key.

    Returns:
        The SVG, without embedded fonts or external resources.
    """
    columns: dict[str, int] = {}
    for name in steps:
        _column(name, steps, columns)
    places = _places(steps, columns)
    width = 2 * MARGIN + max(columns.values()) * COLUMN + BOX_WIDTH
    height = MARGIN + max(y for _, y in places.values()) + BOX_HEIGHT
    arrows = [_arrow(places[before], places[name]) for name in steps for before in _nearest(name, steps)]
    boxes = [_box(places[name], step) for name, step in steps.items()]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
            f'height="{height}" role="img" font-family="system-ui, sans-serif" font-size="14">',
            "<title>The steps of the pipeline, each after the steps whose outputs it reads</title>",
            '<defs><marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" '
            'orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="#667"/></marker></defs>',
            f'<rect width="{width}" height="{height}" rx="8" fill="#fff"/>',
            *arrows,
            *boxes,
            "</svg>",
            "",
        ]
    )


def _places(steps: dict[str, Step], columns: dict[str, int]) -> dict[str, tuple[float, float]]:
    """The upper left corner of each step's box: columns are centered, a chain is a straight line."""
    rows: dict[int, list[str]] = {}
    for name in sorted(steps, key=lambda name: (columns[name], list(steps).index(name))):
        rows.setdefault(columns[name], []).append(name)
    tallest = max(map(len, rows.values()))
    places: dict[str, tuple[float, float]] = {}
    for column, names in sorted(rows.items()):
        for row, name in enumerate(names):
            y = MARGIN + (row + (tallest - len(names)) / 2) * ROW
            before = _nearest(name, steps)
            if len(names) == len(before) == 1:
                y = places[before[0]][1]
            places[name] = (MARGIN + column * COLUMN, y)
    return places


def _column(name: str, steps: dict[str, Step], columns: dict[str, int]) -> int:
    """The number of steps before this one on the longest path to it."""
    if name not in columns:
        columns[name] = max((_column(each, steps, columns) + 1 for each in steps[name].after), default=0)
    return columns[name]


def _nearest(name: str, steps: dict[str, Step]) -> list[str]:
    """The steps that a step reads from, without those that are also reached through another of them."""
    after = steps[name].after
    return sorted(each for each in after if not any(each in _before(other, steps) for other in after))


def _before(name: str, steps: dict[str, Step]) -> set[str]:
    after = steps[name].after
    return set(after).union(*(_before(each, steps) for each in after))


def _arrow(start: tuple[float, float], end: tuple[float, float]) -> str:
    x1, y1 = start[0] + BOX_WIDTH, start[1] + BOX_HEIGHT / 2
    x2, y2 = end[0], end[1] + BOX_HEIGHT / 2
    bend = (COLUMN - BOX_WIDTH) * 0.6
    return (
        f'<path d="M{x1:g} {y1:g} C{x1 + bend:g} {y1:g} {x2 - bend:g} {y2:g} {x2:g} {y2:g}" fill="none" '
        'stroke="#667" stroke-width="1.4" marker-end="url(#head)"/>'
    )


def _box(place: tuple[float, float], step: Step) -> str:
    x, y = place
    fill = COLORS.get(step.component, JUDGEMENT)
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="6" fill="{fill}" '
        f'stroke="#889"/><text x="{x + BOX_WIDTH / 2:g}" y="{y + BOX_HEIGHT / 2 + 5:g}" '
        f'text-anchor="middle" fill="#223">{escape(step.title)}</text>'
    )
