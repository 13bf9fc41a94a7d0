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
# How far what was there already moved by itself, as browsers measure it, and what did.
SHIFTS = """
window.shifts = [];
new PerformanceObserver((list) => {
  for (const one of list.getEntries()) {
    if (!one.hadRecentInput) window.shifts.push([one.value, one.sources.map((of) => of.node?.outerHTML?.slice(0, 80))]);
  }
}).observe({ type: "layout-shift", buffered: true });
"""
MOST_SHIFT = 0.1
"""What counts as good (web.dev, Cumulative Layout Shift)."""


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
    await page.add_init_script(SHIFTS)
    page.on("pageerror", lambda error: page.said.append(str(error)))
    page.on("console", lambda said: page.said.append(said.text) if "Content Security Policy" in said.text else None)
    await page.goto(address)
    if token is not None:
        await page.get_by_label("Token of an API key").fill(token)
        await page.get_by_role("button", name="Log in").click()
        await page.get_by_role("navigation").wait_for()
    return page


async def slow_down(page, latency_ms: int) -> None:
    """From now on everything that the page asks for takes so long at least."""
    network = await page.context.new_cdp_session(page)
    await network.send("Network.enable")
    conditions = {"offline": False, "latency": latency_ms, "downloadThroughput": -1, "uploadThroughput": -1}
    await network.send("Network.emulateNetworkConditions", conditions)


async def moved(page) -> list[object]:
    """What moved by itself since this was last asked, where it was too much in all."""
    shifts = await page.evaluate("() => window.shifts.splice(0)")
    return shifts if sum(value for value, _ in shifts) > MOST_SHIFT else []


async def grave_faults(page) -> list[str]:
    """What axe finds that is serious, with where."""
    await page.evaluate(AXE.read_text(encoding="utf-8"))
    found = json.loads(await page.evaluate("axe.run().then(found => JSON.stringify(found.violations))"))
    return [
        f"{one['id']}: {one['nodes'][0]['target']} {one['nodes'][0]['failureSummary']}"
        for one in found
        if one["impact"] in GRAVE
    ]
