"""How long requests wait with a labeller beside the worker and without: rounds in turn, in one run, and their ratio.

    python -m tests.benchmarks.labeller [--rounds 5] [--seconds 10] [--embedded]

One worker answers the same stream throughout. In every second round a labeller asks a local endpoint about all of it,
in batches of 16. The endpoint runs in this process, so its work is in the figures of these rounds too. A round begins
when the labeller has asked about a first text: its start is not measured.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import statistics
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import msgspec
import numpy as np

from headrace.client import Client
from headrace.demo.chat_server import chat_server
from headrace.kafka.brokers import apache_broker, embedded_broker
from headrace.security.private_folder import temporary_folder
from tests.support.labeller_site import RATE, Site
from tests.support.own_topics import LIMIT_S
from tests.support.random_versions import text
from tests.support.streams import answered, publish_steadily, waits
from tests.support.waiting import until


class Round(msgspec.Struct, frozen=True):
    """Milliseconds that ``requests`` waited."""

    requests: int
    p50: float
    p99: float


async def measured(client: Client, texts: Sequence[str], seconds: float) -> Round:
    """Publish ``texts`` for ``seconds``, and see how long each waited for its answer."""
    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, stop.set)
    due = await publish_steadily(client, texts, rate=RATE, stop=stop)
    waited = [one.answered_ms - one.due_ms for one in await waits(client, due)]
    return Round(len(waited), *(round(float(np.percentile(waited, at)), 1) for at in (50, 99)))


@contextlib.asynccontextmanager
async def broker(folder: Path, *, embedded: bool) -> AsyncIterator[str]:
    if embedded:
        async with embedded_broker() as bootstrap:
            yield bootstrap
    else:
        async with apache_broker(log_dir=folder / "kafka") as brokers:
            yield brokers.bootstrap


def begun_since(site: Site, asked: int) -> bool:
    """Whether a call of the teacher began after ``asked`` had."""
    return len(site.begun) > asked


async def main(rounds: int, seconds: float, *, embedded: bool) -> None:
    with temporary_folder("headrace-benchmark-") as folder:
        async with broker(folder, embedded=embedded) as bootstrap:
            site = Site(bootstrap, folder, embedded=embedded)
            found: dict[bool, list[Round]] = {False: [], True: []}
            with chat_server(site.server, site.port):
                async with site.place.worker(), site.place.client() as client:  # type: ignore[no-untyped-call]
                    # The worker's start is in no round.
                    await client.publish_many([text(1)])
                    await answered(client, 1)
                    for number in range(2 * rounds):
                        beside = bool(number % 2)
                        texts = [f"{text(place)} {number} {place}" for place in range(int(RATE * seconds * 2))]
                        async with site.labeller(f"labeller-{number}") if beside else contextlib.nullcontext():
                            if beside:
                                await site.leads(f"labeller-{number}")
                                await client.publish_many([f"{text(1)} warm {number}"])
                                await until(functools.partial(begun_since, site, len(site.begun)), LIMIT_S)
                            found[beside].append(await measured(client, texts, seconds))
                        one = found[beside][-1]
                        name = "with a labeller" if beside else "without"
                        sys.stdout.write(f"{name}: {one.requests} requests, p50 {one.p50} ms, p99 {one.p99} ms\n")
            for name in ("p50", "p99"):
                alone, labelled = ([float(getattr(one, name)) for one in found[which]] for which in (False, True))
                ratios = [one / other for one, other in zip(labelled, alone, strict=True)]
                sys.stdout.write(
                    f"{name}: {statistics.median(labelled):.1f} ms with a labeller, {statistics.median(alone):.1f} ms "
                    f"without; ratio of neighbouring rounds {statistics.median(ratios):.2f} "
                    f"({min(ratios):.2f} to {max(ratios):.2f})\n"
                )
            sys.stdout.write(f"the teacher was asked about {len(site.server.asked):,} texts\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--embedded", action="store_true")
    given = parser.parse_args()
    asyncio.run(main(given.rounds, given.seconds, embedded=given.embedded))
