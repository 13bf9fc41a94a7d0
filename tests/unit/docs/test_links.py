"""Every relative link of the pages leads to a file that is there, and every anchor to a heading of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "load").rglob("*.md"),
        *(ROOT / "schemas").rglob("*.md"),
    ]
)
FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^()\s]+)\)")
HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The names that GitHub gives to a page's headings."""
    found: set[str] = set()
    for heading in HEADING.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").strip().lower()
        name = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        number = next(number for number in range(len(found) + 1) if _numbered(name, number) not in found)
        found.add(_numbered(name, number))
    return found


def _numbered(name: str, number: int) -> str:
    return f"{name}-{number}" if number else name


LINKS = [
    (page, link)
    for page in PAGES
    for link in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8")))
    if "://" not in link
]


def test_the_pages_have_links():
    assert len(LINKS) > 50


@pytest.mark.parametrize(
    ("page", "link"), [pytest.param(page, link, id=f"{page.relative_to(ROOT)}-{link}") for page, link in LINKS]
)
def test_a_link_leads_somewhere(page: Path, link: str):
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    assert target.exists(), f"{page.relative_to(ROOT)} links to {path}, which is not there"
    assert not anchor or anchor in anchors(target), f"{link}: {target.name} has no such heading"
