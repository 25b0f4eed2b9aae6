"""Self-contained HTML pages: the reports' shared layout.

The layout fits a browser window and the 300 pixels of a page in Kubeflow's comparison of runs, in light and
dark mode.
"""

import base64
import io
import os
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import jinja2
from markupsafe import Markup

from brain_tumor.runtime import environment

_PAGE = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
    """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{{ title }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 1100px;
margin: 2em auto; padding: 0 1em; overflow-wrap: break-word; }
h1 { font-size: 1.5em; margin-bottom: .2em; } h2 { font-size: 1.15em; margin-top: 2em; }
.notice { background: #fff4d6; border-left: 4px solid #d99a00; padding: .5em 1em; }
.scroll { overflow-x: auto; margin: 1em 0; } table { border-collapse: collapse; }
td, th { padding: .25em .7em; border-bottom: 1px solid #ddd; text-align: left; }
th { background: #f6f6f6; } td { font-variant-numeric: tabular-nums; }
.plots, .slices { display: grid; gap: .8em; margin: 1em 0; }
.plots { grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); }
.slices { grid-template-columns: repeat(auto-fill, minmax(200px, 1fr)); }
.pairs { display: grid; gap: .8em; margin: 1em 0; grid-template-columns: repeat(2, 370px); }
figure { margin: 0; } figcaption { font-size: .85em; line-height: 1.35; }
img { max-width: 100%; background: #fff; }
.slices img { width: 100%; aspect-ratio: 1; object-fit: contain; background: #000; }
.legend > span { display: inline-block; margin-right: 1.2em; }
.legend i { display: inline-block; width: 1.6em; border-top: 3px solid; margin-right: .4em;
vertical-align: middle; }
.hue { color: var(--light); } td small { white-space: nowrap; }
.heat { margin: -.25em -.7em; padding: .25em .7em; }
@media (max-width: 600px) {
body { font-size: 12px; line-height: 1.4; margin: .5em 0; padding: 0 .6em; }
h1 { font-size: 1.25em; } h2 { font-size: 1.1em; margin-top: 1.4em; }
td, th { padding: .15em .4em; } .heat { margin: -.15em -.4em; padding: .15em .4em; }
.long { display: none; } ul { padding-left: 1.2em; }
.plots, .pairs { grid-template-columns: 1fr; } .slices { grid-template-columns: 1fr 1fr; gap: .5em; }
}
@media (prefers-color-scheme: dark) {
body { color: #ddd; background: #17191c; } .notice { background: #3a3014; } th { background: #26292e; }
td, th { border-color: #444; } .hue { color: var(--dark); }
}
</style>
</head>
<body>
{% if title %}
<h1>{{ title }}</h1>
{% endif %}
{% if run %}
<p>Run {{ run }}</p>
{% endif %}
{% if notice %}
<p class="notice">{{ notice }}</p>
{% endif %}
{% for section in sections %}
<h2>{{ section.heading }}</h2>
{% if section.text %}
<p>{{ section.text }}</p>
{% endif %}
{% if section.items %}
<ul>
{% for item in section.items %}
<li>{{ item }}</li>
{% endfor %}
</ul>
{% endif %}
{% if section.header %}
<div class="scroll" tabindex="0">
<table>
<tr>{% for cell in section.header %}<th>{{ cell.split("_")|join("_<wbr>"|safe) }}</th>{% endfor %}</tr>
{% for row in section.rows %}
<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</table>
</div>
{% endif %}
{% if section.legend %}
<p class="legend">
{% for key in section.legend %}
<span><i style="border-color: {{ key.color }}; border-top-style: {{ key.style }}"></i>{{ key.text }}</span>
{% endfor %}
</p>
{% endif %}
{% if section.pictures %}
<div class="{{ section.grid }}">
{% for picture in section.pictures %}
<figure><img alt="{{ picture.about }}" src="{{ picture.uri }}">
{% if picture.caption %}
<figcaption>{{ picture.caption }}</figcaption>
{% endif %}
</figure>
{% endfor %}
</div>
{% endif %}
{% endfor %}
</body>
</html>
"""
)


@dataclass
class Picture:
    """A picture on a page.

    Attributes:
        about: The alt text.
        uri: A data URI, from `figure_uri` or of a panel, see `brain_tumor.reports.panels`.
        caption: The caption below it.
    """

    about: str
    uri: str
    caption: str = ""


class Key(NamedTuple):
    """An entry of a legend: a line's color, its CSS border style, and its meaning."""

    color: str
    style: str
    text: str


@dataclass
class Section:
    """A section of a page: a heading, then any of the following, in this order.

    Attributes:
        heading: The section's heading.
        text: A paragraph.
        items: A list.
        header: The table's column names.
        rows: The table's rows.
        legend: The legend of the pictures' lines.
        pictures: Pictures side by side.
        grid: Their layout: on a narrow page `plots` and `pairs` have one picture per row, `slices` two.
    """

    heading: str
    text: str = ""
    header: list[str] | None = None
    rows: list[list[Any]] | None = None
    items: list[str] = field(default_factory=list)
    legend: list[Key] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    grid: str = "plots"


def page(title: str, sections: list[Section], notice: str = "") -> str:
    """Renders a self-contained HTML page, which needs no network and names its run.

    Args:
        title: Title and first heading; empty for none.
        sections: The page's sections.
        notice: An important line, shown above everything else.
    """
    run = os.environ.get(environment.RUN)
    return _PAGE.render(title=title, run=run, sections=sections, notice=notice)


def with_interval(text: str) -> Markup:
    """A figure with its interval, if it has one, on a line below it."""
    value, bracket, interval = text.partition(" [")
    return Markup("{}<br><small>[{}</small>").format(value, interval) if bracket else Markup.escape(value)


def colored(text: str, light: str, dark: str) -> Markup:
    """A text with one color for light mode and another for dark mode."""
    return Markup('<span class="hue" style="--light: {}; --dark: {}">{}</span>').format(light, dark, text)


def shortened(title: str) -> Markup:
    """A title whose part in brackets is hidden on narrow pages."""
    begin, bracket, end = title.partition(" (")
    return (
        Markup('{}<span class="long">{}</span>').format(begin, bracket + end) if end else Markup.escape(begin)
    )


def figure_uri(figure: Any, dpi: int = 80, encoding: Literal["png", "webp"] = "png") -> str:
    """A Matplotlib figure as a data URI. WebP is lossy, but keeps photographs small."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=encoding, dpi=dpi, bbox_inches="tight")
    return f"data:image/{encoding};base64," + base64.b64encode(buffer.getvalue()).decode()
