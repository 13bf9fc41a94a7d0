"""What the models topic still tells of the past."""

from headrace.kafka.interface import Outgoing, TopicPartition, TopicSpec
from headrace.registry.compacted_topics import ModelsWriter, alias_moves
from headrace_schemas.records import ModelAlias
from tests.support.memory_kafka import MemoryCluster
from tests.support.turned_loop import EPOCH_MS, TurnedClock, run_turned
from tests.support.versions import version_of


def champion(version: str, name: str = "m") -> ModelAlias:
    return ModelAlias(name=name, alias="champion", version=version, moved_at_ms=1)


def test_every_move_that_the_log_still_has_is_told_oldest_first_with_the_time_of_its_record() -> None:
    async def main() -> None:
        cluster = MemoryCluster(TurnedClock())
        cluster.create_topic(TopicSpec(name="models", partitions=1))
        producer = cluster.producer()
        writer = ModelsWriter(producer, "models")
        await writer.publish([champion("v0"), version_of("v1"), champion("v1"), champion("w1", "other")])
        await producer.send_batch("models", 0, [Outgoing(b"rubbish", b"k"), Outgoing(None, b"alias/m/mine")])
        await TurnedClock().sleep(5)
        await writer.publish([champion("v2")])
        cluster.log(TopicPartition("models", 0)).add_gap()
        cluster.log(TopicPartition("models", 0)).truncate_before(1)
        moves = await alias_moves(cluster, "models", "m")
        assert [move.alias.version for move in moves] == ["v1", "v2"]
        assert [move.recorded_ms for move in moves] == [EPOCH_MS, EPOCH_MS + 5000]
        await cluster.close()

    run_turned(main())
