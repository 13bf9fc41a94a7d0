"""Trace contexts in records: what is read, what is passed on, and what hostile senders come to."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from headrace_schemas.headers import TRACEPARENT, TRACESTATE
from headrace_schemas.trace_context import (
    LONGEST_TRACEPARENT,
    TraceContext,
    read_trace,
    sampled_traces,
    trace_headers,
)

GOOD = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
FOUND = TraceContext(0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331, 1)
HEX = st.text("0123456789abcdefABCDEFg-", min_size=0, max_size=34)


def test_a_context_is_read_and_written_alike() -> None:
    headers = ((TRACEPARENT, GOOD), (TRACESTATE, b"desk=7,shop@eu=a b"))
    found = read_trace(headers)
    assert found == TraceContext(FOUND.trace_id, FOUND.span_id, 1, "desk=7,shop@eu=a b")
    assert found.sampled
    assert found.headers == trace_headers((("tenant", b"a"), *headers)) == headers
    assert trace_headers(()) == trace_headers((("tenant", b"a"),)) == ()


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"00-1",
        b"\xff" * 55,
        GOOD.upper(),
        GOOD + b" ",
        b" " + GOOD,
        GOOD + b"\n",
        GOOD + b"-00",
        GOOD.replace(b"-", b"_"),
        b"ff" + GOOD[2:],
        b"00-" + b"0" * 32 + GOOD[35:],
        GOOD[:36] + b"0" * 16 + b"-01",
        b"01" + GOOD[2:] + b"x",
        b"01" + GOOD[2:] + b"-" + b"x" * LONGEST_TRACEPARENT,
        GOOD * 20_000,
    ],
)
def test_a_malformed_traceparent_is_none(value: bytes | None) -> None:
    assert read_trace(((TRACEPARENT, value), (TRACESTATE, b"desk=7"))) is None
    assert trace_headers(((TRACEPARENT, value),)) == ()


def test_a_later_version_is_read_as_far_as_it_is_known() -> None:
    assert read_trace(((TRACEPARENT, b"cc" + GOOD[2:] + b"-what-comes"),)) == FOUND


@pytest.mark.parametrize(
    "state",
    [
        None,
        b"desk",
        b"desk=",
        b"=7",
        b"DESK=7",
        b"desk=7\n",
        b"desk=\xc3\xa9",
        b"desk=7;x\x00",
        b",".join(b"a%d=1" % number for number in range(33)),
        b"desk=" + b"7" * 600,
        b"a=1," * 200_000,
    ],
)
def test_a_malformed_tracestate_is_left_out_and_the_trace_is_kept(state: bytes | None) -> None:
    assert read_trace(((TRACEPARENT, GOOD), (TRACESTATE, state))) == FOUND


def test_of_headers_with_the_same_name_the_last_one_counts() -> None:
    assert read_trace(((TRACEPARENT, b"00-1"), (TRACEPARENT, GOOD))) == FOUND
    assert read_trace(((TRACEPARENT, GOOD), (TRACEPARENT, b"00-1"))) is None


def test_sampled_traces_are_found_once_each_and_no_more_than_wanted() -> None:
    def headers(number: int, flags: int = 1) -> tuple[tuple[str, bytes | None], ...]:
        return tuple(TraceContext(number, 1, flags).headers)

    many = [(), headers(1, 0), headers(2), headers(2), ((TRACEPARENT, b"rubbish"),), headers(3), headers(4)]
    assert [one.trace_id for one in sampled_traces(many, 32)] == [2, 3, 4]
    assert [one.trace_id for one in sampled_traces(many, 2)] == [2, 3]
    assert sampled_traces(many, 0) == []


@given(st.tuples(HEX, HEX, HEX, HEX).map("-".join) | st.text(max_size=80))
@example(GOOD.decode())
@example(GOOD.decode() + "-")
def test_what_is_read_is_what_opentelemetry_reads(value: str) -> None:
    context = TraceContextTextMapPropagator().extract({"traceparent": value})
    theirs = trace.get_current_span(context).get_span_context()
    ours = read_trace(((TRACEPARENT, value.encode("utf-8", "surrogatepass")),))
    if ours is not None:
        assert theirs.is_valid
        assert (theirs.trace_id, theirs.span_id, int(theirs.trace_flags)) == (ours.trace_id, ours.span_id, ours.flags)


@given(st.lists(st.tuples(st.sampled_from([TRACEPARENT, TRACESTATE, "x"]), st.none() | st.binary(max_size=700))))
def test_no_headers_raise_and_what_is_passed_on_is_read_alike(headers: list[tuple[str, bytes | None]]) -> None:
    passed_on = trace_headers(headers)
    assert read_trace(passed_on) == read_trace(headers)
    assert sum(len(value or b"") for _, value in passed_on) <= 55 + 512
