import asyncio
import subprocess
import sys
import zlib
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from typing import Any

import pytest

from headrace.client import (
    AnswerLogError,
    AnswersEndedError,
    ArgumentError,
    Client,
    ClientClosedError,
    LostAnswerError,
    NoAnswerError,
    connect,
    prepare,
)
from headrace.kafka.aio.producer import partition_of_key
from headrace.kafka.interface import (
    BrokerUnavailableError,
    ConsumerDeadError,
    Outgoing,
    ProducerDeadError,
    TopicPartition,
    TopicSpec,
    UnknownTopicError,
)
from headrace_schemas.codec import decode_request
from headrace_schemas.errors import TextTooLargeError
from headrace_schemas.headers import read_explain, read_timeout_ms
from headrace_schemas.paths import RequestShape, compile_shape
from headrace_schemas.records import ClassifyRequest, Status
from tests.support.answer_log import AnswerWriter, answer
from tests.support.memory_kafka import MemoryCluster
from tests.support.turned_loop import TurnedClock, run_turned

LIMIT_S = 5000.0
"""On the turned clock, so it passes at once where a test waits in vain."""

REQUESTS, RESULTS = "classify.requests", "classify.results"


class Scene:
    """A client and a worker over the twin."""

    def __init__(self, partitions: int = 2) -> None:
        self.clock = TurnedClock()
        self.fault: Callable[[str], Coroutine[Any, Any, None]] | None = None
        self.cluster = MemoryCluster(self.clock, faults=self)
        for name in (REQUESTS, RESULTS):
            self.cluster.create_topic(TopicSpec(name=name, partitions=partitions))
        self.writer = AnswerWriter(self.cluster, self.clock, REQUESTS, RESULTS, partitions)
        self.client = Client(self.cluster, clock=self.clock)

    async def point(self, member: str, name: str) -> None:
        await asyncio.sleep(0)
        if self.fault is not None:
            await self.fault(name)

    def records(self, topic: str = REQUESTS, partition: int = 0) -> list[Any]:
        return self.cluster.log(TopicPartition(topic, partition)).records


