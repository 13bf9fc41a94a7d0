"""What holds for an Idempotency-Key, by the order of the log alone: whole, compacted, or begun in the middle."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.clock import SystemClock
from headrace.gateway.idempotency_log import IdempotencyLog, Kept
from headrace_schemas.codec import encode_idempotent_call
from headrace_schemas.records import IdempotentCall, Span
from headrace_schemas.topics import DAY_MS, idempotent_call_key
from tests.support.memory_kafka import MemoryCluster

CLOCK = SystemClock()
KEY, BODY, OTHER = (hashlib.sha256(word).hexdigest() for word in (b"key", b"body", b"other"))


class Written(NamedTuple):
    """A record of the log."""

    offset: int
    key: bytes
    value: bytes
    timestamp: int


def call(attempt: str, state: str = "claimed", first: int = 0, **more: Any) -> IdempotentCall:
    last = first if state == "published" else None
    parts: dict[str, Any] = {"key": KEY, "body": BODY, "texts": 1, "spans": (Span(0, first, last),), **more}
    return IdempotentCall(attempt=attempt, state=state, **parts)


def written(calls: Sequence[IdempotentCall], at_ms: Sequence[int] = ()) -> list[Written]:
    return [
        Written(
            offset,
            idempotent_call_key(one.key, one.attempt),
            encode_idempotent_call(one),
            at_ms[offset] if at_ms else offset,
        )
        for offset, one in enumerate(calls)
    ]


def read(records: Sequence[Written]) -> Kept | None:
    """What holds for KEY behind all of ``records``."""
    log = IdempotencyLog(MemoryCluster(CLOCK), "idempotency", CLOCK, retention_ms=DAY_MS, most=10)
    for one in records:
        log._take_one(one)  # type: ignore[arg-type]
    return log._kept.get(KEY)


def compacted(records: Sequence[Written]) -> list[Written]:
    last = {one.key: one.offset for one in records}
    return [one for one in records if last[one.key] == one.offset]


@pytest.mark.parametrize(
    ("calls", "holds", "state"),
    [
        ([call("a"), call("b")], "a", "claimed"),
        ([call("a"), call("b", after="a"), call("c", after="a")], "b", "claimed"),
        ([call("a"), call("b"), call("a", "published")], "a", "published"),
        ([call("a"), call("a", "published"), call("b", after="a")], "a", "published"),
        ([call("a"), call("a", "released"), call("b", after="a")], "b", "claimed"),
        ([call("a"), call("b", body=OTHER), call("b", "released", body=OTHER)], "a", "claimed"),
    ],
)
def test_the_first_claim_holds_until_it_is_taken_over_or_published(
    calls: list[IdempotentCall], holds: str, state: str
) -> None:
    kept = read(written(calls))
    assert kept is not None
    assert (kept.record.attempt, kept.record.state) == (holds, state)


def test_who_takes_over_looks_from_where_any_attempt_before_began() -> None:
    calls = [call("a", first=5), call("b", first=9), call("b2", first=3), call("c", first=20, after="a")]
    kept = read(written(calls))
    assert kept is not None
    assert kept.spans == {0: (3, None)}


def test_a_key_begins_anew_when_its_time_is_over() -> None:
    calls = [call("a"), call("a", "published"), call("b", body=OTHER, first=7, after="a")]
    kept = read(written(calls, [0, 1, DAY_MS]))
    assert kept is not None
    assert (kept.record.attempt, kept.spans) == ("b", {0: (7, None)})


@given(st.data())
def test_compaction_at_any_time_changes_neither_what_is_published_nor_from_where_is_looked(data: st.DataObject) -> None:
    # Gateways with views that are out of date: whoever claims goes by some earlier end of the log, and only who holds
    # the call, or held it, publishes or releases, once.
    calls: list[IdempotentCall] = []
    held: set[str] = set()
    settled: set[str] = set()
    for number in range(data.draw(st.integers(1, 8))):
        act = data.draw(st.sampled_from(["claim", "published", "released"])) if held else "claim"
        first = data.draw(st.integers(0, 5))
        if act == "claim":
            seen = read(written(calls[: data.draw(st.integers(0, len(calls)))]))
            calls.append(call(f"a{number}", first=first, after=None if seen is None else seen.record.attempt))
            now = read(written(calls))
            assert now is not None
            held |= {now.record.attempt} - settled
        else:
            attempt = data.draw(st.sampled_from(sorted(held)))
            calls.append(call(attempt, act, first=first))
            held -= {attempt}
            settled |= {attempt}
    records = written(calls)
    cut = data.draw(st.integers(0, len(records)))
    whole, later = read(records), read([*compacted(records[:cut]), *records[cut:]])
    assert whole is not None
    assert later is not None
    assert (whole.record.state == "published") == (later.record.state == "published")
    if whole.record.state == "published":
        assert later.record == whole.record
