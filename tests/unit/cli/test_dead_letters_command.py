from headrace.commands import dead_letters
from headrace.config import Settings
from headrace.kafka.interface import Outgoing, TopicPartition, TopicSpec
from headrace.kafka.memory import MemoryCluster
from headrace_schemas.dead_letters import dead_letter_headers
from headrace_schemas.records import DeadLetter
from tests.support.turned_loop import TurnedClock, run_turned

NAMES = Settings().topics.names()


def test_a_replayed_label_goes_back_to_the_labels_and_a_request_to_the_requests(monkeypatch) -> None:
    async def main() -> None:
        cluster = MemoryCluster(TurnedClock())
        monkeypatch.setattr(dead_letters, "cluster_of", lambda _: cluster)
        for name in (NAMES.requests, NAMES.labels, NAMES.dead_letters):
            cluster.create_topic(TopicSpec(name=name, partitions=2))
        for topic in (NAMES.requests, NAMES.labels):
            letter = DeadLetter(
                topic=topic, partition=1, offset=3, timestamp_ms=0, stage="s", error="e", message="m", key=b"k"
            )
            log = cluster.log(TopicPartition(NAMES.dead_letters, 1))
            log.append_batch([Outgoing(topic.encode(), letter.key, dead_letter_headers(letter))], 0)
        assert await dead_letters._replay(Settings(), (), None, 3) == (2, 0, 0)
        for topic in (NAMES.requests, NAMES.labels):
            (record,) = cluster.log(TopicPartition(topic, 1)).records
            assert (record.key, record.value) == (b"k", topic.encode())
        # Once more it finds them marked, until their places are named.
        assert await dead_letters._replay(Settings(), (), None, 3) == (0, 0, 2)
        assert await dead_letters._replay(Settings(), ((1, 0),), None, 3) == (1, 0, 0)
        assert len(await dead_letters._collect(Settings(), (), None)) == 2

    run_turned(main())
