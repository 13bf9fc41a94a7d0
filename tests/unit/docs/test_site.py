"""The site of the documentation builds strictly, and its pages from the code have everything that the code has."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.test_docs_commands import NOT_RUN, RUN

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = (sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder))
    built = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


def test_every_command_of_the_docs_is_in_the_reference(site: Path):
    page = (site / "reference/commands/index.html").read_text("utf-8")
    missing = [path for path in (*RUN, *NOT_RUN) if f">{path}<" not in page]
    assert not missing


def test_every_topic_and_record_is_in_the_reference(site: Path):
    wire = json.loads((ROOT / "schemas/headrace_schemas/generated/asyncapi.json").read_text("utf-8"))
    topics = (site / "reference/topics/index.html").read_text("utf-8")
    records = (site / "reference/records/index.html").read_text("utf-8")
    assert [one for one in wire["channels"] if f'id="{one.replace(".", "")}"' not in topics] == []
    assert [one for one in wire["components"]["messages"] if f'id="{one.lower()}"' not in records] == []


def test_the_pages_can_be_searched(site: Path):
    index = json.loads((site / "search/search_index.json").read_text("utf-8"))
    found = {page["location"] for page in index["docs"] if "MirrorMaker" in page["text"]}
    assert any(one.startswith("how-to/fail-over/") for one in found)


def test_no_page_asks_a_foreign_address_for_anything(site: Path):
    pages = [page for page in site.rglob("*.html") if page.name != "404.html"]
    assert len(pages) > 30
    for page in pages:
        text = page.read_text("utf-8")
        for asked in ('src="http', 'src="//', '<link rel="stylesheet" href="http', "fonts.googleapis"):
            assert asked not in text, page
