"""Leases that gateways share: who holds a text, by the order of the log alone, whole or compacted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.clock import SystemClock
from headrace.gateway.console.leases import LABELLED, LeaseLog
from headrace_schemas.codec import encode_text_lease
from headrace_schemas.records import TextLease
from headrace_schemas.topics import text_lease_key
from tests.support.memory_kafka import MemoryCluster

MINUTE = 60_000


class Written(NamedTuple):
    """A record of the log."""

    offset: int
    key: bytes
    value: bytes
    timestamp: int


def lease(holder: str, at: int, minutes: int, labelled: bool = False) -> Written:
    record = TextLease(text="text", holder=holder, lease_ms=minutes * MINUTE, labelled=labelled)
    return Written(0, text_lease_key("text", holder), encode_text_lease(record), at * MINUTE)


def read(records: Sequence[Written]) -> LeaseLog:
    log = LeaseLog(MemoryCluster(SystemClock()), "idempotency")
    for one in records:
        log._take_one(one)  # type: ignore[arg-type]
    return log


@pytest.mark.parametrize(
    ("records", "holds"),
    [
        ([lease("ana", 0, 5), lease("ben", 1, 5)], "ana"),
        ([lease("ana", 0, 5), lease("ben", 5, 5)], "ben"),
        ([lease("ana", 0, 5), lease("ana", 4, 5), lease("ben", 6, 5)], "ana"),
        ([lease("ana", 0, 5), lease("ana", 1, 0), lease("ben", 2, 5)], "ben"),
        ([lease("ana", 0, 5), lease("ben", 1, 0)], "ana"),
        ([lease("ana", 2, 5), lease("ana", 3, 20, labelled=True), lease("ben", 4, 5)], LABELLED),
        ([lease("ana", 2, 20, labelled=True), lease("ana", 3, 5)], "ana"),
        ([lease("ana", 0, 5)], None),
    ],
)
def test_the_first_lease_holds_until_its_time_is_over_or_it_is_given_up(
    records: list[Written], holds: str | None
) -> None:
    behind = records[-1].timestamp + MINUTE if holds is not None else 5 * MINUTE
    assert read(records).holder_of("text", behind) == holds


def test_calls_on_the_same_topic_are_passed_over() -> None:
    call = Written(0, b"call/ab/cd", b"{}", 0)
    assert read([call, lease("ana", 0, 5)]).holder_of("text", 1) == "ana"


@given(st.lists(st.tuples(st.sampled_from(["ana", "ben", "cy"]), st.integers(0, 3), st.booleans()), max_size=12))
def test_a_compacted_log_says_the_same_as_the_whole_one(steps: list[tuple[str, int, bool]]) -> None:
    written: list[Written] = []
    at = 0
    for who, later, gives_up in steps:
        at += later
        if gives_up:
            written.append(lease(who, at, 0))
            continue
        written.append(lease(who, at, 5))
        if read(written).holder_of("text", at * MINUTE) != who:
            written.append(lease(who, at, 0))
    last = {one.key: number for number, one in enumerate(written)}
    compacted = [one for number, one in enumerate(written) if last[one.key] == number]
    whole, left = read(written), read(compacted)
    for minute in range(at, at + 6):
        assert left.holder_of("text", minute * MINUTE) == whole.holder_of("text", minute * MINUTE)
