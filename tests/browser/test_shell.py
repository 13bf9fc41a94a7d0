"""Login, what is shown live, and a connection that is lost."""

import pytest

from headrace_schemas.records import Score
from tests.browser.conftest import grave_faults, open_page
from tests.support.console_site import ConsoleSite

# One browser for all: starting it takes longer than most tests.
pytestmark = pytest.mark.asyncio(loop_scope="session")

HOSTILE = "<img src=x onerror=document.title='owned'>\u202egnp.exe\u0007"


async def test_a_token_logs_in_and_figures_come_by_themselves(browser, site: ConsoleSite) -> None:
    await site.versions("v1")
    page = await open_page(browser, site.address)
    assert await grave_faults(page) == []
    await page.get_by_label("Token of an API key").fill("nobody's token")
    await page.get_by_role("button", name="Log in").click()
    await page.get_by_role("alert").get_by_text("no token of an API key").wait_for()
    await page.get_by_label("Token of an API key").fill("cid's token")
    await page.keyboard.press("Enter")
    await page.get_by_role("heading", name="Now").wait_for()
    await page.get_by_text("Connected", exact=True).wait_for()
    # The champion was moved before anybody watched, and the text of its reason is there.
    await page.get_by_role("cell", name="the first").wait_for()

    await site.answer(["my card is lost", "a refund please", "another card"])
    await page.get_by_role("row", name="card 2 66.7 %").wait_for()
    await page.get_by_role("row", name="ok 3 100.0 %").wait_for()
    await page.get_by_text("This version's record has no profile to measure against").wait_for()
    await site.ask(["nobody answers this"])
    await page.locator("dt:text-is('Lag') + dd:text-matches('^1 ')").wait_for()
    assert await grave_faults(page) == []
    assert page.said == []


async def test_a_label_of_a_stranger_is_shown_as_text(browser, site: ConsoleSite) -> None:
    page = await open_page(browser, site.address, "cid's token")
    await page.get_by_text("Connected", exact=True).wait_for()
    await site.answer(["x"], lambda _: (HOSTILE, (Score(HOSTILE, 1.0),)))
    cell = page.locator("td .stranger", has_text="onerror")
    await cell.wait_for()
    assert await cell.text_content() == "<img src=x onerror=document.title='owned'>U+202Egnp.exeU+0007"
    assert await page.locator("main img").count() == 0
    assert "owned" not in await page.title()


async def test_a_lost_connection_is_said_and_comes_back_by_itself(browser, embedded_bootstrap: str) -> None:
    site = ConsoleSite(embedded_bootstrap)
    await site.create_topics()
    async with site.console:
        async with site.served() as address:
            page = await open_page(browser, address, "cid's token")
            await page.get_by_text("Connected", exact=True).wait_for()
        await page.get_by_text("Connection lost at").wait_for()
        async with site.served():
            await page.get_by_text("Connected", exact=True).wait_for()
            assert await page.get_by_text("Connection lost").count() == 0
