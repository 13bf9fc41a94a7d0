import msgspec
import pytest

from headrace.files import DatasetError
from headrace.kafka.interface import BrokerUnavailableError, Outgoing, TopicPartition
from headrace.learning.data.labels import read_partitions
from headrace.learning.data.validation import RETIRED_LABEL, UNKNOWN_LABEL
from headrace.learning.distributed.job import TopicSource
from headrace_schemas.codec import encode_label
from headrace_schemas.headers import CONTENT_TYPE, MSGPACK
from headrace_schemas.records import LabelledText, OffsetRange
from tests.support.twin import P0, simulated

P1 = TopicPartition("t", 1)


def label(key: str | None, text: str, name: str = "a") -> Outgoing:
    return Outgoing(encode_label(LabelledText(text=text, label=name)), None if key is None else key.encode())


def erasure(key: str) -> Outgoing:
    return Outgoing(None, key.encode())


def source(*ends: int, first: int = 0, limit: int = 100) -> TopicSource:
    ranges = tuple(OffsetRange(partition, first, end) for partition, end in enumerate(ends))
    return TopicSource(topic="t", ranges=ranges, max_text_bytes=limit)


def contents(shard):
    return [
        (one.id.decode(), one.offset, one.content.text if isinstance(one.content, LabelledText) else one.content)
        for one in shard.records
    ]


def test_the_last_record_of_an_id_counts_and_a_tombstone_is_one():
    async def story(cluster):
        records = [label("x", "old"), label("y", "gone"), label("x", "new"), erasure("y"), label("z", "kept")]
        await cluster.producer().send_batch("t", 0, records)
        shard = await read_partitions(cluster, source(5), [0])

        assert contents(shard) == [("x", 2, "new"), ("y", 3, None), ("z", 4, "kept")]
        assert [one.before for one in shard.records] == [1, 1, 0]

    simulated(story)


def test_only_the_given_partitions_are_read_and_only_up_to_the_frozen_ends():
    async def story(cluster):
        for partition in (0, 1):
            await cluster.producer().send_batch("t", partition, [label(f"{partition}{n}", "text") for n in range(4)])
        shard = await read_partitions(cluster, source(2, 3), [1])

        assert [(one.partition, one.id) for one in shard.records] == [(1, b"10"), (1, b"11"), (1, b"12")]
        assert (await read_partitions(cluster, source(2, 3), [])).records == ()

    simulated(story)


def test_a_range_that_ends_in_holes_is_read_to_its_end():
    async def story(cluster):
        await cluster.producer().send_batch("t", 0, [label("x", "one"), label("x", "two"), label("y", "three")])
        cluster.log(P0).remove(0)
        cluster.log(P0).remove(2)
        cluster.log(P0).add_gap()

        assert contents(await read_partitions(cluster, source(4, 0), [0, 1])) == [("x", 1, "two")]

    simulated(story)


def test_what_can_not_be_read_is_known_by_its_fault_and_replaces_what_its_id_had():
    async def story(cluster):
        records = [
            label("x", "fine"),
            Outgoing(b"{}", b"x"),
            Outgoing(b"\xff", b"bytes"),
            label("long", "w" * 101),
            Outgoing(b"text", b"type", ((CONTENT_TYPE, b"image/png"),)),
            Outgoing(
                encode_label(LabelledText(text="packed", label="a"), MSGPACK),
                b"m",
                ((CONTENT_TYPE, b"application/msgpack"),),
            ),
            label(None, "nobody's"),
            label("", "nobody's either"),
        ]
        await cluster.producer().send_batch("t", 0, records)
        shard = await read_partitions(cluster, source(8), [0])

        assert contents(shard) == [
            ("x", 1, "missing-text"),
            ("bytes", 2, "bad-bytes"),
            ("long", 3, "text-too-large"),
            ("type", 4, "unknown-content-type"),
            ("m", 5, "packed"),
        ]
        assert shard.dropped == {"bad-key": 2}

    simulated(story)


def test_a_label_that_is_not_among_those_allowed_is_known_by_that():
    async def story(cluster):
        await cluster.producer().send_batch("t", 0, [label("x", "fine", " a "), label("y", "odd", "b"), erasure("z")])
        allowed = msgspec.structs.replace(source(3), labels=("a",))

        assert contents(await read_partitions(cluster, allowed, [0])) == [
            ("x", 0, "fine"),
            ("y", 1, UNKNOWN_LABEL),
            ("z", 2, None),
        ]

    simulated(story)


def test_an_allowed_label_is_allowed_however_either_side_spells_it():
    async def story(cluster):
        await cluster.producer().send_batch(
            "t", 0, [label("x", "fine", "re\u0301el\u00a0"), label("y", "odd", "True"), label("z", "bad", "yes")]
        )
        allowed = msgspec.structs.replace(source(3), labels=("r\u00e9el", "TRUE"))

        shard = await read_partitions(cluster, allowed, [0])
        assert [isinstance(record.content, str) for record in shard.records] == [False, False, True]

    simulated(story)


def test_what_retention_took_from_a_range_is_counted(caplog):
    async def story(cluster):
        await cluster.producer().send_batch("t", 0, [label(str(n), "text") for n in range(5)])
        cluster.log(P0).truncate_before(3)
        shard = await read_partitions(cluster, source(4, first=1), [0])

        assert ([one.id for one in shard.records], shard.dropped) == ([b"3"], {"retention": 2})
        cluster.log(P0).truncate_before(5)
        assert (await read_partitions(cluster, source(4), [0])).dropped == {"retention": 4}

    simulated(story)
    assert "labels.lost" in caplog.text


def test_a_topic_that_ends_before_the_range_was_cut_or_made_anew():
    async def story(cluster):
        await cluster.producer().send_batch("t", 1, [label("x", "text")])
        with pytest.raises(DatasetError, match=r"t\[1\] ends at offset 1, before the end of this training's range, 2"):
            await read_partitions(cluster, source(0, 2), [0, 1])

    simulated(story)


def test_a_broker_that_sends_nothing_more_ends_the_reading():
    async def story(cluster):
        await cluster.producer().send_batch("t", 0, [label(str(n), "text") for n in range(3)])
        consumer = cluster.consumer()

        class Mute:
            """A cluster whose consumer answers about offsets and delivers nothing."""

            def consumer(self, **_):
                consumer.fetch = self.fetch
                return consumer

            async def fetch(self, *, max_records, timeout_s, partitions):
                await cluster.clock.sleep(timeout_s)
                return {}

        with pytest.raises(BrokerUnavailableError, match=r"For 60 s nothing more came of t\[0\]"):
            await read_partitions(Mute(), source(3), [0])
        assert cluster.clock.monotonic() >= 60

    simulated(story)


def test_labels_are_read_as_the_rules_say_and_allowed_by_their_new_name():
    async def story(cluster):
        named = {"1": "economy", "2": "gossip", "3": "sport", "4": "b", "5": "rubbish"}
        await cluster.producer().send_batch("t", 0, [label(id_, f"text {id_}", name) for id_, name in named.items()])
        rules = {"economy": "b", "gossip": None, "b": "business"}
        ruled = msgspec.structs.replace(source(5), rules=rules, labels=("economy", "sport"))
        shard = await read_partitions(cluster, ruled, [0])
        learnt = [getattr(one.content, "label", one.content) for one in shard.records]
        assert learnt == ["business", RETIRED_LABEL, "sport", "business", UNKNOWN_LABEL]
        plain = await read_partitions(cluster, msgspec.structs.replace(source(5), rules={"x": "y"}), [0])
        assert plain == await read_partitions(cluster, source(5), [0])

    simulated(story)