def scene(play: Callable[[Scene], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def test() -> None:
        async def main() -> None:
            stage = Scene()
            try:
                async with asyncio.timeout(LIMIT_S), stage.client:
                    await play(stage)
            finally:
                await stage.cluster.close()

        run_turned(main())

    test.__name__ = play.__name__
    return test


@scene
async def test_what_is_published_is_where_the_acknowledgement_says(stage: Scene) -> None:
    published = await stage.client.publish("Rates rise", key="k", id="7", timeout=1.5, headers=[("tenant", b"a")])
    record = stage.records(partition=published.partition)[published.offset]
    assert decode_request(record.value) == ClassifyRequest(text="Rates rise", id="7")
    assert (record.key, read_timeout_ms(record.headers)) == (b"k", 1500)
    assert ("tenant", b"a") in record.headers
    assert published.crc == zlib.crc32(record.value)


@scene
async def test_requests_are_written_in_the_shape_that_the_worker_reads(stage: Scene) -> None:
    shape = RequestShape(text_path="ticket.body", id_path="ticket.number")
    async with Client(stage.cluster, clock=stage.clock, shape=shape) as client:
        published = await client.publish("Rates rise", id="7", headers=[("content-type", b"application/msgpack")])
        record = stage.records(partition=published.partition)[published.offset]
        assert compile_shape(shape)(record.value, "application/msgpack") == ClassifyRequest(text="Rates rise", id="7")
        (many,) = await client.publish_many(["Lima"])
        value = stage.records(partition=many.partition)[many.offset].value
        assert value == b'{"ticket":{"body":"Lima"}}'


@scene
async def test_an_explanation_is_asked_for_by_a_header(stage: Scene) -> None:
    await stage.client.publish("why", explain=True, headers=[("tenant", b"a")])
    await stage.client.publish("what")
    logs = (stage.cluster.log(TopicPartition(REQUESTS, number)).records for number in range(2))
    asked = {decode_request(record.value).text: read_explain(record.headers) for log in logs for record in log}
    assert asked == {"why": True, "what": False}


@scene
async def test_a_partition_can_be_chosen(stage: Scene) -> None:
    assert [(await stage.client.publish("x", partition=1)).partition for _ in range(3)] == [1, 1, 1]


@scene
async def test_a_record_of_ones_own_goes_as_it_is(stage: Scene) -> None:
    published = await stage.client.publish(b"\x81\xa1t\xa1x", headers=[("content-type", b"application/msgpack")])
    assert stage.records(partition=published.partition)[0].value == b"\x81\xa1t\xa1x"


@scene
async def test_what_a_worker_would_refuse_is_not_sent(stage: Scene) -> None:
    with pytest.raises(TextTooLargeError):
        await stage.client.publish("x" * 70_000)
    with pytest.raises(ArgumentError, match="timeout: 0 s"):
        await stage.client.publish("x", timeout=0)
    assert not stage.records(partition=0)
    assert not stage.records(partition=1)


@scene
async def test_many_are_published_in_order_and_each_is_known(stage: Scene) -> None:
    requests = [prepare(f"text {number}", key=f"key {number % 7}") for number in range(5000)]
    published = await stage.client.publish_many(iter(requests))
    assert len(published) == 5000
    for request, place in zip(requests, published, strict=True):
        assert stage.records(partition=place.partition)[place.offset].value == request.value
        assert place.crc == zlib.crc32(request.value or b"")


@scene
async def test_many_can_go_to_one_partition_whatever_their_keys(stage: Scene) -> None:
    assert await stage.client.request_partitions() == {0, 1}
    requests = [prepare(f"text {number}", key=f"key {number % 7}") for number in range(5000)]
    published = await stage.client.publish_many(iter(requests), partition=1)
    assert [(place.partition, place.offset) for place in published] == [(1, offset) for offset in range(5000)]
    assert [record.value for record in stage.records(partition=1)] == [request.value for request in requests]
    assert not stage.records(partition=0)


@scene
async def test_a_text_is_classified_by_its_place_alone(stage: Scene) -> None:
    stage.writer.start()
    await stage.client.publish_many(["others", "come", "before"])
    results = await asyncio.gather(*(stage.client.classify(f"text {number}") for number in range(50)))
    assert all(result.status is Status.OK for result in results)
    crcs = {zlib.crc32(f'{{"text":"text {number}"}}'.encode()) for number in range(50)}
    assert {result.crc for result in results} == crcs


@scene
async def test_an_answer_faster_than_the_acknowledgement_is_not_missed(stage: Scene) -> None:
    await stage.client.publish("first, so that the reader is there")

    async def slow_acknowledgement(name: str) -> None:
        if name == "produce.after":
            stage.writer.catch_up()
            await stage.clock.sleep(3.0)

    stage.fault = slow_acknowledgement
    assert (await stage.client.classify("quick", timeout=10)).status is Status.OK


@scene
async def test_without_a_worker_the_wait_ends_with_what_to_look_at(stage: Scene) -> None:
    with pytest.raises(NoAnswerError, match=r"within 5 s\. Is a worker answering"):
        await stage.client.classify("nobody there", timeout=5)
    assert stage.clock.monotonic() < 6
    record = next(record for number in (0, 1) for record in stage.records(partition=number))
    assert read_timeout_ms(record.headers) == 5000


@scene
async def test_a_request_that_is_passed_over_is_said_at_once(stage: Scene) -> None:
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
async def test_an_answer_to_another_text_is_no_answer(stage: Scene) -> None:
    classifying = asyncio.create_task(stage.client.classify("mine"))
    while not any(stage.records(partition=number) for number in (0, 1)):
        await stage.clock.sleep(0.01)
    number = next(number for number in (0, 1) if stage.records(partition=number))
    stage.cluster.log(TopicPartition(RESULTS, number)).append_batch([answer(0, -1, b"another")], 0)
    with pytest.raises(AnswerLogError, match="to another text"):
        await classifying


@scene
async def test_a_reader_that_fails_tells_everybody_who_waits_and_the_next_call_reads_again(stage: Scene) -> None:
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


async def published(stage: Scene) -> None:
    while not any(stage.records(partition=number) for number in (0, 1)):
        await stage.clock.sleep(0.01)


@scene
async def test_who_waits_while_the_client_closes_is_told_so_and_not_cancelled(stage: Scene) -> None:
    async with Client(stage.cluster, clock=stage.clock) as client:
        waiting = asyncio.create_task(client.classify("nobody answers", timeout=1000))
        await published(stage)
    with pytest.raises(ClientClosedError, match=r"closed before the answer came.*unknown"):
        await waiting
    assert not waiting.cancelled()


@scene
async def test_who_publishes_while_the_client_closes_is_told_so_too(stage: Scene) -> None:
    closed = asyncio.Event()

    async def slow_acknowledgement(name: str) -> None:
        if name == "produce.after":
            await closed.wait()

    async with Client(stage.cluster, clock=stage.clock) as client:
        stage.fault = slow_acknowledgement
        waiting = asyncio.create_task(client.classify("nobody answers", timeout=1000))
        await published(stage)
    closed.set()
    with pytest.raises(ClientClosedError):
        await waiting
    assert stage.clock.monotonic() < 100


@scene
async def test_who_connects_while_the_client_closes_leaves_nothing_behind(stage: Scene) -> None:
    connecting, closed = asyncio.Event(), asyncio.Event()

    async def slow_connection(name: str) -> None:
        if name == "offsets.before":
            connecting.set()
            await closed.wait()

    async with Client(stage.cluster, clock=stage.clock) as client:
        stage.fault = slow_connection
        waiting = asyncio.create_task(client.classify("nobody answers", timeout=1000))
        await connecting.wait()
    closed.set()
    with pytest.raises((ClientClosedError, ConsumerDeadError)):
        await waiting
    assert {task.get_name() for task in asyncio.all_tasks()}.isdisjoint({"awaiter"})


@scene
async def test_a_client_that_is_closed_connects_to_nothing_any_more(stage: Scene) -> None:
    async with Client(stage.cluster, clock=stage.clock) as client:
        await client.publish("before")
    for late in (client.classify("late"), client.publish("late"), client.publish_many(["late"])):
        with pytest.raises(ClientClosedError, match="connect"):
            await late
    with pytest.raises(ClientClosedError):
        await anext(client.answers("beginning"))
    assert sum(len(stage.records(partition=number)) for number in (0, 1)) == 1


@scene
async def test_what_ends_the_reader_unforeseen_is_told_to_everybody_who_waits(stage: Scene) -> None:
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
async def test_who_is_acknowledged_after_the_reader_ended_does_not_wait_for_it(stage: Scene) -> None:
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


@scene
async def test_a_dead_producer_is_replaced_for_the_next_request(stage: Scene) -> None:
    async def dead(name: str) -> None:
        if name == "produce.before":
            raise ProducerDeadError("out of sequence")

    stage.fault = dead
    with pytest.raises(ProducerDeadError):
        await stage.client.publish("lost")
    stage.fault = None
    assert (await stage.client.publish("found")).offset == 0


@scene
async def test_answers_go_on_for_ever_and_a_group_keeps_its_place(stage: Scene) -> None:
    stage.writer.start()
    seen: list[int] = []

    async def read(count: int) -> None:
        async with aclosing(stage.client.answers("beginning", group="billing")) as answers:
            async for one in answers:
                seen.append(one.result.offset)
                if len(seen) >= count:
                    # Past the second after which the place is kept.
                    await stage.clock.sleep(2.0)
                if len(seen) == count + 1:
                    return

    reading = asyncio.create_task(read(5))
    for number in range(7):
        await stage.client.publish(f"text {number}", partition=0)
        await stage.clock.sleep(0.1)
    await reading
    assert seen == [0, 1, 2, 3, 4, 5]
    committed = stage.cluster.committed("billing")
    assert 0 < committed[TopicPartition(RESULTS, 0)] <= 6


def test_the_client_loads_no_library_of_the_model() -> None:
    code = (
        "import sys, headrace.client, headrace.kafka.aio; "
        "print({'numpy', 'numba', 'torch', 'prometheus_client', 'uvloop'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"set()\n"


def test_bytes_and_records_bring_their_own_id() -> None:
    with pytest.raises(TypeError, match="brings its own"):
        prepare(b"{}", id="1")
    assert prepare(ClassifyRequest(text="a", id="1")) == Outgoing(b'{"text":"a","id":"1"}', None, ())


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("id", {"id": 7}),
        ("request", {"request": None}),
        ("request", {"request": {"text": "x"}}),
        ("key", {"key": 7}),
        ("key", {"key": "\ud800"}),
        ("headers", {"headers": {"tenant": b"a"}}),
        ("headers", {"headers": "tenant"}),
        ("headers", {"headers": [("tenant", "a")]}),
        ("headers", {"headers": ["ab"]}),
        ("headers", {"headers": None}),
        ("timeout", {"timeout": -1}),
        ("timeout", {"timeout": float("nan")}),
        ("timeout", {"timeout": float("inf")}),
        ("timeout", {"timeout": "5"}),
        ("timeout", {"timeout": True}),
        ("timeout", {"timeout": 1e12}),
    ],
)
def test_what_a_request_can_not_be_made_of_is_told_by_the_name_of_the_argument(name: str, given: Any) -> None:
    @scene
    async def play(stage: Scene) -> None:
        for call in (stage.client.publish, stage.client.classify):
            with pytest.raises(ArgumentError, match=rf"^{name}: "):
                await call(**{"request": "x", **given})
        assert not any(stage.records(partition=number) for number in (0, 1))

    play()


@scene
async def test_many_requests_are_no_single_text_and_partitions_are_numbers(stage: Scene) -> None:
    wrong: list[Any] = ["a string", b"bytes", {"text": "x"}, ClassifyRequest(text="x"), prepare("x"), None, 7]
    for requests in wrong:
        with pytest.raises(ArgumentError, match=r"^requests: "):
            await stage.client.publish_many(requests)
    with pytest.raises(ArgumentError, match=r"^request: "):
        await stage.client.publish_many([None])  # type: ignore[list-item]
    calls: list[Any] = [-1, "0", True]
    for partition in calls:
        with pytest.raises(ArgumentError, match=r"^partition: "):
            await stage.client.publish("x", partition=partition)
    read: list[tuple[str, dict[str, Any]]] = [
        ("partitions", {"partitions": 0}),
        ("partitions", {"partitions": ["0"]}),
        ("from_", {"from_": {"0": 5}}),
        ("group", {"group": ""}),
        ("group", {"group": 7}),
        ("partitions", {"group": "billing", "partitions": [0]}),
    ]
    for name, given in read:
        with pytest.raises(ArgumentError, match=rf"^{name}: "):
            await anext(stage.client.answers(**given))
    assert not any(stage.records(partition=number) for number in (0, 1))


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("bootstrap", {"bootstrap": ["127.0.0.1:9092"]}),
        ("bootstrap", {"bootstrap": ""}),
        ("kafka", {"kafka": {"bootstrap": "127.0.0.1:9092"}}),
        ("requests", {"requests": ""}),
        ("results", {"results": 7}),
        ("max_batch", {"max_batch": "8"}),
        ("max_batch", {"max_batch": 0}),
        ("shape", {"shape": {"text_path": "a"}}),
    ],
)
def test_what_can_not_be_connected_with_is_told_by_the_name_of_the_argument(name: str, given: Any) -> None:
    async def main() -> None:
        async with connect(**given):
            raise AssertionError

    with pytest.raises(ArgumentError, match=rf"^{name}: "):
        asyncio.run(main())


