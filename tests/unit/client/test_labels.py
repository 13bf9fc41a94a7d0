import asyncio

import pytest

from headrace.client import labels
from headrace.client.labels import Labelled, ids_by_every_hashing, label_record, labelled, publish_labels, text_ids
from headrace.files import DatasetError
from headrace.kafka.interface import TopicPartition, TopicSpec
from headrace.learning.data.files import Rows
from headrace.learning.data.validation import HASHINGS
from headrace_schemas import decode_label
from tests.support.memory_kafka import MemoryCluster
from tests.support.turned_loop import TurnedClock

TOPIC = "labels"


def published(*, labels=(), erased=()) -> list[tuple[bytes | None, bytes | None]]:
    async def run() -> list[tuple[bytes | None, bytes | None]]:
        cluster = MemoryCluster(TurnedClock())
        admin, consumer = cluster.admin(), cluster.consumer()
        await admin.create_topic(TopicSpec(name=TOPIC, partitions=1))
        assert await publish_labels(cluster, TOPIC, labels=labels, erased=erased) == len([*labels, *erased])
        await consumer.start()
        consumer.assign([TopicPartition(TOPIC, 0)])
        consumer.seek(TopicPartition(TOPIC, 0), 0)
        records = await consumer.fetch(max_records=100, timeout_s=0)
        await consumer.stop()
        await cluster.close()
        return [(record.key, record.value) for record in records.get(TopicPartition(TOPIC, 0), ())]

    return asyncio.run(run())


def test_a_row_becomes_a_record_under_its_id_and_an_erasure_a_tombstone():
    rows = Rows(("good film", "bad film"), ("pos", "neg"))
    (first, value), _, tombstone = published(labels=list(labelled(rows, ["1", "2"])), erased=["1"])

    assert first == b"1"
    assert (decode_label(value).text, decode_label(value).label) == ("good film", "pos")
    assert tombstone == (b"1", None)


def test_a_text_without_an_id_is_replaced_and_erased_by_any_text_of_its_words():
    first, again, other = text_ids(["Good  film!", "good film !", "bad film"])

    assert first == again != other


def test_a_text_is_erased_under_the_ids_that_every_hashing_ever_gave_it(monkeypatch):
    def hashed_otherwise(texts):
        return [text[::-1].encode().ljust(32, b".") if text.strip() else b"" for text in texts]

    before = ids_by_every_hashing(["good film", " ", "Good Film"])
    assert before == text_ids(["good film"])
    monkeypatch.setattr(labels, "text_keys", lambda texts, hashing: known[hashing](texts))
    monkeypatch.setattr(labels, "HASHINGS", known := {**HASHINGS, "another/2": hashed_otherwise})
    assert ids_by_every_hashing(["good film", " "]) == [*before, b"mlif doog.......".hex()]


@pytest.mark.parametrize(
    ("one", "message"),
    [
        (Labelled("", "good", "a"), "has no id, so that nothing could replace or erase it"),
        (Labelled("1", "\ud800", "a"), "the label with the id '1' can't be published"),
        (Labelled("\ud800", "good", "a"), "can't be published"),
        (Labelled("1", "x" * (1 << 20), "a"), "kafka.max_request_size allows 1,048,576"),
    ],
)
def test_what_can_be_no_label_on_the_topic_is_refused_with_its_id(one, message):
    with pytest.raises(DatasetError, match=message):
        label_record(one)
