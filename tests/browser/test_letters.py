"""Dead letters: what is shown of them, and where they may go."""

import pytest

from headrace.kafka.interface import Outgoing, connected
from headrace_schemas.dead_letters import dead_letter_headers
from headrace_schemas.records import DeadLetter
from tests.browser.conftest import grave_faults, open_page
from tests.support.console_site import ConsoleSite

pytestmark = pytest.mark.asyncio(loop_scope="session")

HOSTILE = "{\"text\": <script>document.title='owned'</script> \u202e\x00".encode()


async def bury(site: ConsoleSite, topic: str, value: bytes) -> None:
    """A record on ``topic``, and a letter about it; a topic that is not there gets no record."""
    letter = DeadLetter(
        topic=topic, partition=0, offset=0, timestamp_ms=1, stage="decode", error="bad-bytes", message="no JSON"
    )
    async with connected(site.cluster.producer()) as producer:
        if topic == site.names.requests:
            await producer.send(topic, Outgoing(value), partition=0)
        letters = Outgoing(value, None, dead_letter_headers(letter))
        await producer.send(site.names.dead_letters, letters, partition=0)


async def test_a_letter_is_shown_as_text_and_goes_back_once_and_only_to_allowed_topics(
    browser, site: ConsoleSite
) -> None:
    await bury(site, site.names.requests, HOSTILE)
    await bury(site, "somebody.elses", b"forged")
    page = await open_page(browser, f"{site.address}#/letters", "olga's token")
    await page.get_by_role("row", name="decode bad-bytes 2").wait_for()
    assert await grave_faults(page) == []
    await page.get_by_role("button", name="0@0").click()
    value = page.get_by_label("Value")
    await value.get_by_text("owned").wait_for()
    assert await value.text_content() == "{\"text\": <script>document.title='owned'</script> U+202EU+0000"
    assert await page.locator("main script").count() == 0
    await page.get_by_role("button", name="Replay").click()
    await page.get_by_text("Published again as").wait_for()
    assert await site.values(site.names.requests) == [HOSTILE, HOSTILE]
    await page.get_by_role("button", name="Replay").click()
    await page.get_by_role("alert").get_by_text("it was replayed before").wait_for()

    await page.get_by_role("button", name="0@1").click()
    await page.get_by_label("Value").get_by_text("forged").wait_for()
    await page.get_by_role("button", name="Replay").click()
    await page.get_by_role("alert").get_by_text("neither the requests topic nor the labels topic").wait_for()
    assert await site.values(site.names.requests) == [HOSTILE, HOSTILE]
    assert page.said == []
