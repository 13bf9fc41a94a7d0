from __future__ import annotations

import msgspec
import numpy as np
import pytest

from headrace_load.measure.audit import ANSWERED, SENT
from headrace_load.measure.evaluation import HALF_MS_US, Measurements, evaluate
from headrace_load.result import Used
from headrace_load.workload.spec import Backlog, Constant, MadeTexts, Workload

SECOND_US = 1_000_000
BEGIN_US = 1_700_000_000 * SECOND_US
WAIT_US = 7_000
WORKLOAD = Workload(arrivals=Constant(rate=10), texts=MadeTexts(), seconds=10, warm_up=2)


def a_run(**changed) -> Measurements:
    """Ten requests a second for two seconds of warm-up and ten more, each answered by the partition's order."""
    count = 120
    sent, answered = np.zeros(count, SENT), np.zeros(count, ANSWERED)
    sent["number"] = np.arange(count)
    sent["offset"] = answered["offset"] = answered["position"] = np.arange(count)
    sent["good"] = True
    sent["due_us"] = BEGIN_US + (np.arange(count) - 20) * SECOND_US // 10
    sent["sent_us"] = sent["due_us"] + 1_000
    sent["acked_us"] = sent["due_us"] + 3_000
    answered["appended_us"] = sent["due_us"] + WAIT_US
    answered["arrived_us"] = sent["due_us"] + WAIT_US + 2_000
    answered["status"][-10:] = 1
    found = Measurements(
        sent=sent,
        answered=answered,
        answers="log",
        records=count,
        begin_us=BEGIN_US,
        complete=True,
        append_clock="append",
        metrics={},
        used={"workers": Used(cpu_s=1.0, cpu_s_per_100k=2.0, rss_mb=3.0, rss_mb_most=4.0)},
        samples=[],
    )
    return msgspec.structs.replace(found, **changed)


def test_the_warm_up_is_audited_and_not_measured():
    result = evaluate(WORKLOAD, None, "a run", a_run())
    assert result.refused is None
    assert (result.audit.published, result.audit.answered, result.audit.lost) == (120, 120, 0)
    assert result.audit.by_status == {"ok": 110, "expired": 10}
    assert (result.published, result.answered) == (100, 100)
    assert (result.rate, result.goodput) == (10.0, 9.0)
    assert result.to_append.count == result.to_reader.count == 100
    assert result.to_append.mean == (WAIT_US + HALF_MS_US) / 1000
    assert result.to_reader.mean == (WAIT_US + 2_000) / 1000
    assert result.lateness.p50 == result.lateness.max == 1.0
    assert {stage.name: stage.mean for stage in result.stages} == pytest.approx(
        {"producing": 1.0, "reading": 1.5, "other": 6.5}
    )
    assert sum(second.due for second in result.timeline) == 100
    assert msgspec.json.decode(msgspec.json.encode(result), type=type(result)) == result


def test_a_drain_says_how_long_its_contender_took_to_the_first_answer():
    found = a_run(started_us=BEGIN_US - 4 * SECOND_US)
    workload = msgspec.structs.replace(WORKLOAD, arrivals=Backlog(requests=120))
    # The first request is due two seconds before BEGIN_US.
    waited_us = 2 * SECOND_US + WAIT_US + HALF_MS_US
    assert evaluate(workload, None, "a drain", found).first_answer_s == pytest.approx(waited_us / 1e6)
    assert evaluate(WORKLOAD, None, "a run", a_run()).first_answer_s is None


def test_answers_behind_the_end_are_no_rate_that_was_kept_up():
    found = a_run()
    found.answered["appended_us"][70:] += 20 * SECOND_US
    result = evaluate(WORKLOAD, None, "a run", found)
    assert result.answered == 100
    assert result.rate == 5.0
    assert result.to_append.max > 20_000


def test_a_request_that_was_lost_is_refused_a_verdict():
    result = evaluate(WORKLOAD, None, "a run", a_run(answered=a_run().answered[:-1]))
    assert result.audit.lost == 1
    assert result.refused.startswith("the audit failed: ")


def test_late_producers_get_no_verdict_though_everything_was_answered():
    found = a_run()
    found.sent["sent_us"][60:63] += 100_000
    result = evaluate(WORKLOAD, None, "a run", found)
    assert result.audit.kept
    assert result.refused.startswith("the producers were late: 3.0% of their requests")


def test_what_answers_nothing_gets_no_verdict_and_no_latency():
    result = evaluate(WORKLOAD, None, "a run", a_run(answered=np.zeros(0, ANSWERED), records=0))
    assert "nothing was answered" in result.refused
    assert (result.rate, result.to_append, result.to_reader, result.stages) == (0.0, None, None, ())


def test_answers_that_were_read_after_the_run_have_no_time_of_arrival():
    found = a_run()
    found.answered["arrived_us"] = -1
    result = evaluate(WORKLOAD, None, "a run", found)
    assert result.to_reader is None
    assert [stage.name for stage in result.stages] == ["producing", "other"]


def test_a_drain_is_measured_from_its_first_answer_to_its_last():
    found = a_run()
    found.sent["due_us"] = found.sent["sent_us"] = BEGIN_US - 60 * SECOND_US
    found.answered["arrived_us"] = -1
    workload = msgspec.structs.replace(WORKLOAD, arrivals=Backlog(requests=120))
    result = evaluate(workload, None, "a drain", found)
    assert result.refused is None
    assert (result.published, result.answered) == (120, 120)
    assert result.seconds == 11.9
    assert result.rate == pytest.approx(120 / 11.9)
    assert (result.to_append, result.lateness, result.stages) == (None, None, ())
