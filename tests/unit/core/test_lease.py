"""The lease, and that it never outlasts what the group's coordinator grants."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.lease import Lease, lease_of

A3, A4, B4 = ("a", 3), ("a", 4), ("b", 4)
NEW = lease_of(session_s=6.0, rebalance_s=10.0)


@pytest.mark.parametrize(
    ("lease", "now_s", "left_s"),
    [
        (NEW, 0.0, 0.0),  # nothing was given yet
        (NEW.begun(A3, 100.0), 100.0, 6.0),
        (NEW.begun(A3, 100.0), 105.5, 0.5),
        (NEW.begun(A3, 100.0), 106.0, 0.0),
        (NEW.begun(A3, 100.0), 9000.0, 0.0),  # a process that was stopped for hours
        (NEW.begun(A3, 100.0).renewed(A3, 104.0), 106.0, 4.0),
        (NEW.begun(A3, 100.0).renewed(A3, 110.0), 111.0, 5.0),  # out for a while, and nobody else had it
        (NEW.begun(A3, 100.0).renewed(A3, 104.0).renewed(A3, 102.0), 106.0, 4.0),  # overtaken
        (NEW.begun(A4, 100.0).renewed(A3, 104.0), 106.0, 0.0),  # of the generation before
        (NEW.begun(A4, 100.0).renewed(B4, 104.0), 106.0, 0.0),  # of another member id
        (NEW.renewed(A3, 104.0), 105.0, 0.0),  # without an assignment there is nothing to renew
        (NEW.begun(A3, 100.0).ended(), 101.0, 0.0),
        (NEW.begun(A3, 100.0).ended().renewed(A3, 101.0), 102.0, 0.0),
        (NEW.begun(A3, 100.0).begun(A4, 103.0), 106.0, 3.0),
        (lease_of(session_s=30.0, rebalance_s=10.0).begun(A3, 0.0), 10.0, 0.0),  # the shorter of the two
    ],
)
def test_a_lease_lasts_so_long(lease: Lease, now_s: float, left_s: float):
    assert lease.left_s(now_s) == pytest.approx(left_s)


delays = st.floats(0.0, 30.0)


@given(
    session_s=st.floats(1.0, 60.0),
    rebalance_s=st.floats(1.0, 60.0),
    beats=st.lists(st.tuples(st.floats(0.0, 20.0), delays, delays, st.booleans()), max_size=12),
    rebalance_at_s=st.floats(0.0, 120.0),
    asked_s=st.floats(0.0, 200.0),
)
def test_it_ends_before_the_coordinator_may_give_the_partitions_away(
    session_s, rebalance_s, beats, rebalance_at_s, asked_s
):
    """A coordinator that hears each request after some delay; its answers come back after another, or get lost."""
    lease = lease_of(session_s=session_s, rebalance_s=rebalance_s).begun(A3, 0.0)
    sent_s = heard_s = 0.0
    answers = []
    for pause_s, there_s, back_s, lost in beats:
        sent_s += pause_s
        arrives_s = sent_s + there_s
        if arrives_s > heard_s + session_s:
            break  # evicted by then: it would be told so
        heard_s = max(heard_s, arrives_s)
        if arrives_s < rebalance_at_s and not lost:
            answers.append((arrives_s + back_s, sent_s))
    given_away_s = min(heard_s + session_s, rebalance_at_s + rebalance_s)
    for come_s, was_sent_s in sorted(answers):
        if come_s <= asked_s:
            lease = lease.renewed(A3, was_sent_s)
    if lease.left_s(asked_s) > 0:
        assert asked_s < given_away_s + 1e-6
