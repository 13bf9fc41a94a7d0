"""A real Chromium, where there is one, at a console on a real broker."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.console_site import ConsoleSite

AXE = Path(__file__).parent / "axe" / "axe.min.js"
GRAVE = ("serious", "critical")


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of Debian's chromium."""
    pytest.importorskip("playwright", reason="playwright is not installed: pip install '.[dev]'")
    found = shutil.which("chromium")
    if found is None:
        pytest.skip("there is no Chromium here: make debian installs it, where root may")
    return found


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser(chromium: str) -> AsyncIterator[object]:
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield started
        await started.close()


@pytest_asyncio.fixture(loop_scope="session")
async def site(embedded_bootstrap: str) -> AsyncIterator[ConsoleSite]:
    """The console, served; ``site.address`` is where."""
    made = ConsoleSite(embedded_bootstrap)
    async with made.open() as address:
        made.address = address
        yield made


async def open_page(browser, address: str, token: str | None = None, **context):
    """A page of a browser of its own, logged in with ``token``; it fails the test over an error in the page."""
    page = await (await browser.new_context(**context)).new_page()
    page.set_default_timeout(20_000)
    page.said = []
    page.on("pageerror", lambda error: page.said.append(str(error)))
    page.on("console", lambda said: page.said.append(said.text) if "Content Security Policy" in said.text else None)
    await page.goto(address)
    if token is not None:
        await page.get_by_label("Token of an API key").fill(token)
        await page.get_by_role("button", name="Log in").click()
        await page.get_by_role("navigation").wait_for()
    return page


async def grave_faults(page) -> list[str]:
    """What axe finds that is serious, with where."""
    await page.evaluate(AXE.read_text(encoding="utf-8"))
    found = json.loads(await page.evaluate("axe.run().then(found => JSON.stringify(found.violations))"))
    return [
        f"{one['id']}: {one['nodes'][0]['target']} {one['nodes'][0]['failureSummary']}"
        for one in found
        if one["impact"] in GRAVE
    ]
