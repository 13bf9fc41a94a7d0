"""The trace of a call over HTTP: from its caller to its texts' requests, their answers and their reviews."""

from __future__ import annotations

import uuid

import msgspec
import pytest
import pytest_asyncio
from opentelemetry.trace import SpanKind, StatusCode

from headrace.kafka.aio import AioKafkaCluster
from headrace.kafka.range_reader import read_topic
from tests.support.gateways import gateway_site
from tests.support.spans import CALLER, context_of, ids_of, links_of, recorded
from tests.support.traced_services import answering, check_one_trace, reviewed
from tests.support.waiting import until

HEADERS = {name: (value or b"").decode() for name, value in CALLER.headers}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def traced(embedded_bootstrap):
    with recorded() as recorder:
        async with gateway_site(embedded_bootstrap) as site, site.gateway(tracer=recorder.tracer) as running:
            running.recorder = recorder
            yield running


async def records(running, field="requests"):
    topic = getattr(running.site.names, field)
    return [record async for record in read_topic(running.site.cluster, topic, field)]


async def requests_of(running, text):
    return [record for record in await records(running) if text.encode() in record.value]


async def test_a_call_is_a_span_of_its_callers_trace_and_its_texts_belong_to_it(traced):
    texts = ["a call's first", "a call's second"]
    called = await traced.classify({"texts": texts}, headers=HEADERS)
    assert called.status_code == 200
    await until(lambda: traced.recorder.spans("POST /v1/classify"))
    (call,) = traced.recorder.spans("POST /v1/classify")
    assert (call.kind, context_of(call)[0], call.parent.span_id) == (
        SpanKind.SERVER,
        CALLER.trace_id,
        CALLER.span_id,
    )
    assert dict(call.attributes) == {
        "http.request.method": "POST",
        "http.route": "/v1/classify",
        "http.response.status_code": 200,
        "network.protocol.version": "1.1",
        "url.path": "/v1/classify",
        "url.scheme": "http",
    }
    found = [ids_of(record.headers) for text in texts for record in await requests_of(traced, text)]
    assert found == [context_of(call)] * 2
    # How long it took leads to its trace.
    families = traced.gateway.metrics.registry.collect()
    named = {sample.exemplar.labels["trace_id"] for one in families for sample in one.samples if sample.exemplar}
    assert named == {f"{CALLER.trace_id:032x}"}
    # What is published for many calls belongs to the trace of none, and links to theirs.
    send = next(one for one in traced.recorder.spans() if context_of(call) in links_of(one))
    assert (send.name, send.kind, send.parent) == (f"send {traced.site.names.requests}", SpanKind.CLIENT, None)


async def test_faces_of_other_servers_and_failures_are_traced_alike(traced):
    labelled = await traced.http.post("/predict", json={"inputs": "a face"}, headers=HEADERS)
    assert labelled.status_code == 200
    (record,) = await requests_of(traced, "a face")
    assert ids_of(record.headers)[0] == CALLER.trace_id
    missing = await traced.http.get("/v1/nothing?text=secret", headers=HEADERS)
    assert missing.status_code == 404
    await until(lambda: traced.recorder.spans("GET"))
    (call,) = traced.recorder.spans("GET")
    # A caller's mistake is none of this server's, and a query may hold anything.
    assert call.status.status_code is StatusCode.UNSET
    assert dict(call.attributes)["http.response.status_code"] == 404
    assert "secret" not in call.to_json()


HOSTILE = [
    [("traceparent", "00-1")],
    [("traceparent", HEADERS["traceparent"].upper())],
    [("traceparent", "00-" + "0" * 32 + "-" + "b" * 16 + "-01")],
    [("traceparent", "00-" + "a" * 9_000)],
    [("traceparent", HEADERS["traceparent"]), ("traceparent", HEADERS["traceparent"][:-2] + "00")],
    [("traceparent", "\xff" * 55)],
]


@pytest.mark.parametrize("headers", HOSTILE)
async def test_a_malformed_context_of_a_caller_is_none(traced, headers):
    text = f"hostile {uuid.uuid4().hex}"
    raw = [(name, value.encode("latin-1")) for name, value in headers]
    assert (await traced.classify({"text": text}, headers=raw)).status_code == 200
    (record,) = await requests_of(traced, text)
    trace_id, _ = ids_of(record.headers)
    assert trace_id != CALLER.trace_id


async def test_a_gateway_that_does_not_trace_passes_on_what_callers_send(gateway):
    assert (await gateway.classify({"text": "passed on"}, headers=HEADERS)).status_code == 200
    assert (await gateway.classify({"text": "no trace"})).status_code == 200
    assert (await gateway.classify({"text": "rubbish"}, headers={"traceparent": "00-1"})).status_code == 200
    found = [
        tuple(record.headers)
        for text in ("passed on", "no trace", "rubbish")
        for record in await requests_of(gateway, text)
    ]
    assert [tuple(one for one in headers if one[0].startswith("trace")) for headers in found] == [
        tuple(CALLER.headers),
        (),
        (),
    ]


@pytest.mark.slow  # a session that a busy machine keeps to, half of which the embedded broker waits at each join
async def test_one_trace_goes_from_the_caller_to_request_answer_and_review(embedded_bootstrap):
    """Gateway, worker and labeller as they are, in one process."""
    with recorded() as recorder:
        async with gateway_site(embedded_bootstrap) as site, site.gateway(tracer=recorder.tracer) as running:
            site.answering.clear()
            patient = msgspec.structs.replace(site.cluster.settings, session_timeout_ms=12_000)
            async with answering(AioKafkaCluster(patient), site.names, recorder.tracer) as labeller:
                called = await running.classify({"text": "where is my parcel"}, headers=HEADERS)
                assert (called.status_code, called.json().get("label")) == (200, None)
                await reviewed(labeller, recorder, site.names)
            await check_one_trace(site.cluster, site.names, recorder, "POST /v1/classify")
