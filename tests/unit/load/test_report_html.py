from __future__ import annotations

from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest

from headrace_load.report.html import page, write_report
from headrace_load.result import Comparison, Result
from tests.support.load_results import comparison_of, result_of

HOSTILE = "<script>alert(1)</script>\"'&amp;$a_b$</textarea><img src=//evil.example/x>"
LINKS = {"src", "href", "xlink:href", "srcset", "data", "action", "poster", "background"}
VOID = {"meta", "br", "img", "link", "input"}


class Page(HTMLParser):
    """What a browser sees: elements, links, texts, and whether everything that begins ends."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.text = text
        self.tags: list[str] = []
        self.links: list[str] = []
        self.styles: list[str] = []
        self.ids: list[str] = []
        self.texts: dict[str, str] = {}
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in LINKS]
        self.styles += [value or "" for name, value in attrs if name in {"style", "clip-path"}]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        tag = self.open[-1] if self.open else ""
        self.texts[tag] = self.texts.get(tag, "") + data


DOCUMENTS = {
    "run": lambda: result_of(rate=1234.0),
    "refused": lambda: result_of(refused="the producers were late", measured=False),
    "nothing answered": lambda: result_of(measured=False),
    "hostile": lambda: result_of(name=HOSTILE, refused=HOSTILE, measured=False),
    "comparison": lambda: comparison_of({"first": 900.0, HOSTILE: 250_000.0}, rounds=2),
}


@cache
def seen_page(name: str) -> tuple[Result | Comparison, Page]:
    document = DOCUMENTS[name]()
    return document, Page(page(document))


@pytest.fixture(params=list(DOCUMENTS))
def made(request: pytest.FixtureRequest) -> tuple[Result | Comparison, Page]:
    return seen_page(request.param)


def test_the_page_needs_nothing_else(made):
    _, seen = made
    assert not seen.open
    assert not {"script", "link", "img", "iframe", "object", "embed", "base"} & set(seen.tags)
    assert all(link.startswith("#") for link in seen.links)
    assert all(part.startswith("#") for style in seen.styles for part in style.split("url(")[1:])
    assert "@import" not in seen.texts["style"]
    assert "url(" not in seen.texts["style"]


def test_every_link_inside_the_page_has_one_place_to_go(made):
    _, seen = made
    assert len(seen.ids) == len(set(seen.ids))
    used = {link[1:] for link in seen.links} | {
        part.split(")")[0][1:] for style in seen.styles for part in style.split("url(")[1:]
    }
    assert used <= set(seen.ids)


def test_the_document_is_in_the_page_as_it_was(made):
    document, seen = made
    assert msgspec.json.decode(seen.texts["textarea"], type=Result | Comparison) == document


@pytest.mark.parametrize(("name", "count"), [("run", 6), ("nothing answered", 0), ("comparison", 4)])
def test_a_picture_for_everything_there_is_to_show(name, count):
    _, seen = seen_page(name)
    assert seen.tags.count("svg") == count


def test_the_page_shows_figures_and_verdict():
    _, seen = seen_page("run")
    assert "1,234" in seen.texts["td"]
    assert "The figures stand" in seen.texts["strong"]
    _, refused = seen_page("refused")
    assert "No figure stands" in refused.texts["strong"]
    assert "the producers were late" in refused.texts["div"]


def test_a_hostile_name_stays_a_name():
    _, seen = seen_page("hostile")
    assert seen.texts["h1"] == HOSTILE


def test_the_page_is_written_as_utf_8(tmp_path: Path):
    write_report(result_of(name="größer – 更大", measured=False), tmp_path / "report.html")
    assert "größer – 更大" in (tmp_path / "report.html").read_text(encoding="utf-8")
