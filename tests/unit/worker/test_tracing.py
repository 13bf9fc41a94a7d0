"""The spans of a worker: of each batch one that it waited, one of the work and one of each send."""

from __future__ import annotations

import pytest
from opentelemetry.trace import SpanKind, StatusCode
from prometheus_client import CollectorRegistry

from headrace.kafka.interface import BrokerUnavailableError
from headrace.worker.metrics import WorkerMetrics
from headrace_schemas.headers import TENANT, TIMEOUT_MS, TRACEPARENT
from tests.support.memory_kafka.cluster import MemoryProducer
from tests.support.models import SumModel, label_of
from tests.support.simulation import GROUP, TOPICS
from tests.support.spans import CALLER, context_of, ids_of, links_of, recorded, traceparent
from tests.support.worker_cluster import story

POLL, PROCESS = f"poll {TOPICS.requests}", f"process {TOPICS.requests}"
SEND, SEND_LETTERS = f"send {TOPICS.results}", f"send {TOPICS.dead_letters}"


def play(tracing, play):
    """Play a story with a recorder."""

    @story
    async def told(world):
        with tracing as recorder:
            await play(world, recorder)

    told()


def test_a_batch_is_one_trace_that_links_to_the_traces_of_its_requests():
    async def plays(world, recorder):
        await world.publish("a", headers=CALLER.headers)
        await world.publish("b", "c", headers=(traceparent(2),))
        await world.publish("d", headers=(traceparent(3, sampled=False),))
        await world.publish("e")
        world.start(tracer=recorder.tracer, max_batch=64)
        await world.answered(5)
        await world.stop("w0")
        poll, process, send = recorder.spans()
        assert [poll.name, process.name, send.name] == [POLL, PROCESS, SEND]
        assert [poll.kind, process.kind, send.kind] == [SpanKind.CLIENT, SpanKind.CONSUMER, SpanKind.CLIENT]
        assert {context_of(one)[0] for one in (process, send)} == {context_of(poll)[0]}
        assert [poll.parent, process.parent.span_id, send.parent.span_id] == [
            None,
            context_of(poll)[1],
            context_of(process)[1],
        ]
        wanted = {(CALLER.trace_id, CALLER.span_id), (2, 2)}
        assert links_of(poll) == links_of(process) == wanted
        assert {link.context.trace_state.to_header() for link in poll.links} == {"desk=7", ""}
        common = {
            "messaging.system": "kafka",
            "messaging.destination.name": TOPICS.requests,
            "messaging.consumer.group.name": GROUP,
            "messaging.batch.message_count": 5,
            "messaging.destination.partition.id": "0",
        }
        assert dict(poll.attributes) == common | {
            "messaging.operation.name": "poll",
            "messaging.operation.type": "receive",
        }
        assert dict(process.attributes) == common | {
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "headrace.version": "v1",
            "headrace.answers.ok": 5,
        }
        assert dict(send.attributes) == {
            "messaging.system": "kafka",
            "messaging.operation.name": "send",
            "messaging.operation.type": "send",
            "messaging.destination.name": TOPICS.results,
            "messaging.destination.partition.id": "0",
            "messaging.batch.message_count": 5,
        }
        assert poll.instrumentation_scope.schema_url == "https://opentelemetry.io/schemas/1.44.0"
        assert {one.status.status_code for one in (poll, process, send)} == {StatusCode.UNSET}

    play(recorded(), plays)


def test_the_seconds_and_dead_letters_of_a_recorded_batch_name_its_trace():
    async def plays(world, recorder):
        metrics = WorkerMetrics(CollectorRegistry())
        await world.publish("a")
        await world.publish_value(b"{")
        world.start(tracer=recorder.tracer, metrics=metrics, max_batch=64)
        await world.answered(2)
        await world.stop("w0")
        (process,) = recorder.spans(PROCESS)
        trace = f"{context_of(process)[0]:032x}"
        named = traces_of(metrics)
        assert named.keys() == {"decode", "infer", "encode", "publish", "bad-bytes"}
        assert all(traces == {trace} for traces in named.values())

    play(recorded(), plays)


def test_a_value_of_a_batch_that_nobody_records_names_no_trace():
    async def plays(world, recorder):
        for tracing in ({"tracer": recorder.tracer}, {}):
            metrics = WorkerMetrics(CollectorRegistry())
            await world.publish("a")
            world.start(metrics=metrics, **tracing)
            await world.answered(1 if tracing else 2)
            await world.stop("w0")
            assert traces_of(metrics) == {}

    play(recorded(0.0), plays)


def traces_of(metrics):
    """By stage or error the traces that its values name."""
    found = {}
    for family in metrics.registry.collect():
        for sample in family.samples:
            if sample.exemplar is not None:
                of = sample.labels.get("stage") or sample.labels["error"]
                found.setdefault(of, set()).add(sample.exemplar.labels["trace_id"])
    return found


@pytest.mark.parametrize("traced", [True, False])
def test_an_answer_repeats_its_requests_trace_whether_tracing_is_on_or_off(traced):
    async def plays(world, recorder):
        await world.publish("a", headers=(*CALLER.headers, (TENANT, b"t"), ("other", b"x")))
        await world.publish("b")
        world.start(**({"tracer": recorder.tracer} if traced else {}))
        await world.answered(2)
        first, second = world.log(TOPICS.results)
        assert (tuple(first.headers), tuple(second.headers)) == ((*CALLER.headers, (TENANT, b"t")), ())
        assert bool(recorder.spans()) == traced

    play(recorded(), plays)


