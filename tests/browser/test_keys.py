"""Keys and usage: a key is made, its token shown once, and it is revoked; who did it is shown."""

import msgspec
import pytest

from headrace.kafka.interface import Outgoing, connected
from headrace.security.api_keys import matches
from headrace_schemas.codec import encode_usage
from headrace_schemas.records import ApiKey, Usage
from headrace_schemas.topics import usage_key
from tests.browser.conftest import grave_faults, open_page
from tests.support.console_site import ConsoleSite

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def keys_of(site: ConsoleSite) -> list[ApiKey]:
    return [msgspec.json.decode(value, type=ApiKey) for value in await site.values(site.names.keys) if value]


async def test_a_key_is_made_its_token_shown_once_and_it_is_revoked(browser, site: ConsoleSite) -> None:
    used = Usage(
        api_key="5f2b9c01d4e8a7b3",
        day="2026-10-05",
        process="a",
        calls=3,
        texts=1200,
        text_bytes=9,
        written_at_ms=0,
        tenant="<b>shop</b>",
    )
    async with connected(site.cluster.producer()) as producer:
        record = Outgoing(encode_usage(used), usage_key(used.api_key, used.day, used.process))
        await producer.send(site.names.usage, record, partition=0)
    page = await open_page(browser, f"{site.address}#/keys", "olga's token")
    await page.get_by_label("Note: whose it is").fill("the web shop")
    await page.get_by_label("Tenant, if any").fill("shop")
    await page.get_by_label("Texts a second").fill("50")
    await page.get_by_role("button", name="Add", exact=True).click()
    token = await page.get_by_label("Token", exact=True).input_value()
    assert await grave_faults(page) == []
    made = (await keys_of(site))[-1]
    assert matches(token, made)
    assert (made.tenant, made.note, made.texts_per_second, made.made_by) == ("shop", "the web shop", 50.0, "olga")
    await page.get_by_role("row", name=f"olga made API key {made.id} (the web shop), client").wait_for()
    await page.reload()
    await page.get_by_role("button", name=f"Revoke {made.id}").click()
    assert token not in await page.content()
    await page.get_by_role("button", name="Revoke for ever").click()
    await page.get_by_text("gateways refuse it within a second").wait_for()
    await page.get_by_role("row", name="olga revoked API key").wait_for()
    assert (await keys_of(site))[-1].revoked_by == "olga"
    await page.get_by_label("Month").select_option("2026-10")
    await page.get_by_role("row", name="<b>shop</b> 3 1,200 9").wait_for()
    assert await page.locator("main b").count() == 0
    assert page.said == []
