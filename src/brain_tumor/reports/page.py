"""Self-contained HTML pages: the look that the reports share."""

import base64
import io
import os
from dataclasses import dataclass
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
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1100px; margin: 2em auto; padding: 0 1em;
} h1 { font-size: 1.5em; margin-bottom: .2em; } h2 { font-size: 1.15em; margin-top: 2em; }
.notice { background: #fff4d6; border-left: 4px solid #d99a00; padding: .5em 1em; }
table { border-collapse: collapse; margin: 1em 0; } td, th { padding: .25em .9em; border-bottom: 1px solid
#ddd; } th { text-align: left; background: #f6f6f6; } td { font-variant-numeric: tabular-nums; }
img { max-width: 100%; }
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
<table>
<tr>{% for cell in section.header %}<th>{{ cell }}</th>{% endfor %}</tr>
{% for row in section.rows %}
<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</table>
{% endif %}
{% if section.image %}
<img alt="{{ section.heading }}" src="{{ section.image }}">
{% endif %}
{% endfor %}
</body>
</html>
"""
)


@dataclass
class Section:
    """A part of a page: a heading, then whichever of a paragraph, a table and a picture it has.

    Attributes:
        heading: The section's heading.
        text: A paragraph.
        header: The table's column names.
        rows: The table's rows.
        image: A data URI, from `figure_uri`.
    """

    heading: str
    text: str = ""
    header: list[str] | None = None
    rows: list[list[Any]] | None = None
    image: str = ""


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