@scene
async def test_a_client_that_is_not_entered_connects_to_nothing(stage: Scene) -> None:
    client = Client(stage.cluster, clock=stage.clock)
    for early in (client.classify("early"), client.publish("early"), client.publish_many(["early"])):
        with pytest.raises(ClientClosedError, match="async with"):
            await early
    with pytest.raises(ClientClosedError, match="async with"):
        await anext(client.answers("earliest"))
    assert not any(stage.records(partition=number) for number in (0, 1))


@scene
async def test_what_publishes_many_while_the_client_closes_connects_to_nothing_any_more(stage: Scene) -> None:
    publishing, closed = asyncio.Event(), asyncio.Event()

    def endless() -> Any:
        while True:
            publishing.set()
            yield "text"

    async def slow(name: str) -> None:
        if name == "produce.after":
            await closed.wait()

    async with Client(stage.cluster, clock=stage.clock) as client:
        stage.fault = slow
        waiting = asyncio.create_task(client.publish_many(endless()))
        await publishing.wait()
    closed.set()
    with pytest.raises((ClientClosedError, ProducerDeadError)):
        await waiting


def test_no_answer_is_a_timeout() -> None:
    assert issubclass(NoAnswerError, TimeoutError)
    assert str(NoAnswerError("No answer.")) == "No answer."


