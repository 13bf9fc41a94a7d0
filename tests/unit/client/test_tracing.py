"""A client with a tracer of OpenTelemetry: what it publishes carries the trace of the program that calls it."""

from __future__ import annotations

import pytest
from opentelemetry.trace import SpanKind, StatusCode

from headrace.client import ArgumentError, Client, SyncClient
from headrace.config import TopicsSettings
from headrace.core.clock import SystemClock
from headrace.kafka.interface import BrokerUnavailableError, TopicPartition, TopicSpec
from headrace.process.tracing import Kind
from headrace_schemas.records import Status
from headrace_schemas.topics import topics
from tests.support.client_scene import KEY, REQUESTS, Scene, scene
from tests.support.memory_kafka import MemoryCluster
from tests.support.memory_kafka.cluster import MemoryProducer
from tests.support.spans import CALLER, context_of, ids_of, links_of, recorded
from tests.support.traced_services import answering, check_one_trace, reviewed


@scene
async def test_a_request_belongs_to_the_span_that_published_it_which_belongs_to_the_programs(stage: Scene) -> None:
    with recorded() as recorder:
        async with Client(stage.cluster, clock=stage.clock, tracer=recorder.tracer._tracer) as client:
            with recorder.tracer.span("handle a ticket", Kind.SERVER, {}) as own:
                await client.publish("a", key=KEY)
                trace_id, _ = ids_of(own.headers) or (0, 0)
        own_span, send = recorder.spans()
        assert (send.name, send.kind) == (f"send {REQUESTS}", SpanKind.PRODUCER)
        assert send.parent is not None
        assert (context_of(send)[0], send.parent.span_id) == (trace_id, context_of(own_span)[1])
        (record,) = stage.records()
        assert ids_of(record.headers) == context_of(send)


@scene
async def test_many_requests_share_the_span_of_their_batch_and_keep_a_trace_of_their_own(stage: Scene) -> None:
    with recorded() as recorder:
        async with Client(stage.cluster, clock=stage.clock, tracer=recorder.tracer._tracer) as client:
            own = client.prepare("b", headers=CALLER.headers)
            await client.publish_many(["a", own, "c"], partition=1)
        (send,) = recorder.spans()
        assert send.attributes is not None
        assert send.attributes["messaging.batch.message_count"] == 3
        assert send.attributes["messaging.destination.partition.id"] == "1"
        assert links_of(send) == {(CALLER.trace_id, CALLER.span_id)}
        traces = [ids_of(record.headers) for record in stage.records(partition=1)]
        assert traces == [context_of(send), (CALLER.trace_id, CALLER.span_id), context_of(send)]


@scene
async def test_an_unsampled_trace_costs_no_header(stage: Scene) -> None:
    with recorded(ratio=0.0) as recorder:
        async with Client(stage.cluster, clock=stage.clock, tracer=recorder.tracer._tracer) as client:
            await client.publish("a", key=KEY)
        assert recorder.spans() == []
    (record,) = stage.records()
    assert list(record.headers) == []


def test_publishing_that_fails_fails_its_span(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(*_: object, **__: object) -> None:
        raise BrokerUnavailableError("away")

    monkeypatch.setattr(MemoryProducer, "send", fails)

    @scene
    async def play(stage: Scene) -> None:
        with recorded() as recorder:
            async with Client(stage.cluster, clock=stage.clock, tracer=recorder.tracer._tracer) as client:
                with pytest.raises(BrokerUnavailableError):
                    await client.publish("a")
            (send,) = recorder.spans()
            assert send.status.status_code is StatusCode.ERROR
            assert dict(send.attributes or {})["error.type"] == "BrokerUnavailableError"

    play()


def test_a_client_without_a_loop_takes_the_span_of_the_thread_that_calls_it() -> None:
    cluster = MemoryCluster(SystemClock())
    cluster.create_topic(TopicSpec(name=REQUESTS, partitions=1))
    with recorded() as recorder:
        client = SyncClient(Client(cluster, tracer=recorder.tracer._tracer))
        with client, recorder.tracer.span("handle a ticket", Kind.SERVER, {}):
            client.publish("a")
        own, send = recorder.spans()
        assert send.parent is not None
        assert send.parent.span_id == context_of(own)[1]
        (record,) = cluster.log(TopicPartition(REQUESTS, 0)).records
        assert ids_of(record.headers) == context_of(send)


def test_what_is_no_tracer_is_refused_in_words() -> None:
    with pytest.raises(ArgumentError, match=r"tracer: a tracer of OpenTelemetry is needed, not 'jaeger'"):
        Client(Scene().cluster, tracer="jaeger")  # type: ignore[arg-type]


async def test_one_trace_goes_from_a_program_to_its_request_the_answer_and_the_review(
    memory_cluster: MemoryCluster,
) -> None:
    names = TopicsSettings().names()
    for topic in topics("", 1):
        memory_cluster.create_topic(TopicSpec(name=topic.name, partitions=1))
    with recorded() as recorder:
        async with answering(memory_cluster, names, recorder.tracer) as labeller:
            async with Client(memory_cluster, tracer=recorder.tracer._tracer) as client:
                answer = await client.classify("where is my parcel")
            assert (answer.status, answer.label) == (Status.OK, None)
            await reviewed(labeller, recorder, names)
        await check_one_trace(memory_cluster, names, recorder, f"send {REQUESTS}")
