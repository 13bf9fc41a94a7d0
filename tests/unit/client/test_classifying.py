"""`Client.classify`: publish a request and wait for its answer, over the in-memory twin."""

import asyncio
import re
import zlib
from collections.abc import Callable

import pytest

from headrace.client import (
    AnswerLogError,
    AnswersEndedError,
    LostAnswerError,
    NoAnswerError,
)
from headrace.kafka.aio.producer import partition_of_key
from headrace.kafka.interface import (
    BrokerUnavailableError,
    Outgoing,
    ProducerDeadError,
    TopicPartition,
    UnknownTopicError,
)
from headrace_schemas.headers import read_timeout_ms
from headrace_schemas.records import Status
from tests.support.answer_log import AnswerWriter, answer
from tests.support.client_scene import KEY, REQUESTS, RESULTS, Scene, published, scene
from tests.support.memory_kafka import MemoryCluster


@scene
async def test_an_answer_is_found_by_the_place_of_its_request(stage: Scene) -> None:
    stage.writer.start()
    await stage.client.publish_many(["others", "come", "before"])
    results = await asyncio.gather(*(stage.client.classify(f"text {number}") for number in range(50)))
    assert all(result.status is Status.OK for result in results)
    crcs = {zlib.crc32(f'{{"text":"text {number}"}}'.encode()) for number in range(50)}
    assert {result.crc for result in results} == crcs


@scene
async def test_an_answer_that_comes_before_the_acknowledgement_is_not_missed(stage: Scene) -> None:
    await stage.client.publish("first, so that the reader is there")

    async def slow_acknowledgement(name: str) -> None:
        if name == "produce.after":
            stage.writer.catch_up()
            await stage.clock.sleep(3.0)

    stage.fault = slow_acknowledgement
    assert (await stage.client.classify("quick", timeout=10)).status is Status.OK


@scene
async def test_without_a_worker_the_error_after_the_timeout_says_where_to_look(stage: Scene) -> None:
    with pytest.raises(NoAnswerError, match=r"within 5 s\. Is a worker answering"):
        await stage.client.classify("nobody there", timeout=5)
    assert stage.clock.monotonic() < 6
    record = next(record for number in (0, 1) for record in stage.records(partition=number))
    assert read_timeout_ms(record.headers) == 5000


@scene
async def test_a_request_that_workers_skipped_raises_lost_answer_error_at_once(stage: Scene) -> None:
    stage.writer.start()
    key = next(str(number) for number in range(100) if partition_of_key(str(number).encode(), 2) == 0)
    # A hole can be seen only behind an answer of the same partition.
    await stage.client.classify("seen", key=key)
    stage.writer.skipped = {1}
    lost = asyncio.create_task(stage.client.classify("lost", key=key, timeout=1000))
    while len(stage.records(partition=0)) < 2:
        await stage.clock.sleep(0.01)
    await stage.client.publish("later", key=key)
    with pytest.raises(LostAnswerError, match="Request 1 of partition 0 was passed over"):
        await lost
    assert stage.clock.monotonic() < 10


@scene
async def test_an_answer_to_another_text_raises_answer_log_error(stage: Scene) -> None:
    classifying = asyncio.create_task(stage.client.classify("mine"))
    while not any(stage.records(partition=number) for number in (0, 1)):
        await stage.clock.sleep(0.01)
    number = next(number for number in (0, 1) if stage.records(partition=number))
    stage.cluster.log(TopicPartition(RESULTS, number)).append_batch([answer(0, -1, b"another")], 0)
    with pytest.raises(AnswerLogError, match="to another text"):
        await classifying


@scene
async def test_when_reading_fails_waiting_calls_raise_and_the_next_call_reads_again(stage: Scene) -> None:
    waiting = asyncio.create_task(stage.client.classify("to be refused", timeout=1000))
    while not any(stage.records(partition=number) for number in (0, 1)):
        await stage.clock.sleep(0.01)

    async def dead(name: str) -> None:
        if name == "fetch.before":
            raise ProducerDeadError("gone for good")

    stage.fault = dead
    with pytest.raises(ProducerDeadError):
        await waiting
    stage.fault = None
    stage.writer.start()
    assert (await stage.client.classify("again")).status is Status.OK


@scene
async def test_an_unforeseen_error_of_the_reader_reaches_every_waiting_call(stage: Scene) -> None:
    waiting = [asyncio.create_task(stage.client.classify(f"text {number}", timeout=1000)) for number in range(3)]
    await published(stage)

    async def broken(name: str) -> None:
        if name == "fetch.before":
            raise ValueError("nobody thought of this")

    stage.fault = broken
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [AnswersEndedError] * 3
    assert all("nobody thought of this" in str(outcome) for outcome in outcomes)
    assert stage.clock.monotonic() < 100


@scene
async def test_a_call_that_is_acknowledged_after_the_reader_failed_raises_at_once(stage: Scene) -> None:
    ended = asyncio.Event()

    async def dead(name: str) -> None:
        if name == "produce.after":
            await ended.wait()
        if name == "fetch.before" and any(stage.records(partition=number) for number in (0, 1)):
            ended.set()
            raise ProducerDeadError("gone for good")

    stage.fault = dead
    with pytest.raises(ProducerDeadError):
        await stage.client.classify("late", timeout=1000)
    assert stage.clock.monotonic() < 100


