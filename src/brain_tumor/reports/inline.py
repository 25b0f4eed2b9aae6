"""Reports inside a notebook.

Each is in an iframe of its own, so that its style does not affect the notebook. A notebook shows the value of
a cell's last line.
"""

from markupsafe import Markup

from brain_tumor.reports.page import Section, page

HEIGHT, LEAST = 640, 40  # pixels
# A frame does not adapt to its content's height by itself; it starts low and grows when loaded.
GROW = "this.style.height = this.contentDocument.documentElement.scrollHeight + 'px'"
FRAME = Markup('<iframe srcdoc="{}" onload="{}" style="width: 100%; height: {}px; border: 0"></iframe>')


class Inline:
    """A page, or some sections of one, for display in a notebook.

    Args:
        html: The whole page.
        height: The frame's height, in pixels.
        onload: A script that runs when the page is loaded.
    """

    def __init__(self, html: str, height: int, onload: str = "") -> None:
        self._frame = FRAME.format(html, onload, height)

    def _repr_html_(self) -> str:
        return self._frame


def show_page(html: str) -> Inline:
    """Shows a whole page in a scrolling frame.

    Args:
        html: The page's content.
    """
    return Inline(html, HEIGHT)


def show_sections(sections: list[Section], *headings: str) -> Inline:
    """Shows some sections of a report, in a frame of their height.

    Args:
        sections: All sections of the report.
        headings: Headings of the sections to show; those that the report lacks are listed.
    """
    chosen = [section for section in sections if section.heading in headings]
    missing = [heading for heading in headings if heading not in {section.heading for section in sections}]
    if missing:
        chosen.append(Section("Not in this data", ", ".join(missing)))
    return Inline(page("", chosen), LEAST, GROW)