def test_requests_that_fail_or_expire_show_on_the_span_and_their_dead_letters_keep_their_trace():
    async def plays(world, recorder):
        await world.publish("late", headers=((TIMEOUT_MS, b"500"),))
        await world.clock.sleep(1.0)
        await world.publish("poison", headers=(traceparent(7),))
        await world.publish_value(b"{")
        await world.publish("fine", partition=0)
        world.start(backend=SumModel(poison=lambda text: text == b"poison"), tracer=recorder.tracer)
        await world.answered(4)
        await world.stop("w0")
        (process,) = recorder.spans(PROCESS)
        assert process.status.status_code is StatusCode.ERROR
        # No message: it may quote a text.
        assert process.status.description is None
        assert not process.events
        counts = {name: value for name, value in process.attributes.items() if name.startswith("headrace.answers.")}
        assert counts == {"headrace.answers.ok": 1, "headrace.answers.expired": 1, "headrace.answers.failed": 2}
        assert process.attributes["error.type"] in {"model-failed", "bad-bytes"}
        (letters,) = recorder.spans(SEND_LETTERS)
        assert letters.attributes["messaging.batch.message_count"] == 2
        assert ids_of(world.log(TOPICS.dead_letters)[0].headers) == (7, 7)
        assert "poison" not in "".join(one.to_json() for one in recorder.spans())

    play(recorded(), plays)


def test_a_send_that_fails_fails_its_span(monkeypatch):
    async def plays(world, recorder):
        failures = iter([BrokerUnavailableError("away")])
        hand_over = MemoryProducer.send_batch

        async def fails_once(self, topic, partition, records):
            if topic == TOPICS.results and (error := next(failures, None)) is not None:
                raise error
            return await hand_over(self, topic, partition, records)

        monkeypatch.setattr(MemoryProducer, "send_batch", fails_once)
        await world.publish("a")
        world.start(tracer=recorder.tracer)
        await world.answered(1)
        await world.stop("w0")
        first, second = recorder.spans(SEND)
        assert (first.status.status_code, second.status.status_code) == (StatusCode.ERROR, StatusCode.UNSET)
        assert first.attributes["error.type"] == "BrokerUnavailableError"
        # No event with the message of the error.
        assert (first.events, first.status.description) == ((), None)

    play(recorded(), plays)


def test_a_broken_model_fails_the_work_and_another_try_is_a_span_of_the_same_trace():
    async def plays(world, recorder):
        broken = True
        canaries = [(b"canary", label_of("canary"))]
        world.start(backend=SumModel(poison=lambda _: broken), canaries=canaries, tracer=recorder.tracer)
        await world.publish("a")
        await world.until(lambda: world.workers["w0"]._serving.broken)
        broken = False
        await world.answered(1)
        await world.stop("w0")
        (poll,) = recorder.spans(POLL)
        *tries, last = recorder.spans(PROCESS)
        assert tries
        assert {one.attributes["error.type"] for one in tries} == {"ModelBrokenError"}
        assert last.status.status_code is StatusCode.UNSET
        assert {context_of(one)[0] for one in (*tries, last)} == {context_of(poll)[0]}

    play(recorded(), plays)


def test_links_are_bounded_and_malformed_traces_are_none():
    async def plays(world, recorder):
        for rubbish in (b"", b"00-1", b"\xff" * 55, b"00-" + b"0" * 60_000, None):
            await world.publish("x", headers=((TRACEPARENT, rubbish),))
        for number in range(1, 40):
            await world.publish("y", headers=(traceparent(number),))
        world.start(tracer=recorder.tracer)
        await world.answered(44)
        await world.stop("w0")
        assert max(len(links_of(one)) for one in recorder.spans(POLL)) == 3
        assert {trace for one in recorder.spans() for trace, _ in links_of(one)} <= set(range(1, 40))

    play(recorded(most_links=3), plays)


def test_a_batch_without_a_sampled_request_is_recorded_by_the_ratio_alone():
    async def plays(world, recorder):
        world.start(tracer=recorder.tracer, max_batch=1)
        await world.publish("a", "b", headers=(traceparent(1, sampled=False),))
        await world.publish("c")
        await world.answered(3)
        assert recorder.spans() == []
        await world.publish("d", headers=CALLER.headers)
        await world.answered(4)
        await world.stop("w0")
        assert recorder.names() == [POLL, PROCESS, SEND]

    play(recorded(ratio=0.0), plays)


def test_a_batch_that_chance_chose_is_recorded_whole():
    async def plays(world, recorder):
        recorder.tracer._random = lambda: 0.0
        await world.publish("a")
        world.start(tracer=recorder.tracer)
        await world.answered(1)
        await world.stop("w0")
        assert recorder.names() == [POLL, PROCESS, SEND]

    play(recorded(ratio=1e-9), plays)


def test_senders_decide_nothing_where_the_worker_does_not_follow_them():
    async def plays(world, recorder):
        await world.publish("a", headers=CALLER.headers)
        world.start(tracer=recorder.tracer)
        await world.answered(1)
        await world.stop("w0")
        assert recorder.spans() == []

    play(recorded(ratio=0.0, follows=False), plays)
