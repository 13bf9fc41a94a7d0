"""What the topics on a cluster lack, decided from data alone; and then done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from headrace.core.text import quantity
from headrace.kafka.interface import Admin, TopicExistsError, TopicSpec, TopicState
from headrace_schemas.topics import DEAD_LETTERS, MIN_INSYNC_REPLICAS, REPLICATION, REQUESTS, RESULTS, Topic


class WantedTopic(msgspec.Struct, frozen=True):
    """A topic as it should be, under the name that it has on this cluster; ``topic.name`` is its own, unprefixed."""

    name: str
    topic: Topic


class Drift(msgspec.Struct, frozen=True):
    """One thing about a topic that is not as it should be. ``key`` is a Kafka setting, partitions or replication."""

    topic: str
    key: str
    found: str
    wanted: str


class Growth(msgspec.Struct, frozen=True):
    """Partitions to add, so that ``topic`` has ``total``."""

    topic: str
    total: int


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is missing, in the order in which it has to be done, and what is not as it should be."""

    create: tuple[TopicSpec, ...]
    grow: tuple[Growth, ...]
    drift: tuple[Drift, ...]
    brokers: int

    @property
    def shortcoming(self) -> str | None:
        """What the promise "nothing lost" lacks on a cluster as small as this, None when nothing."""
        if self.brokers >= REPLICATION:
            return None
        copies = quantity(self.brokers, "copy", "copies")
        brokers = quantity(self.brokers, "broker")
        return (
            f"This cluster has {brokers}, so a record has {copies} and is acknowledged with one: what a lost disk held "
            f"is lost. The promise that nothing is lost needs {REPLICATION} brokers, replication {REPLICATION} and "
            f"min.insync.replicas {MIN_INSYNC_REPLICAS}."
        )


def plan(wanted: Sequence[WantedTopic], found: Mapping[str, TopicState], brokers: int) -> Plan:
    """Compare what is wanted with what was found on a cluster of ``brokers`` brokers.

    The answer to a request goes to the results partition of the same number, so results (and dead letters) have at
    least as many partitions as requests, wanted or found, and are created and grown before them.
    """
    replication = min(REPLICATION, brokers)
    ordered = sorted(wanted, key=_order)
    partitions = _partitions(ordered, found)
    create: list[TopicSpec] = []
    grow: list[Growth] = []
    drift: list[Drift] = []
    for one in ordered:
        settings = one.topic.settings(replication)
        total = partitions[one.name]
        state = found.get(one.name)
        if state is None:
            create.append(TopicSpec(name=one.name, partitions=total, replication=replication, config=settings))
            continue
        if state.partitions != total:
            drift.append(Drift(one.name, "partitions", str(state.partitions), str(total)))
        if state.partitions < total:
            grow.append(Growth(one.name, total))
        if state.replication < replication:
            drift.append(Drift(one.name, "replication", str(state.replication), str(replication)))
        drift += [
            Drift(one.name, key, state.config.get(key, "not set"), value)
            for key, value in settings.items()
            if state.config.get(key) != value
        ]
    return Plan(create=tuple(create), grow=tuple(grow), drift=tuple(drift), brokers=brokers)


async def look(admin: Admin, wanted: Sequence[WantedTopic]) -> Plan:
    """Return the plan for the cluster as it is now."""
    found = await admin.describe_topics([one.name for one in wanted])
    return plan(wanted, found, await admin.broker_count())


async def carry_out(admin: Admin, decided: Plan, *, grow: bool) -> None:
    """Create what is missing and, with ``grow``, add partitions. Nothing is ever deleted or set otherwise."""
    for spec in decided.create:
        try:
            await admin.create_topic(spec)
        except TopicExistsError:
            continue  # another process does the same beside us, and the next look compares it
    for growth in decided.grow if grow else ():
        await admin.add_partitions(growth.topic, growth.total)


def _order(wanted: WantedTopic) -> int:
    """Where answers go comes first, requests last: nobody may send one that can't be answered yet."""
    return {RESULTS: 0, DEAD_LETTERS: 0, REQUESTS: 2}.get(wanted.topic.name, 1)


def _partitions(wanted: Sequence[WantedTopic], found: Mapping[str, TopicState]) -> dict[str, int]:
    """How many partitions each topic should have, by its name on the cluster, what is there considered."""
    there = {one.topic.name: found[one.name].partitions for one in wanted if one.name in found}
    own = {one.topic.name: one.topic.partitions for one in wanted}
    requests = max(own.get(REQUESTS, 0), there.get(REQUESTS, 0))
    totals = {}
    for one in wanted:
        topic, present = one.topic, there.get(one.topic.name, 0)
        if topic.name in (RESULTS, DEAD_LETTERS):
            totals[one.name] = max(topic.partitions, requests, present)
        elif topic.name == REQUESTS:
            totals[one.name] = requests
        elif topic.partitions > 1 and present:
            totals[one.name] = present  # any count will do, and no key ever has to move
        else:
            totals[one.name] = topic.partitions
    return totals
