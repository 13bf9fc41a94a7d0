"""Every file that a page names by its path is there, and every test that it names by its beginning."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FILES = {
    f"/{path.relative_to(ROOT)}"
    for folder in ("services", "schemas", "load", "tests", "deploy")
    for path in (ROOT / folder).rglob("*.py")
}
FILE = re.compile(r"`([\w/]+\.py)(?:::\w+)?`")
FOLDER = re.compile(r"`((?:services|schemas|load|tests|deploy|worker|trainer|learning|kafka|model)/[\w/]*/)`")
TEST = re.compile(r"`([a-z0-9_]+_)\*`")
TESTS = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))


def named(pattern: re.Pattern[str]) -> list[object]:
    return [
        pytest.param(name, id=f"{page.name}-{name}")
        for page in PAGES
        for name in dict.fromkeys(pattern.findall(page.read_text(encoding="utf-8")))
    ]


@pytest.mark.parametrize("name", named(FILE))
def test_a_named_file_is_there(name: str):
    assert any(path.endswith(f"/{name}") for path in FILES)


@pytest.mark.parametrize("name", named(FOLDER))
def test_a_named_folder_is_there(name: str):
    assert any(f"/{name}" in path for path in FILES) or (ROOT / name).is_dir()


@pytest.mark.parametrize("name", named(TEST))
def test_a_named_test_is_there(name: str):
    assert re.search(rf"def \w*{name}", TESTS)
