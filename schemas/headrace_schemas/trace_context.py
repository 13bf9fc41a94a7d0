"""Trace context: the headers `traceparent` and `tracestate` of W3C Trace Context, in records as in HTTP.

They say to which trace and span a request belongs (https://www.w3.org/TR/trace-context/). Anybody may send them, so
what is malformed counts as absent, and nothing longer than such a header may be is looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from msgspec import Struct

from headrace_schemas.headers import TRACEPARENT, TRACESTATE, Headers

LONGEST_TRACEPARENT: Final = 128
"""That of version 00 has 55 bytes; a later version may have more behind them."""
LONGEST_TRACESTATE: Final = 512
"""So many have to be passed on; of longer ones nothing is."""
MOST_MEMBERS: Final = 32
SAMPLED: Final = 1

_FLAG = slice(54, 55)
_ODD_DIGITS = frozenset((b"1", b"3", b"5", b"7", b"9", b"b", b"d", b"f"))
_PARTS = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[\x20-\x7e]*)?")
_MEMBER = re.compile(
    rb"[ \t]*(?:[a-z0-9][a-z0-9_*/@-]{0,255}=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e])?[ \t]*"
)


class TraceContext(Struct, frozen=True):
    """The trace and the span in it that caused a record, the flags of that trace, and what tracing systems add."""

    trace_id: int
    span_id: int
    flags: int = 0
    state: str = ""

    @property
    def sampled(self) -> bool:
        """Whether the sender records this trace: a link to any other leads nowhere."""
        return bool(self.flags & SAMPLED)

    @property
    def headers(self) -> Headers:
        """The headers that say so, of version 00."""
        traceparent = b"00-%032x-%016x-%02x" % (self.trace_id, self.span_id, self.flags)
        state = ((TRACESTATE, self.state.encode()),) if self.state else ()
        return ((TRACEPARENT, traceparent), *state)


def read_trace(headers: Headers) -> TraceContext | None:
    """Read the trace context of a record. None where there is none, or one that is malformed.

    A `tracestate` that is malformed counts as absent. Of headers with the same name the last one counts.
    """
    if not headers:
        return None
    traceparent: bytes | None = None
    tracestate: bytes | None = None
    for name, value in headers:
        if name == TRACEPARENT:
            traceparent = value
        elif name == TRACESTATE:
            tracestate = value
    if traceparent is None or len(traceparent) > LONGEST_TRACEPARENT:
        return None
    if (parts := _PARTS.fullmatch(traceparent)) is None:
        return None
    version, trace_id, span_id, flags, more = parts.groups()
    # 255 is no version, and version 0 has nothing behind its flags. An id of zeros is none.
    if version == b"ff" or (version == b"00" and more is not None):
        return None
    trace, span = int(trace_id, 16), int(span_id, 16)
    return TraceContext(trace, span, int(flags, 16), _state(tracestate)) if trace and span else None


def trace_headers(headers: Headers) -> Headers:
    """The trace context among ``headers`` as headers to pass on, without what is malformed; () where there is none."""
    found = read_trace(headers)
    return () if found is None else found.headers


def sampled_traces(many: Iterable[Headers], most: int) -> list[TraceContext]:
    """Of the trace contexts of ``many`` records the first ``most`` that are sampled, each once."""
    found: dict[tuple[int, int], TraceContext] = {}
    for headers in many:
        if len(found) >= most:
            break
        for name, value in headers:
            # The last digit of the flags is looked at first: nearly all traces are not sampled.
            if name == TRACEPARENT and value is not None and value[_FLAG] in _ODD_DIGITS:
                if (context := read_trace(headers)) is not None and context.sampled:
                    found.setdefault((context.trace_id, context.span_id), context)
                break
    return list(found.values())


def _state(value: bytes | None) -> str:
    if value is None or len(value) > LONGEST_TRACESTATE:
        return ""
    members = value.split(b",")
    if len(members) > MOST_MEMBERS or not all(map(_MEMBER.fullmatch, members)):
        return ""
    return value.decode("ascii")
