"""What happens to brokers, to topics and on the way there: cut, delayed, killed, paused, made anew, grown, deleted."""

from __future__ import annotations

import asyncio
import signal

from headrace_load.processes import headrace
from load.chaos import broken
from load.chaos.cluster import OF_GROUPS, PRODUCE, Passing, Way
from load.chaos.faults.actions import answered, at, begun_anew, published, refused
from load.chaos.faults.client import covered, grows, repeats, running, twice
from load.chaos.world import PARTITIONS, Fault, World, declares

FAULTS: list[Fault] = []
fault = declares(FAULTS)

BACKLOG = 6_000
SLOW_BATCH = 64
"""worker.max_batch of the slow worker."""
BEYOND_S = 8.0
"""How long a worker without a lease would go on beside the one that took over."""


@fault("network-cut", "all connections reset", sequence=True)
async def cut(world: World) -> None:
    """All connections of all workers are reset at once."""
    world.cluster.cut()
    await world.wait(3.0)


@fault("network-flapping", "all connections reset, twice a second", sequence=True)
async def cut_again_and_again(world: World) -> None:
    """Every half second, for eight seconds."""
    for _ in range(16):
        world.cluster.cut()
        await world.wait(0.5)


@fault("network-lost-acknowledgement", "connection reset between an append and its acknowledgement", sequence=True)
async def acknowledgement_cut(world: World) -> None:
    """Answers are appended, and the connection ends before their acknowledgement has come."""

    async def act() -> bool:
        world.cluster.cut()
        return False

    for _ in range(3):
        await at(world, world.any_worker(), Way.FROM_BROKER, PRODUCE, act)
        await world.wait(1.0)


@fault("network-delayed", "200 ms on every frame, both ways", sequence=True)
async def delayed(world: World) -> None:
    """Each frame takes 200 ms longer, both ways, for ten seconds."""
    with world.cluster.hindered(delay_s=0.2):
        await world.wait(10.0)


@fault("network-swallowed", "frames vanish for 10 s", sequence=True)
async def swallowed(world: World) -> None:
    """For ten seconds frames vanish while connections stay open."""
    with world.cluster.hindered(swallows=True):
        await world.wait(10.0)


@fault("network-refused", "connections refused for 10 s", sequence=True)
async def connections_refused(world: World) -> None:
    """For ten seconds connections are refused, and those that were open are reset."""
    with world.cluster.hindered(refuses=True):
        world.cluster.cut()
        await world.wait(10.0)


@fault(
    "network-coordinator-alone",
    "a slow worker loses its group's coordinator and no broker, for about 15 s",
    program=broken.command("slow_model"),
    sets={"worker.max_batch": str(SLOW_BATCH)},
)
async def coordinator_alone(world: World) -> None:
    """A slow worker with much to do loses its group's coordinator, and no broker. The other takes over, and a reader
    starts again meanwhile.
    """
    worker = world.any_worker()
    (other,) = (one for one in world.workers.running.values() if one is not worker)
    partitions = sorted(await world.cluster.leaders(world.system.requests))
    file = world.folder / "read"
    reading = (world.system.bootstrap, world.system.results, str(file))

    async def hook(passing: Passing) -> bool:
        of_worker = passing.way is Way.TO_BROKER and passing.request.client == worker.name
        return not (of_worker and passing.request.api in OF_GROUPS)

    def assigned() -> int:
        return len(worker.events("partitions.assigned"))

    async with running(world, "reading", *reading) as reader:
        await grows(world, file)
        worker.signal(signal.SIGUSR1)
        await published(world, (f"much to do {number}" for number in range(BACKLOG)))
        before = assigned()
        with world.cluster.hindered(hook=hook):
            await world.until(
                lambda: other.events("partitions.assigned")[-1]["partitions"] == partitions,
                f"{other.name} takes all partitions over",
            )
            await world.wait(BEYOND_S)
            await reader.kill()
            again = await repeats(world)
            most = SLOW_BATCH * len(partitions)
            assert again <= most, f"{again} answers were appended again, more than a batch a partition ({most})"
            assert len(worker.events("lease.lost")) == 1, f"{worker.name} did not say once that its lease was lost"
            worker.signal(signal.SIGUSR2)
    await world.until(lambda: assigned() > before, f"{worker.name} joins afresh")
    async with running(world, "reading", *reading) as reader:
        await covered(world, [file])
        await reader.kill()
    seen_again = twice(file)
    assert not seen_again, f"a reader that was started again was handed {seen_again} answers twice"
    world.notes.append(
        "it gave its partitions up by itself and joined afresh; a reader started again saw nothing twice"
    )


AWAY_S = 5.0
PAUSED_S = 10.0
UNDER_REPLICATED_S = 30.0
SETTLING_S = 5.0
"""After that time, what was on its way when a node went is acknowledged or refused."""
SHORT_S = 2.0


@fault("broker-restarted", "the only one killed, back after 2 s", sequence=True)
async def restarted(world: World) -> None:
    """The only node is killed, and started two seconds later."""
    await _away(world, 0, SHORT_S)


@fault("broker-leader-killed", "a leader killed, back after 5 s", nodes=3, sequence=True)
async def leader_killed(world: World) -> None:
    """The node that leads one of the results' partitions is killed; others are elected, and it comes back."""
    await _away(world, await _leader(world), AWAY_S)


@fault("broker-controller-killed", "the controller killed, back after 5 s", nodes=3, sequence=True)
async def controller_killed(world: World) -> None:
    """The active controller is killed: nothing can be elected before there is another."""
    controller = await world.cluster.controller()
    await _away(world, controller, AWAY_S)
    now = await world.cluster.controller()
    assert now != controller, f"node {controller} is still the controller, so nothing happened"


