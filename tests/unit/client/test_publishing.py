"""Publishing through the client: single requests and many."""

import asyncio
import zlib

import pytest

from headrace.client import (
    ArgumentError,
    Client,
    prepare,
)
from headrace.kafka.interface import (
    BrokerUnavailableError,
    Outgoing,
    ProducerDeadError,
    TopicPartition,
    UnknownTopicError,
)
from headrace_schemas.codec import decode_request
from headrace_schemas.errors import TextTooLargeError
from headrace_schemas.headers import read_explain, read_timeout_ms
from headrace_schemas.paths import RequestShape, compile_shape
from headrace_schemas.records import ClassifyRequest
from tests.support.client_scene import REQUESTS, Scene, published, scene


@scene
async def test_a_published_request_lies_where_the_acknowledgement_says(stage: Scene) -> None:
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
async def test_bytes_are_published_unchanged(stage: Scene) -> None:
    published = await stage.client.publish(b"\x81\xa1t\xa1x", headers=[("content-type", b"application/msgpack")])
    assert stage.records(partition=published.partition)[0].value == b"\x81\xa1t\xa1x"


@scene
async def test_a_request_that_a_worker_would_refuse_is_not_sent(stage: Scene) -> None:
    with pytest.raises(TextTooLargeError):
        await stage.client.publish("x" * 70_000)
    with pytest.raises(ArgumentError, match="timeout: 0 s"):
        await stage.client.publish("x", timeout=0)
    assert not stage.records(partition=0)
    assert not stage.records(partition=1)


@scene
async def test_publish_many_keeps_the_order_and_returns_the_place_of_each_request(stage: Scene) -> None:
    requests = [prepare(f"text {number}", key=f"key {number % 7}") for number in range(5000)]
    published = await stage.client.publish_many(iter(requests))
    assert len(published) == 5000
    for request, place in zip(requests, published, strict=True):
        assert stage.records(partition=place.partition)[place.offset].value == request.value
        assert place.crc == zlib.crc32(request.value or b"")


@scene
async def test_publish_many_to_a_partition_ignores_the_keys(stage: Scene) -> None:
    assert await stage.client.request_partitions() == {0, 1}
    requests = [prepare(f"text {number}", key=f"key {number % 7}") for number in range(5000)]
    published = await stage.client.publish_many(iter(requests), partition=1)
    assert [(place.partition, place.offset) for place in published] == [(1, offset) for offset in range(5000)]
    assert [record.value for record in stage.records(partition=1)] == [request.value for request in requests]
    assert not stage.records(partition=0)


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


def test_an_id_is_for_a_text_and_a_request_keeps_its_own() -> None:
    with pytest.raises(TypeError, match="brings its own"):
        prepare(b"{}", id="1")
    assert prepare(ClassifyRequest(text="a", id="1")) == Outgoing(b'{"text":"a","id":"1"}', None, ())


@scene
async def test_an_interrupted_publish_many_says_how_many_were_published_and_how_to_go_on(stage: Scene) -> None:
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
async def test_an_interrupted_publish_says_that_the_request_may_have_been_published(stage: Scene) -> None:
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
