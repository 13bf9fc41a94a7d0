"""Reading a compacted topic to its end: silence ends it with an error, and an end that compaction emptied is an end."""

from __future__ import annotations

import pytest

from headrace.kafka.interface import BrokerUnavailableError, TopicSpec
from headrace.registry.compacted_topics import ModelsLog
from tests.support.memory_kafka import MemoryCluster
from tests.support.turned_loop import TurnedClock, run_turned

TOPIC = "models"


class Silent(MemoryCluster):
    """Its log has an end that no fetch comes to; its leader knows whether something is there."""

    def __init__(self, *, empty: bool) -> None:
        super().__init__(TurnedClock())
        self.empty = empty
        self.asked = 0

    def consumer(self, **options):
        consumer, cluster = super().consumer(**options), self

        async def end_offsets(names):
            return dict.fromkeys(names, 7)

        async def holds_nothing(name, offset, end):
            cluster.asked += 1
            return cluster.empty

        consumer.end_offsets, consumer.holds_nothing = end_offsets, holds_nothing
        return consumer


def read(*, empty: bool) -> Silent:
    async def main() -> Silent:
        cluster = Silent(empty=empty)
        admin = cluster.admin()
        await admin.start()
        await admin.create_topic(TopicSpec(name=TOPIC, partitions=1))
        log = ModelsLog(cluster, TOPIC)
        try:
            await log.start()
        finally:
            await log.stop()
            await cluster.close()
        return cluster

    return run_turned(main())


def test_a_leader_that_goes_silent_is_an_error_that_can_be_tried_again() -> None:
    with pytest.raises(BrokerUnavailableError, match=r"For 60 s nothing more came of models\[0\]") as caught:
        read(empty=False)
    assert caught.value.retriable


def test_an_end_that_compaction_emptied_is_an_end_when_the_leader_says_so_twice() -> None:
    assert read(empty=True).asked == 2
