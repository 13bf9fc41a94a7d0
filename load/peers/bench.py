"""The runs behind the table: backlogs drained in turn, and arrivals at a steady rate."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence

from msgspec import Struct

from headrace_load.comparison import differences
from headrace_load.contender import Contender
from headrace_load.result import Comparison, Result
from headrace_load.workload.spec import Backlog, FileTexts, Poisson, Workload
from load.peers.contenders import Drained, echo

WARM_UPS = 3
"""Drains by the echo that don't count: a cold broker is half as fast, and gains little from the fourth."""
WARM_UP_REQUESTS = 200_000
OPEN_SECONDS = 12.0
OPEN_WARM_UP = 4.0

Once = Callable[[Contender, Workload], Awaitable[Result]]
"""One run, on topics of its own."""


class Steady(Struct, frozen=True):
    """Contenders at one Poisson rate a second; the first is the one that the others are compared with."""

    rate: float
    contenders: tuple[Contender, ...]


async def drains(
    contenders: Sequence[Drained],
    texts: FileTexts,
    once: Once,
    say: Callable[[str], None],
    *,
    rounds: int,
    until: float,
) -> Comparison:
    """All contenders in turn, ``rounds`` times; each round begins with another. Warms the broker up before.

    No further round is begun that would, by the longest so far, not end before ``until`` by time.monotonic().
    """
    for _ in range(WARM_UPS):
        await once(echo(), backlog(texts, WARM_UP_REQUESTS))
    results: dict[str, list[Result]] = {one.contender.name: [] for one in contenders}
    longest = 0.0
    for number in range(rounds):
        begun = time.monotonic()
        if number and begun + longest > until:
            say(f"No time for round {number + 1} of {rounds}: the figures are of {number}.")
            break
        shift = number * len(contenders) // rounds
        for one in (*contenders[shift:], *contenders[:shift]):
            result = await once(one.contender, backlog(texts, one.requests))
            results[result.name].append(result)
            say(f"round {number + 1}, {result.name}: {result.rate:,.0f} texts/s {result.refused or ''}")
        longest = max(longest, time.monotonic() - begun)
    found = {name: tuple(of_name) for name, of_name in results.items()}
    return Comparison(results=found, differences=differences(found))


async def steady(asked: Steady, texts: FileTexts, once: Once, say: Callable[[str], None], *, rounds: int) -> Comparison:
    """Each contender in turn at the same arrivals, ``rounds`` times; answers are read after the run."""
    results: dict[str, list[Result]] = {contender.name: [] for contender in asked.contenders}
    for number in range(rounds):
        workload = Workload(
            arrivals=Poisson(rate=asked.rate),
            texts=texts,
            seed=number,
            seconds=OPEN_SECONDS,
            warm_up=OPEN_WARM_UP,
            read="after",
        )
        for contender in asked.contenders:
            result = await once(contender, workload)
            results[contender.name].append(result)
            latency = result.to_append
            shown = f"p50 {latency.p50:.1f} ms, p99 {latency.p99:.1f} ms" if latency else "no answer"
            say(f"{asked.rate:,.0f}/s, {contender.name}: {shown} {result.refused or ''}")
    found = {name: tuple(of_name) for name, of_name in results.items()}
    return Comparison(results=found, differences=differences(found))


def backlog(texts: FileTexts, requests: int) -> Workload:
    """A backlog of the texts in turn."""
    return Workload(arrivals=Backlog(requests=requests), texts=texts, read="after")
