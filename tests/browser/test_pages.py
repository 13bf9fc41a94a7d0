"""Every page on narrow and wide screens, light and dark, behind a slow network."""

from pathlib import Path

import pytest

from tests.browser.conftest import grave_faults, moved, open_page, slow_down
from tests.support.console_site import ConsoleSite

pytestmark = pytest.mark.asyncio(loop_scope="session")

LATENCY_MS = 300

# Each page with what is there once everything was read.
PAGES = {
    "now": "This version's record has no profile",
    "label": "No text was labelled by two people yet",
    "try": "It is published as every request is",
    "versions": "No curve lies beside this version",
    "letters": "There is no dead letter",
    "keys": "moved challenger to",
}


@pytest.mark.parametrize(("scheme", "width", "height"), [("light", 360, 740), ("dark", 2560, 1440)])
async def test_a_page_fits_its_screen_holds_still_and_has_no_serious_fault_behind_a_slow_network(
    browser, embedded_bootstrap: str, tmp_path: Path, scheme: str, width: int, height: int
) -> None:
    site = ConsoleSite(embedded_bootstrap, tmp_path)
    async with site.open() as address:
        await site.real_versions(tmp_path, 60, 20)
        await site.answer([f"maybe, number {number} is about a card" for number in range(3)])
        page = await open_page(
            browser, address, "all's token", viewport={"width": width, "height": height}, color_scheme=scheme
        )
        await page.get_by_text(PAGES["now"]).wait_for()
        await slow_down(page, LATENCY_MS)
        await page.reload()
        for name, last in PAGES.items():
            await page.goto(f"{address}#/{name}")
            await page.get_by_text(last).first.wait_for()
            assert await page.evaluate("document.documentElement.scrollWidth") <= width, name
            assert await moved(page) == [], name
            assert await grave_faults(page) == [], name
        assert page.said == []