@pytest.mark.parametrize("group", [None, "billing"])
def test_a_break_out_of_the_answers_leaves_no_reader_behind_the_end_of_the_client(group: str | None) -> None:
    @scene
    async def play(stage: Scene) -> None:
        stage.writer.start()
        stopped: list[str] = []
        async with Client(stage.cluster, clock=stage.clock) as client:
            answers = client.answers("earliest", group=group)
            await client.publish("seen")
            async for _ in answers:
                break
            kept = next(iter(client._readers))
            stop = kept.stop

            async def watched() -> None:
                stopped.append("stopped")
                await stop()

            kept.stop = watched  # type: ignore[method-assign]
        assert stopped == ["stopped"]
        with pytest.raises(ClientClosedError):
            await anext(answers)
        await answers.aclose()
        assert stopped == ["stopped"]

    play()


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


KEY = next(str(number) for number in range(100) if partition_of_key(str(number).encode(), 2) == 0)


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
async def test_a_hole_that_was_seen_before_the_acknowledgement_is_said_at_once(stage: Scene) -> None:
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


@scene
async def test_many_that_are_cut_off_say_how_many_were_published_and_how_to_go_on(stage: Scene) -> None:
    async def held(name: str) -> None:
        if name == "produce.before" and len(stage.records()) + len(stage.records(partition=1)) >= 2000:
            await asyncio.Event().wait()

    stage.fault = held
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(60):
            await stage.client.publish_many(f"text {number}" for number in range(4500))
    assert isinstance(caught.value.__cause__, asyncio.CancelledError)
    assert caught.value.__cause__.__notes__ == [
        (
            "The first 2,000 requests were published, of the next 2,000 it is unknown. Go on behind the first 2,000, "
            "and some may be published twice, or behind 4,000, and some may be missing."
        )
    ]


@scene
async def test_one_that_is_cut_off_says_that_it_is_unknown_whether_it_was_published(stage: Scene) -> None:
    async def held(name: str) -> None:
        if name == "produce.after":
            await asyncio.Event().wait()

    stage.fault = held
    publishing = asyncio.create_task(stage.client.publish("x"))
    await published(stage)
    publishing.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await publishing
    assert "is unknown; publishing it again may publish it twice" in caught.value.__notes__[0]

    async def lost(name: str) -> None:
        if name == "produce.after":
            raise BrokerUnavailableError("no acknowledgement")

    stage.fault = lost
    with pytest.raises(BrokerUnavailableError) as away:
        await stage.client.publish("x")
    assert "is unknown" in away.value.__notes__[0]
    stage.fault = None
    with pytest.raises(UnknownTopicError) as absent:
        await stage.client.publish("x", partition=7)
    assert not hasattr(absent.value, "__notes__")