@fault("broker-each-in-turn", "each of three killed in turn", nodes=3, sequence=True)
async def each_in_turn(world: World) -> None:
    """Each of the nodes is killed and comes back; the next goes before all that it missed is copied."""
    for node in world.rng.sample(range(world.cluster.nodes), world.cluster.nodes):
        await _away(world, node, SHORT_S)
        await world.moment()


@fault("broker-all-killed", "all three killed at once", nodes=3, sequence=True)
async def all_killed(world: World) -> None:
    """All nodes are killed at once, and all come back."""
    nodes = range(world.cluster.nodes)
    for node in nodes:
        world.cluster.brokers.kill(node)
    await world.wait(SHORT_S)
    for node in nodes:
        assert not world.cluster.brokers.processes[node].running, f"node {node} lives on"
    await asyncio.gather(*(world.cluster.brokers.start(node) for node in nodes))


@fault("broker-paused", "a leader stopped (SIGSTOP) for 10 s", nodes=3, sequence=True)
async def paused(world: World) -> None:
    """A leader is stopped (SIGSTOP) past its session: it holds its connections and answers nobody, then it goes on."""
    node = await _leader(world)
    world.cluster.brokers.pause(node)
    await world.wait(PAUSED_S)
    assert node not in (await world.cluster.leaders(world.system.results)).values(), f"node {node} still leads"
    world.cluster.brokers.resume(node)
    await world.wait(SHORT_S)


@fault("broker-under-replicated", "min.insync.replicas of the results not met for 30 s", nodes=3)
async def under_replicated(world: World) -> None:
    """Results need three replicas, and for half a minute there are two: nothing is acknowledged, nothing is lost."""
    results = world.system.results
    await world.cluster.alter(results, {"min.insync.replicas": "3"})
    controller = await world.cluster.controller()
    node = world.rng.choice([node for node in range(world.cluster.nodes) if node != controller])
    world.cluster.brokers.kill(node)
    await world.wait(SETTLING_S)
    before = world.stream.answered
    await world.wait(UNDER_REPLICATED_S - SETTLING_S)
    assert world.stream.answered == before, "answers were acknowledged by fewer replicas than the topic asks for"
    await world.cluster.brokers.start(node)
    await world.until(lambda: world.stream.answered > before, "another answer")
    await world.cluster.alter(results, {"min.insync.replicas": "2"})


async def _leader(world: World) -> int:
    leaders = await world.cluster.leaders(world.system.results)
    return world.rng.choice(sorted(set(leaders.values())))


async def _away(world: World, node: int, seconds: float) -> None:
    """A node is killed and started again."""
    world.cluster.brokers.kill(node)
    await world.wait(seconds)
    assert not world.cluster.brokers.processes[node].running, f"node {node} lives on"
    await world.cluster.brokers.start(node)


STOPPED_S = 3.0
MORE = 6
"""Partitions of a topic that has grown."""
TEXTS = tuple(f"beside the stream {number}" for number in range(50))
LOOKS = {"kafka.metadata_max_age_ms": "2000"}
"""How soon workers and their groups see partitions that are new."""
EVERYTHING = 2**62


@fault("broker-requests-made-anew", "the requests topic deleted and made again", expect="said")
async def requests_made_anew(world: World) -> None:
    """The requests topic is deleted with unanswered requests in it and made again: workers must not mix the two up."""
    workers = tuple(world.workers.running.values())
    for worker in workers:
        worker.signal(signal.SIGSTOP)
    await world.wait(STOPPED_S)
    await world.stream.end()
    await world.keep()
    await _made_anew(world)
    for worker in workers:
        worker.signal(signal.SIGCONT)
    await refused(workers, world.system.requests, "made anew", "new results topic")
    world.said += [(partition, 0, EVERYTHING) for partition in await world.cluster.leaders(world.system.requests)]
    world.notes.append("workers stopped with code 3 and named the topic; a new group goes on")
    await begun_anew(world, TEXTS)


@fault("broker-partitions-added", "partitions added, results first", sets=LOOKS)
async def grown(world: World) -> None:
    """Both topics get more partitions, as `headrace topics apply --grow` does it: results first."""
    await _grow(world)
    await _answered_in_new_partitions(world)


@fault("broker-partitions-added-wrongly", "partitions added to the requests alone", sets=LOOKS)
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


@fault("broker-retention-while-away", "requests deleted by retention while no worker ran", expect="said")
async def overtaken_while_away(world: World) -> None:
    """Retention deletes requests while no worker runs: the next ones say which are lost."""
    await world.workers.end()
    await world.wait(STOPPED_S)
    await _delete_requests(world)
    await world.staffed()
    _said_lost(world)


@fault("broker-retention", "requests deleted by retention in front of running workers", expect="said")
async def overtaken(world: World) -> None:
    """Retention deletes requests in front of workers that stood still for a moment, within their sessions."""
    workers = tuple(world.workers.running.values())
    for worker in workers:
        worker.signal(signal.SIGSTOP)
    await world.wait(STOPPED_S)
    await _delete_requests(world)
    for worker in workers:
        worker.signal(signal.SIGCONT)
    await world.until(
        lambda: any(worker.events("requests.lost") for worker in workers), "a worker's word of lost requests"
    )
    await world.wait(1.0)
    _said_lost(world)


@fault("log-requests-with-offsets-again", "requests made anew and filled past the old end", expect="said")
async def requests_with_offsets_again(world: World) -> None:
    """While no worker runs, the requests topic is made anew and filled past the old end: only the CRC shows it."""
    workers = tuple(world.workers.running.values())
    sent = await world.stream.end()
    await world.stream.settle(STOPPED_S)
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
