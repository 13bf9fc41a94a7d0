from __future__ import annotations

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from headrace_load.measure.audit import ANSWERED, SENT, Rows, read_rows
from headrace_load.measure.evaluation import (
    DIGITS,
    HIGHEST_US,
    batch_sizes,
    grown,
    latency,
    lateness,
    stages,
    timeline,
    too_late,
)

waits = arrays.arrays(np.int64, st.integers(1, 300), elements=st.integers(-500, 5 * 10**10))


@given(waits)
def test_latencies_are_those_of_a_histogram_that_is_given_each_alone(found):
    plain = HdrHistogram(1, HIGHEST_US, DIGITS)
    for wait in found.tolist():
        plain.record_value(max(1, wait))
    seen = latency(found)
    assert seen.count == len(found)
    for percent, value in ((50, seen.p50), (90, seen.p90), (99, seen.p99), (99.9, seen.p999)):
        assert value == plain.get_value_at_percentile(percent) / 1000
    assert seen.max == found.max() / 1000
    again = HdrHistogram.decode(seen.histogram.encode())
    assert again.get_total_count() == len(found)
    assert again.get_value_at_percentile(99) == plain.get_value_at_percentile(99)


def test_no_waits_have_no_latency():
    assert latency(np.zeros(0, np.int64)) is None


@pytest.mark.parametrize(
    ("late_requests", "complete", "refused"), [(10, True, False), (11, True, True), (0, False, True)]
)
def test_more_than_one_late_request_in_a_hundred_gets_no_verdict(late_requests, complete, refused):
    late_us = np.array([20_001] * late_requests + [20_000] * (1000 - late_requests))
    found = lateness(late_us, 20.0)
    assert found.late == late_requests / 1000
    said = too_late(found, 20.0, complete=complete)
    assert (said is not None) == refused
    if said is not None:
        assert said.startswith("the producers were late")
        assert ("could not send all" in said) == (not complete)


def test_who_sent_nothing_has_no_lateness_but_is_refused_when_something_was_due():
    assert lateness(np.zeros(0, np.int64), 20.0) is None
    assert too_late(None, 20.0, complete=True) is None
    assert "could not send all" in too_late(None, 20.0, complete=False)


@given(
    st.lists(
        st.tuples(st.integers(0, 6_000_000), st.integers(0, 3_000_000), st.none() | st.integers(0, 4_000_000)),
        max_size=40,
    )
)
def test_the_timeline_adds_up_to_the_run(requests):
    begin_us = 1_000_000_000
    sent, answered = np.zeros(len(requests), SENT), np.zeros(len(requests), ANSWERED)
    first = np.full(len(requests), -1)
    for place, (due, late, wait) in enumerate(requests):
        sent[place]["due_us"] = begin_us + due
        sent[place]["sent_us"] = sent[place]["acked_us"] = begin_us + due + late
        if wait is not None:
            answered[place]["appended_us"] = begin_us + due + late + wait
            first[place] = place
    has = first >= 0
    waits_us = answered["appended_us"][has] - sent["due_us"][has]
    seconds = timeline(sent, first, answered, waits_us, begin_us, [(begin_us + 1_500_000, {"broker": 7.0})])
    assert [second.second for second in seconds] == list(range(len(seconds)))
    assert sum(second.due for second in seconds) == len(requests)
    assert sum(second.answered for second in seconds) == has.sum()
    for second in seconds:
        end = begin_us + (second.second + 1) * 1_000_000
        acked = sum(begin_us + due + late < end for due, late, _ in requests)
        back = sum(w is not None and begin_us + due + late + w < end for due, late, w in requests)
        assert second.lag == acked - back
        mine = [late + w for due, late, w in requests if w is not None and due // 1_000_000 == second.second]
        assert second.max == (max(mine) / 1000 if mine else None)
    if len(seconds) > 1:
        assert seconds[1].rss_mb == {"broker": 7.0}


def test_stages_follow_each_other_and_what_is_left_is_said():
    before = {("headrace_answers_total", "ok"): 100.0, ("headrace_in_kafka_seconds_sum", ""): 50.0}
    after = {
        ("headrace_answers_total", "ok"): 290.0,
        ("headrace_answers_total", "failed"): 10.0,
        ("headrace_in_kafka_seconds_sum", ""): 50.4,
        ("headrace_request_seconds_total", "gathering"): 0.2,
        ("headrace_request_seconds_total", "model"): 0.6,
        ("headrace_request_seconds_total", "publishing"): 0.1,
    }
    found = stages(10.0, 0.5, 1.0, grown(before, after))
    assert {stage.name: stage.mean for stage in found} == pytest.approx(
        {
            "producing": 0.5,
            "kafka": 2.0,
            "gathering": 1.0,
            "model": 3.0,
            "publishing": 0.5,
            "reading": 1.0,
            "other": 2.0,
        }
    )
    assert sum(stage.share for stage in found) == pytest.approx(1.0)


def test_stages_that_come_to_more_than_the_whole_leave_nothing_and_share_what_they_come_to():
    metrics = {
        ("headrace_answers_total", "ok"): 100.0,
        ("headrace_request_seconds_total", "model"): 0.6,
        ("headrace_request_seconds_total", "publishing"): 0.5,
    }
    found = {stage.name: stage for stage in stages(10.0, 0.5, None, metrics)}
    assert found["other"].mean == found["other"].share == 0
    assert found["model"].share == pytest.approx(6 / 11.5)
    assert sum(stage.share for stage in found.values()) == pytest.approx(1.0)


def test_without_metrics_only_what_the_harness_sees_is_told_apart():
    assert [stage.name for stage in stages(10.0, 0.5, None, {})] == ["producing", "other"]


def test_batch_sizes_are_counted_by_their_own_bound():
    cumulative = {
        ("headrace_batch_size_bucket", bound): count for bound, count in (("1.0", 3), ("2.0", 3), ("+Inf", 5))
    }
    assert batch_sizes(cumulative) == {"1": 3, "inf": 2}


def test_rows_are_written_as_they_were_added(tmp_path):
    rows = Rows(ANSWERED)
    columns = {name: [0, 1] for name in ANSWERED.names}
    first, second, empty = (tmp_path / name for name in ("first", "second", "empty"))
    with first.open("wb") as file:
        rows.add(**columns | {"crc": [2**32 - 1, 0], "hole": [True, False], "appended_us": [2**60, -1]})
        assert rows.flush(file)["crc"].tolist() == [2**32 - 1, 0]
        rows.add(**columns)
        assert len(rows) == 4
        assert len(rows.flush(file)) == 2
        assert len(rows.flush(file)) == 0
    with second.open("wb") as file:
        rows.add(**columns | {"crc": [7, 8]})
        rows.flush(file)
    empty.touch()
    assert len(rows) == 6
    assert read_rows([empty], ANSWERED).tolist() == []
    assert read_rows([first], ANSWERED)["crc"].tolist() == [2**32 - 1, 0, 0, 1]
    read = read_rows([first, empty, second], ANSWERED)
    assert read["crc"].tolist() == [2**32 - 1, 0, 0, 1, 7, 8]
    assert read["hole"].tolist() == [True, False, False, True, False, True]
    assert read["appended_us"].tolist() == [2**60, -1, 0, 1, 0, 1]
