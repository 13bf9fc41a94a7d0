"""The examples of the client's page and of the README, run as they stand in a folder with a headrace.toml."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.answered_site import Site, answered

LIMIT_S = 60
ROOT = Path(__file__).parents[2]
EXAMPLE = re.compile(r"```python\n(.*?)```", re.DOTALL)
EXAMPLES = [
    pytest.param(found, id=f"{page}-{number}")
    for page in ("docs/client.md", "README.md")
    for number, found in enumerate(EXAMPLE.findall((ROOT / page).read_text(encoding="utf-8")))
]


@pytest.fixture(scope="module")
def folder(embedded_bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    site = Site(embedded_bootstrap, idempotent=False)
    folder = tmp_path_factory.mktemp("client")
    (folder / "headrace.toml").write_text(site.toml())
    with answered(site):
        yield folder


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_runs_as_it_stands(example: str, folder: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", example], cwd=folder, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout
