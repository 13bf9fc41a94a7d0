"""People who label at two gateways: what one looks at, or has labelled, the other is not asked about."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import httpx
import pytest
import pytest_asyncio

from headrace.gateway.console.access import CSRF_HEADER
from tests.support.console_site import ConsoleSite


class Pages:
    """What the page Label asks for, of somebody at one of two gateways."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http

    async def log_in(self, who: str) -> None:
        answer = await self.http.post("api/login", json={"token": f"{who}'s token"})
        self.http.headers[CSRF_HEADER] = answer.json()["csrf"]
        # Over HTTP for several addresses, as behind one address of a proxy.
        self.http.headers["cookie"] = answer.headers["set-cookie"].partition(";")[0]

    async def ask(self, call: str, **body: object) -> httpx.Response:
        return await self.http.post(f"api/label/{call}", json=body)

    async def shown(self, skip: str | None = None) -> str | None:
        answer = await self.ask("next", queue="random", skip=skip)
        assert answer.status_code == 200, answer.text
        return (answer.json().get("item") or {}).get("at")


class Two:
    """A console, and another one on the same topics."""

    def __init__(self, site: ConsoleSite, stack: AsyncExitStack, addresses: list[str]) -> None:
        self.site = site
        self._stack = stack
        self.addresses = addresses

    async def person(self, who: str, at: int) -> Pages:
        address = self.addresses[at]
        client = httpx.AsyncClient(base_url=address, headers={"origin": address.removesuffix("/console/")}, timeout=30)
        pages = Pages(await self._stack.enter_async_context(client))
        await pages.log_in(who)
        return pages


@pytest_asyncio.fixture(loop_scope="module")
async def two(embedded_bootstrap: str) -> AsyncIterator[Two]:
    site = ConsoleSite(embedded_bootstrap)
    other = ConsoleSite(embedded_bootstrap, settings=site.settings)
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(site.open())
        await stack.enter_async_context(other.console)
        second = await stack.enter_async_context(other.served())
        await site.versions("v1")
        await site.answer(
            [f"{word} card, {word[::-1]} text" for word in ("lost", "stolen", "late", "bent", "copied", "old")]
        )
        yield Two(site, stack, [first, second])


async def test_all_texts_are_labelled_once_by_people_at_two_gateways(two: Two) -> None:
    people = [await two.person("ana", 0), await two.person("ben", 1)]
    looked = [await one.shown() for one in people]
    seen = set(looked)
    assert len(seen) == 2
    for _ in range(2):
        for number, one in enumerate(people):
            answer = await one.ask("give", queue="random", at=looked[number], label="card")
            looked[number] = answer.json()["item"]["at"]
            assert looked[number] not in seen
            seen.add(looked[number])
    for number, one in enumerate(people):
        answer = await one.ask("give", queue="random", at=looked[number], label="card")
        assert answer.json().get("item") is None
    assert sorted(one.by for one in (await two.site.labels()).values() if one) == ["ana"] * 3 + ["ben"] * 3


async def test_people_who_ask_at_once_get_different_texts(two: Two) -> None:
    people = [await two.person("ana", number % 2) for number in range(6)]
    looked = await asyncio.gather(*(one.shown() for one in people))
    assert None not in looked
    assert len(set(looked)) == 6
    late = await two.person("ben", 0)
    assert await late.shown() is None


async def test_what_is_skipped_or_labelled_or_undone_at_one_gateway_is_known_at_the_other(two: Two) -> None:
    ana, ben, cy = [await two.person(who, at) for who, at in (("ana", 0), ("ben", 1), ("all", 1))]
    first = await ana.shown()
    second = await ben.shown()
    skipped = first
    await ana.shown(skip=skipped)
    assert await ben.shown() == second  # keeps what is held
    assert await cy.shown() == skipped
    given = await cy.ask("give", queue="random", at=skipped, label="card")
    assert given.status_code == 200
    await cy.ask("undo")
    # Taken back: it is its own again, and nobody else's.
    assert await cy.shown() == skipped
    refused = await ben.ask("give", queue="random", at=skipped, label="card")
    assert refused.status_code == 409


@pytest.mark.parametrize("at", [0, 1])
async def test_a_page_whose_calls_go_to_another_gateway_goes_on_there(two: Two, at: int) -> None:
    ana = await two.person("ana", at)
    shown = await ana.shown()
    moved = two.addresses[1 - at]
    ana.http.base_url = moved
    ana.http.headers["origin"] = moved.removesuffix("/console/")
    answer = await ana.ask("give", queue="random", at=shown, label="card")
    assert answer.status_code == 200, answer.text
    assert len([one for one in (await two.site.labels()).values() if one]) == 1
