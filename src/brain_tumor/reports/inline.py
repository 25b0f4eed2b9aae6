"""Reports inside of a notebook.

A frame of its own holds each, so that its style reaches nothing else. A notebook shows what the last line of
a cell gives.
"""

from markupsafe import Markup

from brain_tumor.reports.page import Section, page

HEIGHT, LEAST = 640, 40  # pixels
# A frame cannot be as high as its content by itself; it begins lower than any.
GROW = "this.style.height = this.contentDocument.documentElement.scrollHeight + 'px'"
FRAME = Markup('<iframe srcdoc="{}" onload="{}" style="width: 100%; height: {}px; border: 0"></iframe>')


class Inline:
    """A page, or some parts of one, as a notebook shows it.

    Args:
        html: The whole page.
        height: The frame's, in pixels.
        onload: A script for when it is loaded.
    """

    def __init__(self, html: str, height: int, onload: str = "") -> None:
        self._frame = FRAME.format(html, onload, height)

    def _repr_html_(self) -> str:
        return self._frame


def show_page(html: str) -> Inline:
    """A whole page in a frame that is scrolled.

    Args:
        html: The page's content.
    """
    return Inline(html, HEIGHT)


def show_sections(sections: list[Section], *headings: str) -> Inline:
    """Some sections of a report, in a frame as high as they are.

    Args:
        sections: All that the report has.
        headings: Of the sections to show. One that the report lacks, as where there is no box, is named.
    """
    chosen = [section for section in sections if section.heading in headings]
    missing = [heading for heading in headings if heading not in {section.heading for section in sections}]
    if missing:
        chosen.append(Section("Not in this data", ", ".join(missing)))
    return Inline(page("", chosen), LEAST, GROW)
