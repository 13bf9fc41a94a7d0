"""`record` and texts of a topic against a real broker."""

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from headrace.kafka.aio import AioKafkaCluster
from headrace.kafka.interface import TopicSpec
from headrace.kafka.settings import KafkaSettings
from headrace_load.workload.recording import RecordingError, read_recording, record
from headrace_load.workload.requests import requests
from headrace_load.workload.spec import (
    Backlog,
    Bad,
    Deadlines,
    FileTexts,
    LogNormalLength,
    MadeTexts,
    Recorded,
    RecordedKeys,
    RecordedLength,
    TopicTexts,
    Workload,
    WorkloadError,
    ZipfKeys,
    read_workload,
)
from headrace_load.workload.texts import load_texts, topic_texts

COUNT = 400
SALT = b"of this test"
SENT = Workload(
    arrivals=Backlog(requests=COUNT),
    texts=MadeTexts(words=200, distinct=50, bytes=80),
    lengths=LogNormalLength(median=100, sigma=0.5),
    keys=ZipfKeys(keys=20),
    deadlines=Deadlines(timeout_ms=750, share=0.5),
    bad=Bad(share=0.1, kinds=("not-json", "no-text")),
    content_type="application/msgpack",
)


@pytest.fixture(
    params=[pytest.param("embedded", marks=pytest.mark.slow), pytest.param("apache", marks=pytest.mark.apache)]
)
def bootstrap(request) -> str:
    """Both: they differ in what they say of a topic's end, and of a topic that was just made."""
    found: str = request.getfixturevalue(f"{request.param}_bootstrap")
    return found


@pytest.fixture
async def topic(bootstrap) -> str:
    name = f"t{uuid.uuid4().hex[:8]}.requests"
    admin = AioKafkaCluster(KafkaSettings(bootstrap=bootstrap)).admin()
    await admin.start()
    await admin.create_topic(TopicSpec(name=name, partitions=2))
    await admin.stop()
    return name


@pytest.fixture
async def consumer(bootstrap) -> AsyncIterator[AIOKafkaConsumer]:
    async with AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False) as started:
        yield started


async def publish(bootstrap: str, topic: str, *, pause_s: float = 0.0, times: int = 1) -> None:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
        for _ in range(times):
            for number, each in enumerate(requests(SENT, 0, load_texts(SENT.texts, SENT.seed), ids=False)):
                headers = list(each.headers)
                await producer.send(topic, each.value, each.key, partition=number % 2, headers=headers)
                await asyncio.sleep(pause_s)


@asynccontextmanager
async def publishing(bootstrap: str, topic: str) -> AsyncIterator[None]:
    """Publish on and on: a recording begins at the end of the log, whenever that is."""
    task = asyncio.create_task(publish(bootstrap, topic, pause_s=0.001, times=1000))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("keep_texts", [False, True])
async def test_what_comes_to_a_topic_becomes_a_workload(bootstrap, topic, consumer, tmp_path, keep_texts):
    await publish(bootstrap, topic)  # before the recording, so not in it
    async with publishing(bootstrap, topic):
        written = await record(
            consumer, topic, tmp_path / "busy", seconds=20, most=COUNT, keep_texts=keep_texts, salt=SALT
        )
    assert written == tmp_path / "busy.toml"
    found = read_workload(written)
    path = str(tmp_path / "busy.jsonl")
    assert found.arrivals == Recorded(path=path)
    assert found.keys == RecordedKeys(path=path)
    assert found.content_type == "application/msgpack"
    assert found.deadlines is not None
    assert found.deadlines.timeout_ms == 750
    assert 0.3 < found.deadlines.share < 0.7
    assert found.bad is not None
    assert set(found.bad.kinds) == {"not-json", "no-text"}
    assert 0.02 < found.bad.share < 0.25
    if keep_texts:
        assert found.texts == FileTexts(path=path)
    else:
        assert found.lengths == RecordedLength(path=path)

    recording = read_recording(path)
    assert len(recording.at) == COUNT
    assert recording.at[-1] == pytest.approx(found.warm_up + found.seconds, abs=0.01)
    keys = Counter(recording.keys)
    assert 10 < len(keys) <= 20
    content = (tmp_path / "busy.jsonl").read_bytes()
    assert all(key not in {b"k%d" % rank for rank in range(1, 21)} for key in keys)
    assert (b'"text"' in content) == keep_texts

    played = list(requests(found, 0, load_texts(found.texts, 1), ids=False))
    assert [each.due_s for each in played] == recording.at.tolist()
    assert [each.key for each in played] == list(recording.keys)


async def test_a_quiet_topic_one_of_others_and_none_are_said(bootstrap, topic, consumer, tmp_path):
    async def recorded(name: str, most: int = 1) -> None:
        await record(consumer, name, tmp_path / "busy", seconds=0.5, most=most, keep_texts=False, salt=SALT)

    with pytest.raises(WorkloadError, match="no such topic"):
        await recorded("nobody.requests")
    with pytest.raises(RecordingError, match="no record came"):
        await recorded(topic)
    with pytest.raises(WorkloadError, match="hold no text"):
        await topic_texts(consumer, TopicTexts(topic=topic))
    assert not list(tmp_path.iterdir())


async def test_the_last_texts_of_a_topic_are_read(bootstrap, topic, consumer):
    await publish(bootstrap, topic)
    good = [each for each in requests(SENT, 0, load_texts(SENT.texts, SENT.seed), ids=False) if each.good]
    sent = {msgspec.msgpack.decode(each.value)["text"] for each in good if each.value is not None}
    every = await topic_texts(consumer, TopicTexts(topic=topic))
    assert len(every) == len(good)
    assert set(every) == sent
    last = await topic_texts(consumer, TopicTexts(topic=topic, most=40))
    of_last = [each for each in good if each.number >= COUNT - 40]
    assert Counter(last) == Counter(msgspec.msgpack.decode(each.value)["text"] for each in of_last)
