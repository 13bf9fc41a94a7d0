"""Who guesses API keys, or the places of others, is told to come again; who knows its own is served."""

from __future__ import annotations

import itertools

import pytest

from headrace.core.clock import SystemClock
from headrace.gateway.guessing import MOST, Guesses, address_of
from headrace.gateway.problems import ProblemError
from tests.support.gateways import GatewaySite
from tests.support.waiting import until


class Standing(SystemClock):
    """A clock that stands, so that nothing is forgiven meanwhile."""

    def monotonic(self) -> float:
        return 0.0


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def wrong(number: int) -> dict[str, str]:
    return bearer(f"hr_{number:016x}_{'x' * 43}")


async def test_guesses_of_keys_and_places_are_bounded_and_nobody_else_is_kept_out(site: GatewaySite) -> None:
    async with site.gateway(keys=True, guesses=20, proxies=("127.0.0.1",)) as gateway:
        for guesses in (gateway.gateway.guessed_places, gateway.gateway.access._guesses):
            guesses._clock = Standing()
        mine, other = await site.add_key(tenant="shop"), await site.add_key(tenant="bank")
        await gateway.known(mine, other)
        place = (await gateway.classify("a", headers=bearer(other))).json()["place"]
        own = (await gateway.classify("a", headers=bearer(mine))).json()["place"]

        # From one address: as many wrong keys as are allowed, then none is looked at, also a right one.
        guesser = {"x-forwarded-for": "203.0.113.7"}
        found = [await gateway.classify("a", headers={**wrong(number), **guesser}) for number in range(40)]
        statuses = [reply.status_code for reply in found]
        assert statuses == [401] * 20 + [429] * 20
        refused = next(reply for reply in found if reply.status_code == 429)
        assert refused.json()["type"].endswith("guessing")
        assert int(refused.headers["retry-after"]) >= 1
        assert (await gateway.classify("a", headers={**bearer(mine), **guesser})).status_code == 429
        # Another address, and the one where this key was right before, are served.
        assert (await gateway.classify("a", headers=bearer(mine))).status_code == 200
        assert (
            await gateway.classify("a", headers={**bearer(mine), "x-forwarded-for": "203.0.113.8"})
        ).status_code == 200
        for _ in range(40):
            await gateway.classify("a", headers=wrong(0))
        assert (await gateway.classify("a", headers=wrong(1))).status_code == 429
        assert (await gateway.classify("a", headers=bearer(mine))).status_code == 200

        # Places of others, whatever the address.
        def look(number: int, token: str, where: str = place):
            headers = {**bearer(token), "x-forwarded-for": f"198.51.100.{number}"}
            return gateway.http.get(f"/v1/answers/{where}", headers=headers)

        statuses = [(await look(number, mine)).status_code for number in range(40)]
        assert statuses == [404] * 20 + [429] * 20
        assert (await look(50, other)).status_code == 200
        # A caller's own places count for nothing.
        assert {(await look(number, other)).status_code for number in range(30)} == {200}
        assert (await look(60, mine, own)).status_code == 429


async def test_two_gateways_keep_to_a_quota_together(site: GatewaySite) -> None:
    async with site.gateway(keys=True) as first, site.gateway(keys=True) as second:
        token = await site.add_key(texts_per_second=0.001, burst=40)
        await first.known(token)
        await second.known(token)
        await until(lambda: len(first.gateway.owned) == len(second.gateway.owned) == 2)
        assert first.gateway.share == second.gateway.share == 0.5
        taken = 0
        for gateway in itertools.chain.from_iterable(itertools.repeat((first, second), 40)):
            reply = await gateway.classify("a", headers=bearer(token))
            assert reply.status_code in (200, 429)
            taken += reply.status_code == 200
        assert taken == 40


def test_the_table_of_guessers_is_bounded_and_an_ipv6_network_is_one_caller() -> None:
    guesses = Guesses(1, "wrong API keys", SystemClock())
    for number in range(MOST + 50):
        guesses.wrong(f"10.0.{number >> 8}.{number & 255}")
    assert len(guesses) == MOST
    one, two = address_of(("2001:db8::1", 1)), address_of(("2001:db8::ffff", 1))
    assert one == two != address_of(("2001:db8:0:1::1", 1))
    guesses.wrong(one)
    with pytest.raises(ProblemError, match="Too many wrong API keys"):
        guesses.check(two)
