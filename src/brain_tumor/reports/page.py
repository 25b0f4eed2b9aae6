"""Self-contained HTML pages: the look that the reports share."""

import base64
import io
import os
from dataclasses import dataclass, field
from typing import Any, Literal

import jinja2

from brain_tumor.runtime import environment

_PAGE = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
    """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
:root { color-scheme: light dark; --text: #222; --paper: #fff; --head: #f3f3f3; --line: #ddd; --warn: #fff4d6;
} @media (prefers-color-scheme: dark) { :root { --text: #e4e4e4; --paper: #16181b; --head: #26292e;
--line: #3d4147; --warn: #443710; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--paper); max-width: 1100px;
margin: 2em auto; padding: 0 1em; overflow-wrap: break-word; }
h1 { font-size: 1.5em; margin-bottom: .2em; } h2 { font-size: 1.15em; margin-top: 2em; }
.notice { background: var(--warn); border-left: 4px solid #d99a00; padding: .5em 1em; }
.table { overflow-x: auto; margin: 1em 0; } table { border-collapse: collapse; } td, th { padding: .25em .9em;
border-bottom: 1px solid var(--line); text-align: left; } th { background: var(--head); }
td { font-variant-numeric: tabular-nums; max-width: 32em; } img { max-width: 100%; background: #fff; }
.pictures { display: grid; gap: .6em;
grid-template-columns: repeat(auto-fill, minmax(min(100%, 250px), 1fr)); } .pictures img { width: 100%; }
@media (max-width: 500px) { body { padding: 0 .6em; margin: 1em auto; } table { font-size: .87em; } td, th {
padding: .2em .4em; } }
</style>
</head>
<body>
<h1>{{ title }}</h1>
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
{% if section.header %}
<div class="table"><table>
<tr>{% for cell in section.header %}<th>{{ cell }}</th>{% endfor %}</tr>
{% for row in section.rows %}
<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</table></div>
{% endif %}
{% if section.image %}
<img alt="{{ section.heading }}" src="{{ section.image }}">
{% endif %}
{% if section.pictures %}
<div class="pictures">
{% for picture in section.pictures %}
<img alt="{{ picture.about }}" src="{{ picture.uri }}">
{% endfor %}
</div>
{% endif %}
{% endfor %}
</body>
</html>
"""
)


@dataclass(frozen=True)
class Picture:
    """One of several pictures, beside each other where the page is wide enough.

    Attributes:
        about: What it shows, for who does not see it.
        uri: A data URI, from `figure_uri`.
    """

    about: str
    uri: str


@dataclass
class Section:
    """A part of a page: a heading, then whichever of a paragraph, a table and pictures it has.

    Attributes:
        heading: The section's heading.
        text: A paragraph.
        header: The table's column names.
        rows: The table's rows.
        image: A data URI, from `figure_uri`: a picture as wide as the page.
        pictures: Small ones.
    """

    heading: str
    text: str = ""
    header: list[str] | None = None
    rows: list[list[Any]] | None = None
    image: str = ""
    pictures: list[Picture] = field(default_factory=list)


def page(title: str, sections: list[Section], notice: str = "") -> str:
    """An HTML page that needs no other file and no network, and names the run that it is of.

    Args:
        title: Title and first heading.
        sections: The page's parts.
        notice: A line that the reader must not miss, shown above everything.
    """
    run = os.environ.get(environment.RUN)
    return _PAGE.render(title=title, run=run, sections=sections, notice=notice)


def figure_uri(figure: Any, dpi: int = 80, encoding: Literal["png", "webp"] = "png") -> str:
    """A Matplotlib figure as a data URI. WebP loses details, but photographs in it stay small."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=encoding, dpi=dpi, bbox_inches="tight")
    return f"data:image/{encoding};base64," + base64.b64encode(buffer.getvalue()).decode()
