"""The documentation: nothing is stale, no link is dead, and the site loads nothing from other servers."""

import os
import re
import subprocess
import sys
import urllib.parse
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from documentation.__main__ import DOCS, generated, stale
from documentation.flow import Step, draw_flow
from tests.unit.browser import CHROMIUM, browse

ROOT = DOCS.parent
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), ROOT / "kind-cluster" / "README.md"])
LARGEST_IMAGE = 300_000  # bytes


def test_generated_pages_are_up_to_date(tmp_path: Path) -> None:
    made = generated()
    assert stale(made) == [], "run make docs-reference"
    changed = tmp_path / "page.md"
    assert stale({changed: "text"}) == [changed]
    changed.write_text("other text")
    assert stale({changed: "text"}) == [changed]
    reference = made[DOCS / "reference.md"]
    assert "| `learning_rate` | number | `0.0001` | above 0 | AdamW's learning rate. |" in reference


def test_arrows_lead_to_each_step_from_its_nearest_predecessors() -> None:
    steps = {
        "a": Step("first", "ingest", frozenset()),
        "b": Step("second", "train", frozenset("a")),
        "c": Step("x < y", "gate", frozenset("ab")),
    }
    drawn = draw_flow(steps)
    assert drawn.count("marker-end") == 2, "a leads to c through b"
    assert "x &lt; y" in drawn


def links_and_anchors(page: Path) -> tuple[list[str], set[str]]:
    """The links and images of a Markdown page, and its headings' anchors."""
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(page.read_text(encoding="utf-8"))
    links: list[str] = []
    anchors: dict[str, int] = {}
    for before, token in zip([None, *tokens], tokens, strict=False):
        for child in token.children or []:
            links += [str(child.attrs[name]) for name in ("href", "src") if name in child.attrs]
        if before is not None and before.type == "heading_open":
            shown = "".join(child.content for child in token.children or [])
            anchor = re.sub(r"[^\w\- ]", "", shown.lower()).strip().replace(" ", "-")
            anchors[anchor] = anchors.get(anchor, 0) + 1
    return links, set(anchors)


def dead_links(page: Path) -> list[str]:
    """The relative links of a page to a missing file or heading."""
    dead = []
    for link in links_and_anchors(page)[0]:
        address = urllib.parse.urlsplit(link)
        if address.scheme or address.netloc:
            continue
        target = (page.parent / urllib.parse.unquote(address.path)).resolve() if address.path else page
        if not target.exists() or (address.fragment and address.fragment not in links_and_anchors(target)[1]):
            dead.append(link)
    return dead


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_link_is_dead(page: Path) -> None:
    assert dead_links(page) == []


def test_dead_links_are_found(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# A `b` heading\n")
    page = tmp_path / "page.md"
    page.write_text(
        "[a](other.md) [b](other.md#a-b-heading) [c](https://example.com/none) [d](gone.md) ![e](none.png) "
        "[f](other.md#none) [g](#none)\n"
    )
    assert dead_links(page) == ["gone.md", "none.png", "other.md#none", "#none"]


def test_pictures_are_small() -> None:
    pictures = list((DOCS / "images").iterdir())
    assert pictures
    assert [picture for picture in pictures if picture.stat().st_size > LARGEST_IMAGE] == []


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` does."""
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    variables = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(build, cwd=ROOT, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_site_builds_and_loads_nothing_from_other_servers(site: Path) -> None:
    built = sorted(site.rglob("*.html"))
    assert len(built) >= len(list(DOCS.rglob("*.md")))
    for page in built:
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|iframe)[^>]*src=\"?([^\"> ]+)", text)
        loaded += re.findall(r"<link[^>]*rel=\"?(?:stylesheet|preconnect|icon)[^>]*href=\"?([^\"> ]+)", text)
        assert loaded
        assert [address for address in loaded if "//" in address] == [], page


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_browser_requests_only_the_sites_own_files(site: Path) -> None:
    with browse() as browser:
        for name in ("index.html", "reference.html"):
            seen = browser.open(site / name, 1200)
            assert seen.requests
            assert [address for address in seen.requests if not address.startswith(("file:", "blob:"))] == []
            assert seen.complaints == []
