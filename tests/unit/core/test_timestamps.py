"""Which timestamps are believed, and how often it is said that some are not."""

from __future__ import annotations

import pytest

from headrace.core.clock import MAX_AGE_MS, MAX_AHEAD_MS, believable, kind_of

NOW = 1_764_000_000_000


@pytest.mark.parametrize(
    ("timestamp", "kind"),
    [
        (-1, "missing"),
        (-5, "past"),
        (0, "past"),
        (NOW // 1000, "past"),
        (NOW - MAX_AGE_MS - 1, "past"),
        (NOW + MAX_AHEAD_MS + 1, "future"),
        (NOW * 1000, "future"),
        (2**63 - 1, "future"),
    ],
)
def test_what_is_not_believed_has_a_kind(timestamp: int, kind: str) -> None:
    earliest, latest = believable(NOW)
    assert not earliest <= timestamp <= latest
    assert kind_of(timestamp, NOW) == kind


@pytest.mark.parametrize("timestamp", [NOW, NOW - 8 * 24 * 3600 * 1000, NOW + 3600 * 1000, NOW - MAX_AGE_MS])
def test_an_old_request_and_a_clock_that_is_an_hour_wrong_are_believed(timestamp: int) -> None:
    earliest, latest = believable(NOW)
    assert earliest <= timestamp <= latest