def test_no_answer_error_is_a_timeout_error() -> None:
    assert issubclass(NoAnswerError, TimeoutError)
    assert str(NoAnswerError("No answer.")) == "No answer."


@scene
async def test_a_call_waits_while_kafka_is_away_and_is_answered_when_it_is_back(stage: Scene) -> None:
    async def away(name: str) -> None:
        if name == "produce.before":
            raise BrokerUnavailableError("nothing listens there")

    stage.fault = away
    calls = [asyncio.create_task(stage.client.classify(f"text {number}", timeout=60)) for number in range(5)]
    await stage.clock.sleep(20)
    assert not any(call.done() for call in calls)
    stage.fault = None
    answering = asyncio.create_task(stage.writer.run())
    assert {result.status for result in await asyncio.gather(*calls)} == {Status.OK}
    answering.cancel()


@scene
async def test_a_call_whose_time_ends_while_kafka_is_away_names_the_broker(stage: Scene) -> None:
    async def away(name: str) -> None:
        raise BrokerUnavailableError("nothing listens there")

    async def why() -> str:
        return "nothing listens at 127.0.0.1:9"

    stage.fault = away
    stage.cluster.why_away = why  # type: ignore[method-assign]
    with pytest.raises(NoAnswerError, match=r"Kafka at memory is away: nothing listens at 127\.0\.0\.1:9"):
        await stage.client.classify("a text", timeout=5)


@scene
async def test_a_request_that_lies_before_answered_ones_says_that_the_topic_was_made_anew(stage: Scene) -> None:
    writing = stage.writer.start()
    for number in range(5):
        await stage.client.classify(f"text {number}", key=KEY)
    stage.cluster.recreate(REQUESTS)
    writing.cancel()
    with pytest.raises(AnswerLogError, match=r"published as 0 of classify\.requests\[0\], where 4 was answered before"):
        await stage.client.classify("the first of a new log", key=KEY, timeout=1000)
    assert stage.clock.monotonic() < 10
    AnswerWriter(stage.cluster, stage.clock, REQUESTS, RESULTS, 2).start()
    assert (await stage.client.classify("the next call", key=KEY, timeout=1000)).status is Status.OK


@scene
async def test_a_hole_that_was_seen_before_the_acknowledgement_raises_at_once(stage: Scene) -> None:
    stage.writer.catch_up()
    writing = stage.writer.start()
    await stage.client.classify("seen", key=KEY)
    writing.cancel()
    stage.writer.skipped = {1}

    async def slow_acknowledgement(name: str) -> None:
        if name == "produce.after":
            stage.fault = None
            stage.cluster.log(TopicPartition(REQUESTS, 0)).append_batch([Outgoing(b"later")], 0)
            stage.writer.catch_up()
            await stage.clock.sleep(3.0)

    stage.fault = slow_acknowledgement
    with pytest.raises(LostAnswerError, match="Request 1 of partition 0 was passed over"):
        await stage.client.classify("lost", key=KEY, timeout=1000)
    assert stage.clock.monotonic() < 10


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (
            lambda cluster: cluster.recreate(REQUESTS),
            r"classify\.requests\[0\] ends at 0, .* published as [123]: the topic was",
        ),
        (lambda cluster: cluster.delete_topic(REQUESTS), r"There is no topic classify\.requests any more"),
        (lambda cluster: cluster.delete_topic(RESULTS), r"There is no topic classify\.results any more"),
        (lambda cluster: cluster.recreate(RESULTS), r"classify\.results\[0\] ends at 0, before the position 1"),
    ],
)
def test_a_call_whose_time_ends_looks_whether_a_log_was_made_anew(
    act: Callable[[MemoryCluster], None], said: str
) -> None:
    @scene
    async def play(stage: Scene) -> None:
        writing = stage.writer.start()
        await stage.client.classify("seen", key=KEY)
        writing.cancel()
        calls = [asyncio.create_task(stage.client.classify("x", key=KEY, timeout=2)) for _ in range(3)]
        while len(stage.records()) < 4:
            await stage.clock.sleep(0.01)
        act(stage.cluster)
        for call in calls:
            with pytest.raises(AnswerLogError, match=said):
                await call

    play()


@pytest.mark.parametrize("topic", [REQUESTS, RESULTS])
def test_calls_behind_the_deletion_of_a_topic_that_was_used_say_that_its_log_is_gone(topic: str) -> None:
    @scene
    async def play(stage: Scene) -> None:
        writing = stage.writer.start()
        await stage.client.classify("seen", key=KEY)
        writing.cancel()
        stage.cluster.delete_topic(topic)
        # The second call reads the answers anew.
        for _ in range(2):
            with pytest.raises(AnswerLogError, match=rf"There is no topic {re.escape(topic)} any more"):
                await stage.client.classify("x", key=KEY, timeout=1000)
        assert stage.clock.monotonic() < 30

    play()


@pytest.mark.parametrize("topic", [REQUESTS, RESULTS])
def test_a_call_whose_topic_was_never_there_says_that_there_is_none(topic: str) -> None:
    @scene
    async def play(stage: Scene) -> None:
        stage.cluster.delete_topic(topic)
        with pytest.raises(UnknownTopicError, match=re.escape(topic)):
            await stage.client.classify("x", timeout=1000)

    play()
