"""What happens to topics under running workers: made anew, grown, their records deleted by retention."""

from __future__ import annotations

import asyncio
import signal

from headrace_load.processes import headrace
from load.chaos.fault import Fault
from load.chaos.faults.expecting import answered, begun_anew, published, refused
from load.chaos.stream import PARTITIONS
from load.chaos.world import World

AWAY_S = 3.0
MORE = 6
"""Partitions of a topic that has grown."""
TEXTS = tuple(f"beside the stream {number}" for number in range(50))
LOOKS = {"kafka.metadata_max_age_ms": "2000"}
"""How soon workers and their groups see partitions that are new."""
EVERYTHING = 2**62


async def requests_made_anew(world: World) -> None:
    """Requests are deleted with some unanswered in it, and made again: the workers must not take one for the other."""
    workers = tuple(world.workers.running.values())
    for worker in workers:
        worker.signal(signal.SIGSTOP)
    await world.wait(AWAY_S)
    await world.stream.end()
    await world.keep()
    await _made_anew(world)
    for worker in workers:
        worker.signal(signal.SIGCONT)
    await refused(workers, world.system.requests, "made anew", "new results topic")
    world.said += [(partition, 0, EVERYTHING) for partition in await world.cluster.leaders(world.system.requests)]
    world.notes.append("workers stopped with code 3 and named the topic; a new group goes on")
    await begun_anew(world, TEXTS)


async def requests_with_offsets_again(world: World) -> None:
    """While no worker runs, requests are made anew and filled past where the old ones ended: only the CRC tells."""
    workers = tuple(world.workers.running.values())
    sent = await world.stream.end()
    await world.stream.settle(AWAY_S)
    await world.workers.end()
    await world.keep()
    await _made_anew(world)
    async with asyncio.TaskGroup() as group:
        for partition in await world.cluster.leaders(world.system.requests):
            count = int((sent["partition"] == partition).sum()) + 100
            group.create_task(published(world, (f"anew {number}" for number in range(count)), partition=partition))
    again = [await world.workers.start(worker.name, ready=False) for worker in workers]
    await refused(again, world.system.requests, "not the one that was answered", "new results topic")
    world.notes.append("workers stopped with code 3 and named a request; a new group goes on")
    await begun_anew(world, TEXTS)


async def grown(world: World) -> None:
    """Both topics get more partitions, as `headrace topics apply --grow` does it: results first."""
    await _grow(world)
    await _answered_in_new_partitions(world)


async def requests_grown_first(world: World) -> None:
    """Somebody adds partitions to the requests alone: the workers answer the old ones, say what is missing, and with it
    they answer the new ones too.
    """
    workers = tuple(world.workers.running.values())
    async with world.cluster.topics() as topics:
        await topics.add_partitions(world.system.requests, MORE)
    await world.until(
        lambda: any(worker.events("partitions.unanswerable") for worker in workers),
        "a worker's word of what is missing",
    )
    said = [str(event["why"]) for worker in workers for event in worker.events("partitions.unanswerable")]
    assert all(f"missing in {world.system.results}" in why and "topics apply --grow" in why for why in said), said
    for partition in range(PARTITIONS):
        await answered(world.system, await published(world, TEXTS, partition=partition))
    await _grow(world)
    await _answered_in_new_partitions(world)
    assert tuple(world.workers.running.values()) == workers, "a worker ended and was started again"
    world.notes.append("workers answered the old partitions, named what is missing, and with it went on by themselves")


async def overtaken_while_away(world: World) -> None:
    """Retention deletes requests while no worker runs: the next ones say which are lost."""
    await world.workers.end()
    await world.wait(AWAY_S)
    await _delete_requests(world)
    await world.staffed()
    _said_lost(world)


async def overtaken(world: World) -> None:
    """Retention deletes requests in front of workers that stood still for a moment, within their sessions."""
    workers = tuple(world.workers.running.values())
    for worker in workers:
        worker.signal(signal.SIGSTOP)
    await world.wait(AWAY_S)
    await _delete_requests(world)
    for worker in workers:
        worker.signal(signal.SIGCONT)
    await world.until(
        lambda: any(worker.events("requests.lost") for worker in workers), "a worker's word of lost requests"
    )
    await world.wait(1.0)
    _said_lost(world)


def _said_lost(world: World) -> None:
    ranges = [
        (int(str(event["first"])), int(str(event["last"])))
        for worker in world.workers.running.values()
        for event in worker.events("requests.lost")
    ]
    assert ranges, "requests were deleted, and no worker said so"
    world.notes.append(f"{sum(last - first + 1 for first, last in ranges):,} requests said lost to retention")


async def _delete_requests(world: World) -> None:
    before = dict.fromkeys(await world.cluster.leaders(world.system.requests), -1)
    await world.keep()
    await world.cluster.delete_records(world.system.requests, before)


async def _made_anew(world: World) -> None:
    requests = world.system.requests
    async with world.cluster.topics() as topics:
        old = (await topics.describe_topics([requests]))[requests]
        await topics.delete_topic(requests)
    await headrace("topics", "apply", "--partitions", str(old.partitions), environment=world.system.environment())


async def _grow(world: World) -> None:
    system = world.system
    await headrace("topics", "apply", "--partitions", str(MORE), "--grow", environment=system.environment())


async def _answered_in_new_partitions(world: World) -> None:
    for partition in range(PARTITIONS, MORE):
        found = await answered(world.system, await published(world, TEXTS, partition=partition))
        assert all(result.status == "ok" for result in found)


FAULTS = (
    Fault(
        name="broker-requests-made-anew",
        title="the requests topic deleted and made again",
        about="broker",
        strike=requests_made_anew,
        expect="said",
        sequence=False,
    ),
    Fault(
        name="broker-partitions-added",
        title="partitions added, results first",
        about="broker",
        strike=grown,
        sets=LOOKS,
        sequence=False,
    ),
    Fault(
        name="broker-partitions-added-wrongly",
        title="partitions added to the requests alone",
        about="broker",
        strike=requests_grown_first,
        sets=LOOKS,
        sequence=False,
    ),
    Fault(
        name="broker-retention-while-away",
        title="requests deleted by retention while no worker ran",
        about="broker",
        strike=overtaken_while_away,
        expect="said",
        sequence=False,
    ),
    Fault(
        name="broker-retention",
        title="requests deleted by retention in front of running workers",
        about="broker",
        strike=overtaken,
        expect="said",
        sequence=False,
    ),
    Fault(
        name="log-requests-with-offsets-again",
        title="requests made anew and filled past the old end",
        about="log",
        strike=requests_with_offsets_again,
        expect="said",
        sequence=False,
    ),
)
